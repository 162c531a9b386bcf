"""Whether weights are computed with as the model that they say they were made for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_sam.models.checkpoints import load_about

_NAMES = ("variant", "family")


def other_model(path: Path, architecture: Mapping[str, Any]) -> str | None:
    """A note where a file of merged weights tells another architecture than it is loaded into; None for the same.

    The side of the input, windows and global attention show in no weight, or in tables that are scaled.

    Args:
        path: The file.
        architecture: As `lora_sam.models.family.SamModel.architecture` describes what is built.

    Raises:
        CheckpointError: the file is damaged.
    """
    told = load_about(path).get("architecture")
    if not isinstance(told, dict):
        return None
    now = json.loads(json.dumps(dict(architecture)))
    others = [name for name in sorted(now.keys() & told.keys()) if name not in _NAMES and told[name] != now[name]]
    if not others:
        return None
    then, used = (", ".join(f"{name} = {json.dumps(values[name])}" for name in others) for values in (told, now))
    return (
        f"note: {path.name!r} was merged for a model with {then}; it is used with {used}: set what it was made for "
        "under model="
    )
