"""Scoring predictors side by side, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lora_sam.core.errors import DataError
from lora_sam.core.seeds import drawn_places
from lora_sam.core.structures import Sample
from lora_sam.core.wording import plural
from lora_sam.evaluation.classes import Classes, LabelPixels, add_pixels, by_class
from lora_sam.evaluation.metrics import NO_IMAGE, ImageScores, score_image

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Masks, Prompts
    from lora_sam.data.sources import SampleSource


@dataclass(frozen=True)
class Case:
    """An image worth showing.

    Attributes:
        id: Id of the sample.
        index: Its place in the source that was measured.
        objects: Number of its objects.
        base_iou: Mean IoU of its objects before.
        tuned_iou: Mean IoU of its objects after.
        group: What the sample is part of; None where it is a whole.
    """

    id: str
    index: int
    objects: int
    base_iou: float
    tuned_iou: float
    group: str | None = None

    @property
    def delta(self) -> float:
        """How much the mean IoU rose."""
        return self.tuned_iou - self.base_iou

    def caption(self, name: str) -> str:
        """One line for the picture of the case called `name`."""
        return (
            f"{name}: {self.id}, mean IoU of {plural(self.objects, 'object')} "
            f"{self.base_iou:.3f} -> {self.tuned_iou:.3f}"
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores of several predictors on the same images and prompts; no masks, so it stays small.

    Attributes:
        scores: Scores of all images, in the order of the source, by name of the predictor.
        classes: Class of each object of each image; empty tuples where the data has none.
        pixels: Pixels of each class, by name of the predictor.
    """

    scores: Mapping[str, tuple[ImageScores, ...]]
    classes: tuple[tuple[str, ...], ...] = ()
    pixels: Mapping[str, Mapping[str, LabelPixels]] = field(default_factory=dict)

    def per_image(self, base: str = "base", tuned: str = "tuned") -> list[Case]:
        """Mean IoU of every image with both predictors, in the order of the source."""
        pairs = zip(self.scores[base], self.scores[tuned], strict=True)
        return [
            Case(one.id, index, len(one.object_ids), one.mean_iou, other.mean_iou, one.group)
            for index, (one, other) in enumerate(pairs)
        ]

    def cases(self, base: str = "base", tuned: str = "tuned") -> dict[str, Case]:
        """`best`, `median` and `worst` image by the rise of its mean IoU from `base` to `tuned`.

        The median is the lower one of an even number. With fewer than three images some cases are the same image.
        """
        ranked = sorted(self.per_image(base, tuned), key=lambda case: (case.delta, case.id))
        return {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}

    def by_class(self, seed: int) -> Classes | None:
        """Figures of each class, `base` and `tuned` together; None where the data has no classes. `seed` draws."""
        return by_class(self.scores, self.classes, self.pixels, seed)


def evaluate(
    predictors: Mapping[str, Predictor],
    source: SampleSource,
    prompts_for: Callable[[Sample], Prompts],
    *,
    multimask: bool = False,
    threshold: float = 0.0,
    on_masks: Callable[[str, Sample, Masks], None] | None = None,
    on_sample: Callable[[int, Sample], None] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every predictor on every image of `source`, which is read once, all with the same prompts.

    Args:
        predictors: What to measure, by name.
        source: Labelled images.
        prompts_for: Makes one prompt per object of a sample, in pixels of its image.
        multimask: As in `Predictor.predict`.
        threshold: As in `Predictor.predict`.
        on_masks: Called with the name of the predictor, the sample and what was predicted, which it must not keep.
        on_sample: Called with the place of each sample and the sample, while the predictors remember its image.
        on_image: Called with (images done, all images) after each image.

    Raises:
        DataError: `source` is empty, or one of its images cannot be used.
    """
    count = len(source)
    if not count:
        raise DataError(NO_IMAGE)
    scores: dict[str, list[ImageScores]] = {name: [] for name in predictors}
    pixels: dict[str, dict[str, LabelPixels]] = {name: {} for name in predictors}
    classes: list[tuple[str, ...]] = []

    def keep(name: str, sample: Sample, predicted: Masks) -> None:
        add_pixels(pixels[name], sample, predicted.masks)
        if on_masks is not None:
            on_masks(name, sample, predicted)

    for index in range(count):
        sample = source[index]
        found = score_sample(
            predictors, sample, prompts_for(sample), multimask=multimask, threshold=threshold, on_masks=keep
        )
        classes.append(sample.classes)
        for name in predictors:
            scores[name].append(found[name])
        if on_sample is not None:
            on_sample(index, sample)
        if on_image is not None:
            on_image(index + 1, count)
    return Evaluation({name: tuple(images) for name, images in scores.items()}, tuple(classes), pixels)


def score_sample(
    predictors: Mapping[str, Predictor],
    sample: Sample,
    prompts: Prompts,
    *,
    multimask: bool = False,
    threshold: float = 0.0,
    on_masks: Callable[[str, Sample, Masks], None] | None = None,
) -> dict[str, ImageScores]:
    """Score every predictor on one image with the same prompts, one per object; arguments as in `evaluate`."""
    assert len(prompts) == len(sample.masks), f"{len(prompts)} prompts for {len(sample.masks)} objects"
    scores = {}
    for name, predictor in predictors.items():
        # held for one predictor at a time: masks of 300 objects in a photograph take gigabytes
        predicted = predictor.predict(sample.image, prompts, multimask=multimask, threshold=threshold)
        scores[name] = score_image(sample.id, sample.object_ids, predicted.masks, sample.masks, group=sample.group)
        if on_masks is not None:
            on_masks(name, sample, predicted)
        del predicted
    return scores


def some_objects(sample: Sample, most: int | None, seed: int) -> Sample:
    """`sample` with at most `most` of its objects, a draw that depends on `seed` and its id only; None for all."""
    rows = drawn_places(len(sample.masks), most, seed, "validation", sample.id)
    return sample if rows is None else sample.only(rows)
