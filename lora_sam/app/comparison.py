"""What base and tuned models make of the same prompts on one image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.app.patches import Patch
from lora_sam.app.pictures import Picture
from lora_sam.app.scene import Choice, Scene
from lora_sam.core.errors import DataError
from lora_sam.evaluation.backends.names import TORCH
from lora_sam.prompts.objects import ObjectPrompts

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Prompts


@dataclass(frozen=True)
class Column:
    """What one model makes of the prompts.

    Attributes:
        key: `base`, or the name of the run.
        label: For people.
        patches: A mask per object at the shown size; None for an object without prompts.
        scores: IoU as the model predicts it, per object.
        encode_seconds: Time spent encoding the image; 0 where it was remembered.
        decode_seconds: Time spent answering prompts, enlarging masks included.
        names: Class of each mask as a class head tells it; none where there is none.
    """

    key: str
    label: str
    patches: tuple[Patch | None, ...]
    scores: tuple[float | None, ...]
    encode_seconds: float
    decode_seconds: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Base and one or several tuned models on the same prompts.

    Attributes:
        picture: The image.
        objects: The prompts, inside the image.
        columns: Base first.
        notes: What the user should know.
    """

    picture: Picture
    objects: tuple[ObjectPrompts, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def mark(self) -> str:
        """Hash of all masks, by which a page names those that it shows."""
        shown = [(column.key, [patch and patch.id for patch in column.patches]) for column in self.columns]
        return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def masks_of(
    predictor: Predictor, image: NDArray[np.uint8], prompts: Prompts, choice: Choice
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """The chosen mask of each prompt, bool [N, H, W], and its predicted IoU [N]."""
    if choice in ("single", "best"):
        found = predictor.predict(image, prompts, multimask=choice == "best")
        return found.masks, found.scores
    masks, scores, index = [], [], int(choice)
    for row in range(len(prompts)):  # four masks of every object at once would take gigabytes
        every = predictor.predict_all(image, prompts[row : row + 1])
        if every.scores.shape[1] <= index:
            raise DataError("this back end was exported for single masks only; choose the single mask, or torch")
        masks.append(every.logits[0, index] > 0)
        scores.append(every.scores[0, index])
    return np.stack(masks), np.array(scores, np.float32)


def scaled(one: ObjectPrompts, scale: tuple[float, float]) -> ObjectPrompts:
    """Prompts in pixels of the shown image."""
    if scale == (1.0, 1.0):
        return one
    x, y = scale
    box = None if one.box is None else (one.box[0] * x, one.box[1] * y, one.box[2] * x, one.box[3] * y)
    return replace(one, box=box, points=tuple((px * x, py * y, label) for px, py, label in one.points))


def notes_of(scene: Scene) -> Iterator[str]:
    """What the user should know about the models of a scene."""
    if scene.backend != TORCH and scene.alpha != 1:
        yield f"{scene.backend} computes at strength 1: the adapter is folded into its files."


def notes_on(objects: Sequence[ObjectPrompts]) -> Iterator[str]:
    """What the user should know about prompts."""
    for number, one in enumerate(objects, 1):
        if one.box is None and one.points and not any(label for *_, label in one.points):
            yield f"object {number} has background points alone, which show no object: add one on it, or a box."
