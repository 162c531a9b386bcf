"""Base and tuned on the same images with many kinds of prompts, each image encoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.evaluation.average_precision import EncodedMask, ImageDetections, encode_masks
from lora_sam.evaluation.classes import LabelPixels, add_pixels
from lora_sam.evaluation.clicks import iou_after_clicks
from lora_sam.evaluation.metrics import ImageScores
from lora_sam.evaluation.outlines import hausdorff95
from lora_sam.evaluation.scoring import score_sample, some_objects

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Masks, Prompts, Sample
    from lora_sam.data.sources import SampleSource

PromptsFor = Callable[["Sample"], "Prompts"]

OWN = "own"
"""Name of the prompts that a run was evaluated with."""


@dataclass
class Kept:
    """What one predictor gave for the run's own prompts, image by image.

    Attributes:
        predicted_iou: IoU as predicted by the model, float [N] per image.
        hausdorff: Hausdorff 95 in pixels, float64 [N] per image.
        detections: Masks and truth as COCO's figures need them.
        labels: Pixels by name of the class.
        clicked: IoU after each click, float64 [N, clicks] per image.
    """

    predicted_iou: list[NDArray[np.float32]] = field(default_factory=list)
    hausdorff: list[NDArray[np.float64]] = field(default_factory=list)
    detections: list[ImageDetections] = field(default_factory=list)
    labels: dict[str, LabelPixels] = field(default_factory=dict)
    clicked: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        scores: Scores of all images by name of the prompts, then by name of the predictor.
        kept: More about the run's own prompts, by name of the predictor.
        classes: Class of each object of each image; empty tuples where the data has none.
        groups: What each image is part of; None where it is a whole.
    """

    scores: Mapping[str, Mapping[str, Sequence[ImageScores]]]
    kept: Mapping[str, Kept]
    classes: Sequence[tuple[str, ...]]
    groups: Sequence[str | None]


def measure(
    predictors: Mapping[str, Predictor],
    source: SampleSource,
    prompts: Mapping[str, PromptsFor],
    *,
    max_objects: int | None,
    seed: int,
    outlines: bool = False,
    detection: bool = False,
    clicks: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure every predictor with every kind of prompt; each image is read once.

    Args:
        predictors: What to measure, by name.
        source: Labelled images, at least one.
        prompts: Make one prompt per object of a sample, by name. Of `OWN`, more is kept than scores.
        max_objects: Objects of an image that are measured; None for all.
        seed: Draws them, see `lora_sam.evaluation.some_objects`.
        outlines: Measure Hausdorff 95 too, for `OWN`.
        detection: Keep encoded masks too, for `OWN`.
        clicks: Most simulated clicks on an object; 0 for none.
        on_image: Called with (images done, all images) after each image.

    Raises:
        DataError: an image cannot be used.
    """
    scores: dict[str, dict[str, list[ImageScores]]] = {kind: {name: [] for name in predictors} for kind in prompts}
    kept = {name: Kept() for name in predictors}
    classes: list[tuple[str, ...]] = []
    groups: list[str | None] = []
    for index in range(len(source)):
        sample = some_objects(source[index], max_objects, seed)
        classes.append(sample.classes)
        groups.append(sample.group)
        truth = encode_masks(sample.masks) if detection else ()

        def keep(name: str, sample: Sample, found: Masks, truth: tuple[EncodedMask, ...] = truth) -> None:
            _keep(kept[name], sample, found, truth, outlines=outlines)

        for kind, prompts_for in prompts.items():
            found = score_sample(predictors, sample, prompts_for(sample), on_masks=keep if kind == OWN else None)
            for name in predictors:
                scores[kind][name].append(found[name])
        if clicks:
            for name, predictor in predictors.items():
                kept[name].clicked.append(iou_after_clicks(predictor, sample, most=clicks))
        if on_image is not None:
            on_image(index + 1, len(source))
    return Measured(scores, kept, classes, groups)


def _keep(kept: Kept, sample: Sample, found: Masks, truth: tuple[EncodedMask, ...], *, outlines: bool) -> None:
    kept.predicted_iou.append(found.scores)
    if outlines:
        pairs = zip(found.masks, sample.masks, strict=True)
        kept.hausdorff.append(np.array([hausdorff95(predicted, true) for predicted, true in pairs]))
    if truth:
        kept.detections.append(ImageDetections(truth, encode_masks(found.masks), found.scores))
    add_pixels(kept.labels, sample, found.masks)
