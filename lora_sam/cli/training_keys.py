"""The options of training, for commands that take them all."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Any

Group = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingKeys:
    """The groups and keys of `conf/train.yaml`, as they are typed; training checks them."""

    model: Group
    method: Group
    data: Group
    augmentation: Group
    prompt: Group
    loss: Group
    optim: Group
    trainer: Group
    cache: Group
    tracker: Group
    seed: Any
    resume: Any
    init_from: Any
    evaluate_split: Any
    evaluate_automatic: Any
    evaluate_clicks: Any
    evaluate_images: Any
    semantic: Any

    def training(self) -> dict[str, Any]:
        """All of them, without the options of the command itself; a copy."""
        return {field.name: copy.deepcopy(getattr(self, field.name)) for field in fields(TrainingKeys)}
