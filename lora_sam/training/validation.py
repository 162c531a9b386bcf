"""The figure that chooses the best checkpoint: IoU on fixed prompts of the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Sample
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.evaluation.scoring import some_objects

if TYPE_CHECKING:
    from lora_sam.data.sources import SampleSource
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.prompts import PromptSource


def mean_iou(scores: Sequence[NDArray[np.float64]]) -> float:
    """Mean per object, 0 to 1, of the IoU of the objects of every image."""
    return float(np.mean(np.concatenate(scores)))


@dataclass(frozen=True, kw_only=True)
class Validation:
    """IoU per object on the validation split, always on the same objects and prompts.

    Attributes:
        predictor: The model being trained.
        source: Validation samples.
        prompt: Where prompts come from.
        seed: Fixes prompts and the draw of objects.
        max_objects: Objects per image that are scored; None scores all.
    """

    predictor: TorchPredictor
    source: SampleSource
    prompt: PromptSource
    seed: int
    max_objects: int | None

    def __call__(self) -> tuple[NDArray[np.float64], ...]:
        """IoU of the objects of every image, float [N] each, 0 to 1."""
        samples = (self.some_objects(self.source[index]) for index in range(len(self.source)))
        return tuple(mask_iou(self.masks(sample), sample.masks) for sample in samples)

    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """What the model predicts for `sample` now, bool [N, H, W]."""
        self.predictor.sam.eval()
        self.predictor.forget()
        prompts = self.prompt.evaluation_prompts(sample, self.seed)
        return self.predictor.predict(sample.image, prompts).masks

    def some_objects(self, sample: Sample) -> Sample:
        """`sample` with at most `max_objects` objects, the same ones every time."""
        return some_objects(sample, self.max_objects, self.seed)
