"""Figures of many images, of a base and a tuned model alike, with intervals of a bootstrap over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.groups import clusters_of
from lora_sam.core.seeds import generator_for
from lora_sam.evaluation.metrics import METRICS, NO_IMAGE, PER_OBJECT_METRICS, PIXELS, SIZES, ImageScores, size_of

RESAMPLES = 2000
CONFIDENCE = 95.0

# With fewer images than this, percentile intervals are too narrow: with 10, 95 % intervals cover the truth in 89 %.
FEW_IMAGES = 10

_COUNTS_AT_ONCE = 8_000_000  # drawn at once: bounds the memory to some 64 MiB whatever the number of images


def summarize(scores: Sequence[ImageScores], seed: int) -> dict[str, Any]:
    """Figures over all objects of all images, with 95 % intervals, ready for JSON.

    `iou`, `dice` and `boundary_f1` are means over objects, with `..._median` beside them; `f1` and `iou_pooled` are
    computed once from the pixels of all objects. `..._interval` is the [low, high] percentile interval of a bootstrap
    that resamples whole images, because the objects of an image are not independent (cluster bootstrap: Davison and
    Hinkley, 1997, section 3.8); `resampled` says so. Samples of one group, as slices of a volume, are drawn together:
    `groups`. Where there is only one image or group, its `objects` are drawn. `by_size` has `objects`, `iou` and `dice`
    (None where there is no object) by COCO's limits on the true area in original pixels.

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
        independent: Images that have such objects, or what they are parts of: what the intervals rest on.
    """

    base: float
    tuned: float
    delta: float
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    delta_interval: tuple[float, float]
    independent: int = field(kw_only=True)


def too_few(figure: Mapping[str, Any]) -> bool:
    """Whether a `PairedMeans` rests on too few images for its intervals; those of older files do not say."""
    return bool(figure.get("independent", FEW_IMAGES) < FEW_IMAGES)


def compare_means(
    base: Sequence[NDArray[np.floating[Any]]],
    tuned: Sequence[NDArray[np.floating[Any]]],
    seed: int,
    groups: Sequence[str | None] | None = None,
) -> PairedMeans:
    """Compare the mean of any figure per object by the paired bootstrap of `compare`, with the same draws.

    Args:
        base: A figure of the objects of every image, float [N] each, N >= 1.
        tuned: The same of the same objects.
        seed: Draws the resamples.
        groups: What every image is part of, so that parts of one are drawn together; None where all are wholes.

    Raises:
        DataError: there is no image.
    """
    assert [len(image) for image in base] == [len(image) for image in tuned], "other objects"
    if not base:
        raise DataError(NO_IMAGE)
    # a cluster is an image, or an object where there is only one image
    pairs = np.stack([np.concatenate(base), np.concatenate(tuned)], axis=1).astype(np.float64)
    of_image = clusters_of([None] * len(base) if groups is None else groups)
    whole = np.repeat(of_image, [len(image) for image in base]) if of_image.any() else np.arange(len(pairs))
    counts = np.bincount(whole).astype(np.float64)
    table = np.zeros((len(counts), 2))
    np.add.at(table, whole, pairs)
    draws = np.concatenate(
        [(drawn @ table) / (drawn @ counts)[:, None] for drawn in draws_of_clusters(len(counts), seed)]
    )
    tail = (100 - CONFIDENCE) / 2
    columns = np.column_stack([draws, draws[:, 1] - draws[:, 0]])
    low, high = np.percentile(columns, [tail, 100 - tail], axis=0).tolist()
    first, second = pairs.mean(axis=0).tolist()
    intervals = ((one, other) for one, other in zip(low, high, strict=True))
    return PairedMeans(first, second, second - first, *intervals, independent=int(of_image.max()) + 1)


def _point_estimates(scores: Sequence[ImageScores]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in PER_OBJECT_METRICS:
        values = _objects(scores, name)
        figures[name] = float(values.mean())
        figures[f"{name}_median"] = float(np.median(values))
    pixels = np.array([[_objects(scores, name).sum() for name in PIXELS]], dtype=np.float64)
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
    clusters = int(clusters_of([image.group for image in scores]).max()) + 1
    resampled = "objects" if clusters == 1 else "images" if clusters == len(scores) else "groups"
    return {**figures, **intervals, "resampled": resampled}


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

    A cluster is what is resampled as a whole: an image or a group of them, or an object where there is only one.
    """
    if not scores:
        raise DataError(NO_IMAGE)
    names = (*PER_OBJECT_METRICS, *PIXELS)
    whole = clusters_of([image.group for image in scores])
    if not whole.any():
        columns = [_objects(scores, name) for name in names]
        return np.column_stack([np.ones(len(columns[0])), *columns]).astype(np.float64)
    rows = [[len(image.object_ids), *(image.column(name).sum() for name in names)] for image in scores]
    table = np.zeros((int(whole.max()) + 1, len(names) + 1))
    np.add.at(table, whole, np.array(rows, np.float64))
    return table


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
