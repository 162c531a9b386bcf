"""The figure that chooses the best checkpoint: IoU on fixed prompts of the validation split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.seeds import drawn_places
from lora_sam.core.structures import Sample
from lora_sam.evaluation.clicks import iou_after_clicks
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.evaluation.scoring import some_objects

if TYPE_CHECKING:
    from lora_sam.core.scores import MaskChoice
    from lora_sam.data.sources import SampleSource
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.prompts import PromptSource
    from lora_sam.training.chance import ClusterSums

POINTS_PER_SIDE = 16
"""Points along each side of an image for masks without a prompt, where the prompts do not say it."""

# at every validation few images are clicked on, and few are searched for masks without a prompt, with half of the
# points along each side
_MOST_IMAGES, _SHARE_OF_POINTS = 8, 2
_PROBED = 8  # images whose prompts tell those of one validation from those of another


class Measure(Protocol):
    """Validates the model as it is."""

    def __call__(self, step: int) -> float:
        """The figure that chooses the best weights, at a step."""
        ...

    def sums(self) -> ClusterSums | None:
        """What the last such figure was the mean of; None before the first."""
        ...


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
        clicks: Also the IoU after so many clicks is measured; 0 for none.
        masks_of_points: Which masks of a point are trained, where masks without a prompt are measured too; None
            measures the prompts alone.
    """

    predictor: TorchPredictor
    source: SampleSource
    prompt: PromptSource
    seed: int
    max_objects: int | None
    clicks: int = 0
    masks_of_points: tuple[MaskChoice, ...] | None = None

    def __call__(self) -> tuple[NDArray[np.float64], ...]:
        """IoU of the objects of every image, float [N] each, 0 to 1.

        Where corrections are trained, also that of the objects of a few images after `clicks` clicks, each where the
        mask is most wrong. Where masks without a prompt are trained, also that of objects found without one in a few of
        the images, with the best thresholds: 0 for each object that is missed, and for each mask that is none.
        """
        clicked = set(self._few("validation after clicks") if self.clicks else ())
        scores = []
        for place in range(len(self.source)):
            sample = self.some_objects(self.source[place])
            found = mask_iou(self.masks(sample), sample.masks)
            if place in clicked:  # the image is still encoded
                found = np.concatenate([found, self._clicked(sample)])
            scores.append(found)
        if self.masks_of_points is not None:
            for place, found in self._without_prompts(self.masks_of_points).items():
                scores[place] = np.concatenate([scores[place], found])
        return tuple(scores)

    def _few(self, why: str) -> list[int]:
        """Places of the images that more than their prompts is measured on, the same ones every time."""
        chosen = drawn_places(len(self.source), _MOST_IMAGES, self.seed, why)
        return list(range(len(self.source))) if chosen is None else chosen.tolist()

    def _clicked(self, sample: Sample) -> NDArray[np.float64]:
        """IoU of its objects after the last click, float [N]."""
        # however good a mask is, it gets all its clicks: a click must not make it worse
        return iou_after_clicks(self.predictor, sample, most=self.clicks, until=math.inf)[:, -1]

    def _without_prompts(self, choices: tuple[MaskChoice, ...]) -> dict[int, NDArray[np.float64]]:
        """IoU of what is found in some images, by their places."""
        from lora_sam.training.fitted_scores import all_candidates, fit_thresholds, found_iou

        self.predictor.sam.eval()
        per_side = max(1, (getattr(self.prompt, "points_per_side", None) or POINTS_PER_SIDE) // _SHARE_OF_POINTS)
        places = self._few("validation without prompts")
        candidates = []
        for place in places:
            self.predictor.forget()
            candidates.append(all_candidates(self.predictor, self.source[place], per_side, choices))
        options = []
        for choice in choices:
            images = [image[choice] for image in candidates]
            thresholds, _ = fit_thresholds(images, choice)
            options.append([found_iou(image, thresholds) for image in images])
        best = max(options, key=mean_iou)
        return dict(zip(places, best, strict=True))

    def asked(self) -> str:
        """A digest of what the model is asked: prompts of some images, clicks, and whether it has to find objects."""
        digest = hashlib.sha256(repr(self.masks_of_points).encode())
        if self.clicks:
            digest.update(f"{self.clicks} clicks".encode())
        for place in range(0, len(self.source), -(-len(self.source) // _PROBED)):
            prompts = self.prompt.evaluation_prompts(self.some_objects(self.source[place]), self.seed)
            for value in (prompts.boxes, prompts.points, prompts.labels, prompts.mask_inputs):
                digest.update(b"-" if value is None else repr(value.shape).encode() + value.tobytes())
        return digest.hexdigest()[:16]

    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """What the model predicts for `sample` now, bool [N, H, W]."""
        self.predictor.sam.eval()
        self.predictor.forget()
        prompts = self.prompt.evaluation_prompts(sample, self.seed)
        return self.predictor.predict(sample.image, prompts).masks

    def some_objects(self, sample: Sample) -> Sample:
        """`sample` with at most `max_objects` objects, the same ones every time."""
        return some_objects(sample, self.max_objects, self.seed)
