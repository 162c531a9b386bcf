"""How well predicted masks match the truth, per object and summed up with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.seeds import generator_for
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
_PIXELS = ("true_positive", "false_positive", "false_negative")
SIZES = ("small", "medium", "large")

# Areas in pixels where medium and large objects begin (COCO's evaluation, Lin et al., 2014).
MEDIUM_FROM, LARGE_FROM = 32**2, 96**2

# Share of the image diagonal by which a contour may be off (BSDS, Martin et al., 2004; DAVIS uses 0.008).
BOUNDARY_TOLERANCE = 0.0075

NO_IMAGE = "there is no image to measure: the split is empty. Give it at least one image with an object."

RESAMPLES = 2000
CONFIDENCE = 95.0

# Counts drawn at once while bootstrapping: bounds the memory to some 64 MiB whatever the number of images.
_COUNTS_AT_ONCE = 8_000_000


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
) -> ImageScores:
    """Score N predicted masks, each against its own truth, at the image's original size.

    An empty prediction of an empty truth is perfect (1); empty against not empty is 0.

    Args:
        id: Id of the sample.
        object_ids: N names of the objects, N >= 1.
        prediction: Predicted masks, bool [N, H, W].
        truth: True masks, bool [N, H, W].
        boundary_tolerance: Pixels by which a contour may be off; None for `default_boundary_tolerance`.
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
    )


def summarize(scores: Sequence[ImageScores], seed: int) -> dict[str, Any]:
    """Figures over all objects of all images, with 95 % intervals, ready for JSON.

    `iou`, `dice` and `boundary_f1` are means over objects, with `..._median` beside them; `f1` and `iou_pooled` are
    computed once from the pixels of all objects. `..._interval` is the [low, high] percentile interval of a bootstrap
    that resamples whole images, because the objects of an image are not independent (cluster bootstrap: Davison and
    Hinkley, 1997, section 3.8); `resampled` says so, or says `objects` where there is only one image. `by_size` has
    `objects`, `iou` and `dice` (None where there is no object) by COCO's limits on the true area in original pixels.

    Raises:
        DataError: there is no image.
    """
    draws = _resample([scores], seed)[0]
    return _with_intervals(_point_estimates(scores), draws, scores)


def compare(base: Sequence[ImageScores], tuned: Sequence[ImageScores], seed: int) -> dict[str, dict[str, Any]]:
    """`summarize` of both and of their difference, as `base`, `tuned` and `delta` (tuned - base).

    A figure of `delta` is the difference of the two figures (of the two medians, for a median). Its interval is that
    of a paired bootstrap: each resample takes the same images for both, so what makes an image hard cancels out.

    Raises:
        DataError: there is no image, or the two did not score the same objects of the same images in the same order.
    """
    _check_pairs(base, tuned)
    base_draws, tuned_draws = _resample([base, tuned], seed)
    base_figures, tuned_figures = _point_estimates(base), _point_estimates(tuned)
    delta: dict[str, Any] = {key: tuned_figures[key] - base_figures[key] for key in base_figures if key != "by_size"}
    delta["by_size"] = {
        size: {
            "objects": figures["objects"],
            "iou": _difference(tuned_figures["by_size"][size]["iou"], figures["iou"]),
            "dice": _difference(tuned_figures["by_size"][size]["dice"], figures["dice"]),
        }
        for size, figures in base_figures["by_size"].items()
    }
    return {
        "base": _with_intervals(base_figures, base_draws, base),
        "tuned": _with_intervals(tuned_figures, tuned_draws, base),
        "delta": _with_intervals(delta, tuned_draws - base_draws, base),
    }


@dataclass(frozen=True)
class PairedMeans:
    """Means over objects before and after, with 95 % intervals (low, high).

    Attributes:
        base: Mean before.
        tuned: Mean after.
        delta: tuned - base.
        base_interval: Interval of `base`.
        tuned_interval: Interval of `tuned`.
        delta_interval: Interval of `delta` from drawing the same images for both.
    """

    base: float
    tuned: float
    delta: float
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    delta_interval: tuple[float, float]


def compare_means(
    base: Sequence[NDArray[np.floating[Any]]], tuned: Sequence[NDArray[np.floating[Any]]], seed: int
) -> PairedMeans:
    """Compare the mean of any figure per object by the paired bootstrap of `compare`, with the same draws.

    Args:
        base: A figure of the objects of every image, float [N] each, N >= 1.
        tuned: The same of the same objects.
        seed: Draws the resamples.

    Raises:
        DataError: there is no image.
    """
    assert [len(image) for image in base] == [len(image) for image in tuned], "other objects"
    if not base:
        raise DataError(NO_IMAGE)
    # a cluster is an image, or an object where there is only one image
    pairs = np.stack([np.concatenate(base), np.concatenate(tuned)], axis=1).astype(np.float64)
    counts = np.ones(len(pairs)) if len(base) == 1 else np.array([len(image) for image in base], np.float64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    table = np.add.reduceat(pairs, starts, axis=0)
    draws = np.concatenate(
        [(drawn @ table) / (drawn @ counts)[:, None] for drawn in draws_of_clusters(len(counts), seed)]
    )
    tail = (100 - CONFIDENCE) / 2
    columns = np.column_stack([draws, draws[:, 1] - draws[:, 0]])
    low, high = np.percentile(columns, [tail, 100 - tail], axis=0).tolist()
    first, second = pairs.mean(axis=0).tolist()
    return PairedMeans(first, second, second - first, *((one, other) for one, other in zip(low, high, strict=True)))


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


def _point_estimates(scores: Sequence[ImageScores]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in PER_OBJECT_METRICS:
        values = _objects(scores, name)
        figures[name] = float(values.mean())
        figures[f"{name}_median"] = float(np.median(values))
    pixels = np.array([[_objects(scores, name).sum() for name in _PIXELS]], dtype=np.float64)
    figures["f1"] = float(_pooled_f1(pixels)[0])
    figures["iou_pooled"] = figures["f1"] / (2 - figures["f1"])
    sizes, iou, dice = size_of(_objects(scores, "area")), _objects(scores, "iou"), _objects(scores, "dice")
    figures["by_size"] = {
        name: {
            "objects": int(np.count_nonzero(sizes == index)),
            "iou": float(iou[sizes == index].mean()) if (sizes == index).any() else None,
            "dice": float(dice[sizes == index].mean()) if (sizes == index).any() else None,
        }
        for index, name in enumerate(SIZES)
    }
    return figures


def _with_intervals(
    figures: dict[str, Any], draws: NDArray[np.float64], scores: Sequence[ImageScores]
) -> dict[str, Any]:
    """`figures` and the intervals of `draws` [resamples, len(METRICS)]."""
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    intervals = {f"{name}_interval": [float(low[m]), float(high[m])] for m, name in enumerate(METRICS)}
    return {**figures, **intervals, "resampled": "images" if len(scores) > 1 else "objects"}


def _resample(runs: Sequence[Sequence[ImageScores]], seed: int) -> list[NDArray[np.float64]]:
    """Bootstrap figures [RESAMPLES, len(METRICS)] of each run; resample r takes the same images in all runs.

    Every figure is a ratio of sums over images, so a resample is one row of "how often was image i drawn" times the
    table of sums per image.
    """
    tables = [_sums_per_cluster(run) for run in runs]
    clusters = len(tables[0])
    parts: list[list[NDArray[np.float64]]] = [[] for _ in tables]
    for drawn in draws_of_clusters(clusters, seed):
        for part, table in zip(parts, tables, strict=True):
            sums = drawn @ table
            means = dict(zip(PER_OBJECT_METRICS, (sums[:, 1:-3] / sums[:, :1]).T, strict=True))
            part.append(
                np.column_stack([means[name] if name in means else _pooled_f1(sums[:, -3:]) for name in METRICS])
            )
    return [np.concatenate(part) for part in parts]


def draws_of_clusters(clusters: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each cluster is drawn, in batches of resamples: [at most RESAMPLES, clusters], RESAMPLES in all."""
    generator = generator_for(seed, "bootstrap")
    chance = np.full(clusters, 1 / clusters)
    rows = max(1, _COUNTS_AT_ONCE // clusters)
    for start in range(0, RESAMPLES, rows):
        yield generator.multinomial(clusters, chance, size=min(rows, RESAMPLES - start)).astype(np.float64)


def _sums_per_cluster(scores: Sequence[ImageScores]) -> NDArray[np.float64]:
    """Number of objects, sums of the metrics of objects, and the three pixel counts: [clusters, 4 + metrics].

    A cluster is what is resampled as a whole: an image, or an object where there is only one image.
    """
    if not scores:
        raise DataError(NO_IMAGE)
    names = (*PER_OBJECT_METRICS, *_PIXELS)
    if len(scores) == 1:
        columns = [scores[0].column(name) for name in names]
        return np.column_stack([np.ones(len(scores[0].object_ids)), *columns]).astype(np.float64)
    rows = [[len(image.object_ids), *(image.column(name).sum() for name in names)] for image in scores]
    return np.array(rows, dtype=np.float64)


def _pooled_f1(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 TP / (2 TP + FP + FN) of rows of (TP, FP, FN); 1 where there is no pixel at all."""
    true_positive, false_positive, false_negative = pixels.T
    total = 2 * true_positive + false_positive + false_negative
    return np.where(total == 0, 1.0, 2 * true_positive / np.maximum(total, 1))


def _objects(scores: Sequence[ImageScores], name: str) -> NDArray[Any]:
    return np.concatenate([image.column(name) for image in scores])


def _difference(tuned: float | None, base: float | None) -> float | None:
    return None if tuned is None or base is None else tuned - base


def _check_pairs(base: Sequence[ImageScores], tuned: Sequence[ImageScores]) -> None:
    remedy = "Measure both on the same split with the same prompts."
    if len(base) != len(tuned):
        raise DataError(f"cannot compare: base has {len(base)} images and tuned has {len(tuned)}. {remedy}")
    for index, (one, other) in enumerate(zip(base, tuned, strict=True)):
        if one.id != other.id:
            raise DataError(f"cannot compare: image {index} is '{one.id}' in base and '{other.id}' in tuned. {remedy}")
        if one.object_ids != other.object_ids or not np.array_equal(one.area, other.area):
            raise DataError(f"cannot compare: base and tuned have other objects in image '{one.id}'. {remedy}")
