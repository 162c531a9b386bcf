"""What a tool is asked that takes one object at a time, by a box or by clicks, and how far its masks are from ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.deployment.exporting import cases_of

if TYPE_CHECKING:
    from lora_sam.core.structures import Prompts
    from lora_sam.deployment.packs.packing import Packed

Answer = Callable[["NDArray[np.uint8]", "Question"], "NDArray[np.bool_]"]
"""What makes the mask [H, W] of a question about an RGB image, uint8 [H, W, 3]."""


@dataclass(frozen=True)
class Question:
    """One object of an image, in its pixels.

    Attributes:
        box: XYXY, float32 [4], or None.
        points: (x, y), float32 [K, 2]; may be none beside a box.
        labels: 1 on the object, 0 beside it, int64 [K].
    """

    box: NDArray[np.float32] | None
    points: NDArray[np.float32]
    labels: NDArray[np.int64]

    def prompts(self) -> Prompts:
        """The same for our predictors."""
        from lora_sam.core.structures import Prompts

        boxes = None if self.box is None else self.box[None]
        if not len(self.points):
            return Prompts(boxes=boxes)
        return Prompts(boxes=boxes, points=self.points[None], labels=self.labels[None])

    def scaled(self, x: float, y: float) -> Question:
        """The same for an image that was scaled."""
        by = np.array([x, y], np.float32)
        return Question(None if self.box is None else self.box * np.tile(by, 2), self.points * by, self.labels)


def agreement(packed: Packed, ours: Answer, hosts: Answer) -> tuple[float, int]:
    """Mean IoU of a tool's masks with ours, and how many there are, as `lora_sam.deployment.exporting.compared` asks.

    Earlier masks are left out: tools that ask for one object have none.
    """
    from lora_sam.evaluation.metrics import mask_iou

    cases, _ = cases_of(packed.run)
    ious = [
        float(mask_iou(ours(image, question)[None], hosts(image, question)[None])[0])
        for image, prompts in cases
        for prompt in prompts
        for question in _each(prompt)
    ]
    return float(np.mean(ious)), len(ious)


def our_answer(packed: Packed) -> Answer:
    """Our single mask of the merged model."""
    from lora_sam.predictors.torch_predictor import TorchPredictor

    predictor = TorchPredictor(packed.base.sam, packed.base.image_size)
    return lambda image, question: predictor.predict(image, question.prompts()).masks[0]


def _each(prompts: Prompts) -> Iterator[Question]:
    for _, part in prompts.kinds():
        for row in range(len(part)):
            box = None if part.boxes is None else part.boxes[row]
            points, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
            if part.points is not None and part.labels is not None:
                given = part.labels[row] != -1
                points, labels = part.points[row][given], part.labels[row][given]
            yield Question(box, points, labels)
