"""Figures of each class of objects, base and tuned together, as `otx eval` gives them per label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.groups import clusters_of
from lora_sam.core.structures import Sample
from lora_sam.evaluation.comparison import FEW_IMAGES, PairedMeans, compare, too_few
from lora_sam.evaluation.metrics import ImageScores

_NOT_PER_OBJECT = ("id", "object_ids", "further", "group")


@dataclass
class LabelPixels:
    """Pixels of one class, pooled over images: the masks of its objects in an image are one mask.

    Attributes:
        shared: Pixels in prediction and truth.
        predicted: Pixels in the prediction.
        true: Pixels in the truth.
    """

    shared: int = 0
    predicted: int = 0
    true: int = 0

    @property
    def dice(self) -> float:
        """Dice of the pooled pixels."""
        return 2 * self.shared / (self.predicted + self.true)


@dataclass(frozen=True)
class OfClass:
    """The objects of one class.

    Attributes:
        name: Its name.
        images: Images that have some.
        objects: Number of its objects.
        iou: Mean IoU per object.
        dice: Mean Dice per object.
        f1: F1 of the pixels of all its objects in one count.
        pooled_dice: Dice of the class as one mask per image, the pixels of all images in one count, by `base` and
            `tuned`: what `otx eval` reports per label.
    """

    name: str
    images: int
    objects: int
    iou: PairedMeans
    dice: PairedMeans
    f1: PairedMeans
    pooled_dice: Mapping[str, float]


@dataclass(frozen=True)
class Classes:
    """All classes.

    Attributes:
        classes: Each, by falling number of objects.
        mean_iou: Mean over classes of their mean IoU, by `base` and `tuned`.
        mean_dice: The same of their mean Dice.
        mean_f1: The same of their F1.
        pooled_dice: Dice of the pixels of all classes together, by `base` and `tuned`: overall figure of `otx eval`.
    """

    classes: tuple[OfClass, ...]
    mean_iou: Mapping[str, float]
    mean_dice: Mapping[str, float]
    mean_f1: Mapping[str, float]
    pooled_dice: Mapping[str, float]


def add_pixels(pixels: MutableMapping[str, LabelPixels], sample: Sample, masks: NDArray[np.bool_]) -> None:
    """Add the pixels of one image to those of its classes; nothing where it has none.

    Args:
        pixels: By name of the class.
        sample: The image with its N objects.
        masks: What was predicted for them, bool [N, H, W].
    """
    for label in dict.fromkeys(sample.classes):
        rows = [row for row, name in enumerate(sample.classes) if name == label]
        predicted, true = _union(masks, rows), _union(sample.masks, rows)
        found = pixels.setdefault(label, LabelPixels())
        found.shared += int(np.count_nonzero(predicted & true))
        found.predicted += int(np.count_nonzero(predicted))
        found.true += int(np.count_nonzero(true))


def by_class(
    scores: Mapping[str, Sequence[ImageScores]],
    classes: Sequence[tuple[str, ...]],
    pixels: Mapping[str, Mapping[str, LabelPixels]],
    seed: int,
) -> Classes | None:
    """Figures of every class, with the intervals of `lora_sam.evaluation.metrics.compare` over the images that have it.

    Args:
        scores: Scores of all images by `base` and `tuned`.
        classes: Class of each object of each image; empty for an image without classes.
        pixels: Pixels by class, by `base` and `tuned`, from `add_pixels`.
        seed: Draws the resamples.

    Returns:
        None where no object has a class.
    """
    names = {label for image in classes for label in image}
    if not names:
        return None
    found = tuple(
        sorted(
            (_of_class(label, scores, classes, pixels, seed) for label in names),
            key=lambda one: (-one.objects, one.name),
        )
    )
    return Classes(
        classes=found,
        mean_iou=_mean(one.iou for one in found),
        mean_dice=_mean(one.dice for one in found),
        mean_f1=_mean(one.f1 for one in found),
        pooled_dice={name: _together(list(pixels[name].values())).dice for name in ("base", "tuned")},
    )


def _of_class(
    label: str,
    scores: Mapping[str, Sequence[ImageScores]],
    classes: Sequence[tuple[str, ...]],
    pixels: Mapping[str, Mapping[str, LabelPixels]],
    seed: int,
) -> OfClass:
    rows = [np.array([name == label for name in image], np.bool_) for image in classes]
    base, tuned = (
        [_only(image, own) for image, own in zip(scores[name], rows, strict=True) if own.any()]
        for name in ("base", "tuned")
    )
    compared = compare(base, tuned, seed)
    independent = int(clusters_of([image.group for image in base]).max()) + 1
    return OfClass(
        name=label,
        images=len(base),
        objects=sum(len(image.object_ids) for image in base),
        iou=_paired(compared, "iou", independent),
        dice=_paired(compared, "dice", independent),
        f1=_paired(compared, "f1", independent),
        pooled_dice={name: pixels[name][label].dice for name in ("base", "tuned")},
    )


def _only(image: ImageScores, rows: NDArray[np.bool_]) -> ImageScores:
    """The scores of some objects of an image, bool [N]."""
    per_object = {
        field.name: getattr(image, field.name)[rows] for field in fields(image) if field.name not in _NOT_PER_OBJECT
    }
    further = {name: values[rows] for name, values in image.further.items()}
    names = tuple(name for name, own in zip(image.object_ids, rows, strict=True) if own)
    return replace(image, object_ids=names, **per_object, further=further)


def _paired(compared: Mapping[str, Mapping[str, Any]], figure: str, independent: int) -> PairedMeans:
    """One figure of `lora_sam.evaluation.metrics.compare`."""
    parts = [compared[name] for name in ("base", "tuned", "delta")]
    base, tuned, delta = (float(part[figure]) for part in parts)
    intervals = (part[f"{figure}_interval"] for part in parts)
    return PairedMeans(
        base, tuned, delta, *((float(low), float(high)) for low, high in intervals), independent=independent
    )


def few_line(classes: Mapping[str, Any], most: int) -> str | None:
    """Which of the first classes of a table have intervals that nobody can trust; None for none."""
    few = [" ".join(one["name"].split()) for one in classes["classes"][:most] if too_few(one["iou"])]
    if not few:
        return None
    named = "all classes" if len(few) == len(classes["classes"]) else ", ".join(few)
    return f"Too few images to trust the intervals of {named}: fewer than {FEW_IMAGES} have the class."


def _mean(figures: Iterable[PairedMeans]) -> dict[str, float]:
    values = np.array([(one.base, one.tuned) for one in figures])
    base, tuned = values.mean(axis=0).tolist()
    return {"base": base, "tuned": tuned}


def _union(masks: NDArray[np.bool_], rows: Sequence[int]) -> NDArray[np.bool_]:
    # one at a time: a copy of the masks of 300 objects in a photograph takes gigabytes
    union: NDArray[np.bool_] = masks[rows[0]].copy()
    for row in rows[1:]:
        union |= masks[row]
    return union


def _together(labels: Sequence[LabelPixels]) -> LabelPixels:
    return LabelPixels(*(sum(getattr(one, name) for one in labels) for name in ("shared", "predicted", "true")))
