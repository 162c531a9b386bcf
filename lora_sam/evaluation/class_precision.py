"""COCO's average precision of each class: masks that the class head named, against objects of that class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Sample
from lora_sam.evaluation.average_precision import (
    AveragePrecision,
    EncodedMask,
    ImageDetections,
    average_precision,
    encode_masks,
    overlaps_of,
    share_inside,
)

NO_CLASSES = "no classes"
"""What is said of the base, which never saw any."""

HEADINGS = ("class", "objects", "base", "tuned AP", "tuned AP@0.5")
_TITLES = {"prompted": "with the prompts of this run", "automatic": "without prompts"}


@dataclass(frozen=True)
class _Image:
    """What was predicted for an image; `told` is None where nobody named it."""

    truth: Sequence[EncodedMask]
    labels: tuple[str, ...]
    predicted: Sequence[EncodedMask]
    scores: NDArray[np.floating[Any]]
    told: NDArray[np.str_] | None

    def of(self, label: str | None) -> ImageDetections:
        """The objects and masks of one class; all of them for None."""
        if label is None:
            return ImageDetections(self.truth, self.predicted, self.scores)
        assert self.told is not None
        rows = np.flatnonzero(self.told == label)
        truth = [mask for mask, name in zip(self.truth, self.labels, strict=True) if name == label]
        return ImageDetections(truth, [self.predicted[row] for row in rows.tolist()], self.scores[rows])


@dataclass
class ClassPrecision:
    """Collects masks of base and tuned image by image; `report` has the figures.

    The confidence of a mask is the IoU that the model predicts, the `score` that predict writes. So a COCO tool that
    is given the files of predict comes to the same figures.
    """

    _images: dict[str, list[_Image]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        sample: Sample,
        masks: Sequence[EncodedMask],
        scores: NDArray[np.floating[Any]],
        told: Sequence[str] | None,
    ) -> None:
        """One image, if it has classes.

        Masks that lie mostly on pixels that are no background, and find nothing, count as nothing.

        Args:
            name: `base` or `tuned`.
            sample: The image and its objects.
            masks: What was predicted, N of `encode_masks`; which object each belongs to does not matter.
            scores: What ranks them, [N].
            told: The class of each mask; None for the base.
        """
        from faster_coco_eval.core import mask as coco_mask

        if not sample.classes:
            return
        kept = np.flatnonzero([int(coco_mask.area(mask)) for mask in masks])
        predicted, truth = tuple(masks[row] for row in kept.tolist()), encode_masks(sample.masks)
        if sample.ignored is not None:
            inside = share_inside(predicted, encode_masks(sample.ignored[None])[0]) > 0.5
            counted = np.flatnonzero(~inside | (overlaps_of(predicted, truth) >= 0.5).any(axis=1))
            kept, predicted = kept[counted], tuple(predicted[row] for row in counted)
        names = None if told is None else np.array(told, np.str_)[kept]
        self._images.setdefault(name, []).append(_Image(truth, sample.classes, predicted, scores[kept], names))

    def report(self) -> dict[str, Any] | None:
        """For JSON: `map` and `map_50` of the tuned masks with their classes, mean over the classes that have objects.

        `agnostic` has both of the same masks whatever their class, of base and tuned; `classes` each class. None where
        no image has classes.
        """
        tuned = self._images.get("tuned")
        if not tuned:
            return None
        labels = sorted({label for image in tuned for label in image.labels})
        classes: list[dict[str, Any]] = []
        for label in labels:
            figures = average_precision([image.of(label) for image in tuned])
            count = sum(image.labels.count(label) for image in tuned)
            classes.append({"name": label, "objects": count, **_plain(figures)})
        classes.sort(key=lambda one: (-one["objects"], one["name"]))
        return {
            "map": float(np.mean([one["map"] for one in classes])),
            "map_50": float(np.mean([one["map_50"] for one in classes])),
            "agnostic": {
                name: _plain(average_precision([image.of(None) for image in images]))
                for name, images in self._images.items()
            },
            "classes": classes,
        }


def precision_title(kind: str) -> str:
    """Heading of the table of a part of `class_precision`."""
    return f"Average precision of classes (COCO), {_TITLES[kind]}"


def precision_rows(report: Mapping[str, Any], most: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The rows of that table, under `HEADINGS`: at most so many classes, their mean, and all masks as one class."""
    for one in report["classes"][:most]:
        yield one["name"], (f"{one['objects']:,}", NO_CLASSES, f"{one['map']:.3f}", f"{one['map_50']:.3f}")
    more = len(report["classes"]) - most
    if more > 0:
        yield f"and {more:,} more in evaluation.json", ("",) * (len(HEADINGS) - 1)
    yield "mean (mAP)", ("", NO_CLASSES, f"{report['map']:.3f}", f"{report['map_50']:.3f}")
    base, tuned = (report["agnostic"].get(name) for name in ("base", "tuned"))
    assert tuned is not None
    of_base = "" if base is None else f"{base['map']:.3f}"
    yield "whatever the class", ("", of_base, f"{tuned['map']:.3f}", f"{tuned['map_50']:.3f}")


def _plain(figures: AveragePrecision) -> dict[str, float]:
    return {"map": figures.map, "map_50": figures.map_50}
