"""How good the masks of several predictors are, on the same images and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_sam.evaluation.average_precision import (
    AveragePrecision,
    EncodedMask,
    ImageDetections,
    average_precision,
    encode_masks,
    pairwise_iou,
)
from lora_sam.evaluation.scoring import Evaluation, evaluate

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Masks, Prompts, Sample
    from lora_sam.data.sources import SampleSource


@dataclass(frozen=True)
class Quality:
    """What was measured.

    Attributes:
        evaluation: Scores of every object by name of the predictor.
        average_precision: COCO's figures by name, with the IoU that the model predicts as confidence.
        agreement: Mean over objects of the IoU between a predictor's mask and the reference's, by name; empty where
            there is no reference.
    """

    evaluation: Evaluation
    average_precision: Mapping[str, AveragePrecision]
    agreement: Mapping[str, float]


def measure_quality(
    predictors: Mapping[str, Predictor],
    source: SampleSource,
    prompts_for: Callable[[Sample], Prompts],
    *,
    reference: str | None = None,
    multimask: bool = False,
    threshold: float = 0.0,
    on_image: Callable[[int, int], None] | None = None,
) -> Quality:
    """Measure every predictor on every image; arguments and errors as in `lora_sam.evaluation.evaluate`.

    Args:
        predictors: What to measure, by name.
        source: Labelled images.
        prompts_for: Makes one prompt per object of a sample.
        reference: Name of the predictor whose masks the others are compared with; None compares none.
        multimask: As in `Predictor.predict`.
        threshold: As in `Predictor.predict`.
        on_image: Called with (images done, all images) after each image.
    """
    truth: list[tuple[EncodedMask, ...]] = []
    kept: dict[str, list[ImageDetections]] = {name: [] for name in predictors}

    def keep(name: str, sample: Sample, found: Masks) -> None:
        # encoded, because the masks of all images would not fit into memory
        if len(truth) == len(kept[name]):
            truth.append(encode_masks(sample.masks))
        kept[name].append(ImageDetections(truth[-1], encode_masks(found.masks), found.scores))

    evaluation = evaluate(
        predictors,
        source,
        prompts_for,
        multimask=multimask,
        threshold=threshold,
        on_masks=keep,
        on_image=on_image,
    )
    agreement = {} if reference is None else {name: _agreement(kept[name], kept[reference]) for name in kept}
    return Quality(evaluation, {name: average_precision(images) for name, images in kept.items()}, agreement)


def _agreement(images: list[ImageDetections], others: list[ImageDetections]) -> float:
    pairs = zip(images, others, strict=True)
    return float(np.concatenate([pairwise_iou(one.predicted, other.predicted) for one, other in pairs]).mean())
