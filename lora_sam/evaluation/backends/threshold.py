"""The logit above which a pixel belongs to a mask, chosen on images that are not the ones being reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.predictor import best_of_three
from lora_sam.evaluation.metrics import ratio

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Prompts, Sample
    from lora_sam.data.sources import SampleSource

# a sigmoid from 0.018 to 0.982; float32, as predictors compare in it
THRESHOLDS: NDArray[np.float32] = (np.arange(-40, 41) / 10).astype(np.float32)

_ZERO = int(np.flatnonzero(THRESHOLDS == 0)[0])

# Prompts whose logits are held at once: four masks of a photograph of 20 megapixels take 320 MB.
_PROMPTS_AT_ONCE = 2


@dataclass(frozen=True)
class TunedThreshold:
    """A threshold and what it is worth on the images that chose it.

    Attributes:
        threshold: Logit above which a pixel belongs to the mask.
        iou: Mean IoU per object with it.
        iou_at_zero: Mean IoU per object with a threshold of 0.
        images: Number of images.
        objects: Number of their objects.
    """

    threshold: float
    iou: float
    iou_at_zero: float
    images: int
    objects: int


def tune_threshold(
    predictor: Predictor,
    source: SampleSource,
    prompts_for: Callable[[Sample], Prompts],
    *,
    multimask: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> TunedThreshold:
    """The one of `THRESHOLDS` with the highest mean IoU per object; of equals, the one nearest to 0.

    Args:
        predictor: Gives logits.
        source: Labelled images.
        prompts_for: Makes one prompt per object of a sample.
        multimask: Of SAM's three masks for ambiguous prompts, take the one with the highest predicted IoU.
        on_image: Called with (images done, all images) after each image.
    """
    rows: list[NDArray[np.float64]] = []
    for index in range(len(source)):
        sample = source[index]
        prompts = prompts_for(sample)
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            part = slice(start, start + _PROMPTS_AT_ONCE)
            found = predictor.predict_all(sample.image, prompts[part])
            best = best_of_three(found.scores) if multimask else np.zeros(len(found.scores), np.intp)
            for logits, choice, truth in zip(found.logits, best, sample.masks[part], strict=True):
                rows.append(iou_at_thresholds(logits[choice], truth))
        if on_image is not None:
            on_image(index + 1, len(source))
    means = np.mean(rows, axis=0)
    equals = np.flatnonzero(means == means.max())
    chosen = int(equals[np.abs(THRESHOLDS[equals]).argmin()])
    return TunedThreshold(
        threshold=round(float(THRESHOLDS[chosen]), 1),
        iou=float(means[chosen]),
        iou_at_zero=float(means[_ZERO]),
        images=len(source),
        objects=len(rows),
    )


def iou_at_thresholds(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of `logits > threshold` with `truth`, both [H, W], for each of `THRESHOLDS`; empty with empty is 1."""
    # for each pixel, how many thresholds it is above
    above = np.searchsorted(THRESHOLDS, logits, side="left")
    predicted = _pixels_above(above.ravel())
    both = _pixels_above(above[truth])
    return ratio(both, predicted + int(truth.sum()) - both)


def _pixels_above(above: NDArray[np.intp]) -> NDArray[np.int64]:
    """Number of pixels above each threshold."""
    counts = np.bincount(above, minlength=len(THRESHOLDS) + 1)
    return counts[::-1].cumsum()[::-1][1:].astype(np.int64)
