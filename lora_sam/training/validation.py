"""The figure that chooses the best checkpoint: IoU on fixed prompts of the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Sample
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.evaluation.scoring import some_objects

if TYPE_CHECKING:
    from lora_sam.data.splits import SampleSource
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.prompts import PromptSource


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Mean IoU per object on the validation split, always on the same objects and prompts.

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

    def __call__(self) -> float:
        """Mean IoU, 0 to 1."""
        scores: list[float] = []
        for index in range(len(self.source)):
            sample = self.some_objects(self.source[index])
            scores.extend(mask_iou(self.masks(sample), sample.masks).tolist())
        return float(np.mean(scores))

    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """What the model predicts for `sample` now, bool [N, H, W]."""
        self.predictor.sam.eval()
        self.predictor.forget()
        prompts = self.prompt.evaluation_prompts(sample, self.seed)
        return self.predictor.predict(sample.image, prompts).masks

    def some_objects(self, sample: Sample) -> Sample:
        """`sample` with at most `max_objects` objects, the same ones every time."""
        return some_objects(sample, self.max_objects, self.seed)
