"""How well predicted masks match the truth, per object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.evaluation.outlines import boundary_f1, window_of_both


@dataclass(frozen=True)
class Pair:
    """A predicted mask and its truth, inside a window that holds both.

    Attributes:
        predicted: Bool [h, w].
        true: Bool [h, w]; one of the two has a pixel.
        tolerance: Pixels by which a contour may be off.
        true_positive: Pixels in both.
        false_positive: Pixels in the prediction only.
        false_negative: Pixels in the truth only.
    """

    predicted: NDArray[np.bool_]
    true: NDArray[np.bool_]
    tolerance: float
    true_positive: int
    false_positive: int
    false_negative: int


@dataclass(frozen=True)
class Metric:
    """One figure of how well masks match: what files, tables, pages and cards need of it.

    Attributes:
        name: Its key in JSON.
        heading: What it is called above a column.
        explanation: What it says, for people who do not know it.
        of_object: Its value for one object, 0 to 1, 1 is best; figures are means over objects. None for the pooled F1,
            which is computed once from the pixels of all objects.
    """

    name: str
    heading: str
    explanation: str
    of_object: Callable[[Pair], float] | None


def _iou_of(pair: Pair) -> float:
    return pair.true_positive / (pair.true_positive + pair.false_positive + pair.false_negative)


def _dice_of(pair: Pair) -> float:
    return 2 * pair.true_positive / (2 * pair.true_positive + pair.false_positive + pair.false_negative)


def _boundary_f1_of(pair: Pair) -> float:
    return boundary_f1(pair.predicted, pair.true, pair.tolerance)


ROWS: tuple[Metric, ...] = (
    Metric("iou", "IoU", "overlap of predicted and true object: 0 none, 1 perfect; mean over objects", _iou_of),
    Metric("dice", "Dice", "also an overlap, kinder to small mistakes; mean over objects", _dice_of),
    Metric("f1", "F1 (pooled)", "the pixels of all objects in one count, so large objects dominate", None),
    Metric(
        "boundary_f1",
        "Boundary F1",
        "share of the outline that is right within a few pixels; mean over objects",
        _boundary_f1_of,
    ),
)
"""All metrics, in the order in which they are shown. A row more is a metric more, in every file, table and page."""

METRICS = tuple(row.name for row in ROWS)
PER_OBJECT_METRICS = tuple(row.name for row in ROWS if row.of_object is not None)
PIXELS = ("true_positive", "false_positive", "false_negative")
SIZES = ("small", "medium", "large")

# Areas in pixels where medium and large objects begin (COCO's evaluation, Lin et al., 2014).
MEDIUM_FROM, LARGE_FROM = 32**2, 96**2

# Share of the image diagonal by which a contour may be off (BSDS, Martin et al., 2004; DAVIS uses 0.008).
BOUNDARY_TOLERANCE = 0.0075

NO_IMAGE = "there is no image to measure: the split is empty. Give it at least one image with an object."


@dataclass(frozen=True)
class ImageScores:
    """Scores of the N objects of one image, each predicted mask against its own truth.

    Attributes:
        id: Id of the sample.
        object_ids: N names of the objects.
        iou: Intersection over union, float64 [N].
        dice: Dice coefficient, float64 [N].
        boundary_f1: F-measure of the contours, float64 [N].
        further: Other metrics of `ROWS`, float64 [N] each.
        true_positive: Pixels in prediction and truth, int64 [N].
        false_positive: Pixels in the prediction only, int64 [N].
        false_negative: Pixels in the truth only, int64 [N].
        area: Area of the truth in pixels of the original image, int64 [N].
        group: What the sample is part of; None where it is a whole.
    """

    id: str
    object_ids: tuple[str, ...]
    iou: NDArray[np.float64]
    dice: NDArray[np.float64]
    boundary_f1: NDArray[np.float64]
    true_positive: NDArray[np.int64]
    false_positive: NDArray[np.int64]
    false_negative: NDArray[np.int64]
    area: NDArray[np.int64]
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    group: str | None = None

    def column(self, name: str) -> NDArray[Any]:
        """A metric, a pixel count or the area of every object, [N]."""
        found: NDArray[Any] = self.further[name] if name in self.further else getattr(self, name)
        return found

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the image's objects."""
        return float(self.iou.mean())


def default_boundary_tolerance(height: int, width: int) -> int:
    """0.0075 of the image diagonal in pixels, rounded up as in DAVIS (Perazzi et al., 2016), and at least 1."""
    return max(1, math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width)))


def score_image(
    id: str,
    object_ids: Sequence[str],
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    boundary_tolerance: float | None = None,
    group: str | None = None,
) -> ImageScores:
    """Score N predicted masks, each against its own truth, at the image's original size.

    An empty prediction of an empty truth is perfect (1); empty against not empty is 0.

    Args:
        id: Id of the sample.
        object_ids: N names of the objects, N >= 1.
        prediction: Predicted masks, bool [N, H, W].
        truth: True masks, bool [N, H, W].
        boundary_tolerance: Pixels by which a contour may be off; None for `default_boundary_tolerance`.
        group: What the sample is part of.
    """
    assert prediction.dtype == truth.dtype == np.bool_, "masks are bool"
    assert prediction.shape == truth.shape, f"predicted {prediction.shape}, true {truth.shape}"
    assert len(truth) == len(object_ids) >= 1, "one name per object, and at least one object"
    tolerance = default_boundary_tolerance(*truth.shape[1:]) if boundary_tolerance is None else boundary_tolerance
    assert tolerance >= 0, "a tolerance is a distance"

    counts = np.zeros((3, len(truth)), np.int64)
    values = {row.name: np.ones(len(truth)) for row in ROWS if row.of_object is not None}
    for n in range(len(truth)):
        window = window_of_both(prediction[n], truth[n])
        if window is None:
            continue
        predicted, true = prediction[n][window], truth[n][window]
        counts[:, n] = [np.count_nonzero(part) for part in (predicted & true, predicted & ~true, true & ~predicted)]
        pair = Pair(predicted, true, tolerance, *(int(count) for count in counts[:, n]))
        for row in ROWS:
            if row.of_object is not None:
                values[row.name][n] = row.of_object(pair)
    true_positive, false_positive, false_negative = counts
    return ImageScores(
        id=id,
        object_ids=tuple(object_ids),
        iou=values.pop("iou"),
        dice=values.pop("dice"),
        boundary_f1=values.pop("boundary_f1"),
        true_positive=true_positive,
        false_positive=false_positive,
        false_negative=false_negative,
        area=true_positive + false_negative,
        further=values,
        group=group,
    )


def size_of(area: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 small, 1 medium, 2 large for areas in original pixels: index into `SIZES`, int64 of the same shape."""
    return np.digitize(area, [MEDIUM_FROM, LARGE_FROM]).astype(np.int64)


def mask_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of each mask with the one at its place: [..., H, W] give [...]; empty with empty is 1."""
    both, either = (np.count_nonzero(pixels, axis=(-2, -1)) for pixels in (one & other, one | other))
    return ratio(np.asarray(both), np.asarray(either))


def ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ratio of counts, where 0 / 0 is empty against empty, hence perfect."""
    return np.where(denominator == 0, 1.0, numerator / np.maximum(denominator, 1))
