"""Several runs that differ in their seed as one: means, and intervals over seeds and images."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lora_sam.evaluation.over_seeds import mean_over_seeds

SEEDS = (0, 1, 2)
_MEANS = ("dice", "f1", "boundary_f1")
_BASE, _TUNED = 1, 2  # places in an entry of `per_image`, after the number of objects


def per_image(report: Mapping[str, Any]) -> list[list[float]]:
    """Of each image of an `evaluation.json`: id apart, its objects, and the mean IoU of base and tuned."""
    entries = sorted(report["per_image"], key=lambda one: str(one["id"]))
    return [[one["objects"], one["base_iou"], one["tuned_iou"]] for one in entries]


def combined(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """One entry for the runs of all seeds, as `finetune.collect` makes it of one; the runs are kept as `seeds`.

    Base is a mean over seeds: some data are split by the seed. IoU of tuned and its gain are means over seeds, with
    95 % intervals over seeds and images; other qualities means, times and memory medians.
    """
    every = list(runs.values())
    first = every[0]
    base = {
        **first["base"],
        **{name: statistics.fmean(one["base"][name] for one in every) for name in ("iou", *_MEANS)},
    }
    tuned = {**first["tuned"], **{name: statistics.fmean(one["tuned"][name] for one in every) for name in _MEANS}}
    delta = {**first["delta"], **{name: statistics.fmean(one["delta"][name] for one in every) for name in _MEANS}}
    tables = [one["per_image"] for one in every]
    tuned["iou"], tuned["iou_interval"] = _mean([[(row[0], row[_TUNED]) for row in table] for table in tables])
    delta["iou"], delta["iou_interval"] = _mean(
        [[(row[0], row[_TUNED] - row[_BASE]) for row in table] for table in tables]
    )
    memory = [one["peak_memory_bytes"] for one in every if one["peak_memory_bytes"] is not None]
    return {
        **first,
        "base": base,
        "tuned": tuned,
        "delta": delta,
        "validation_iou": statistics.fmean(one["validation_iou"] for one in every),
        "seconds": statistics.median(one["seconds"] for one in every),
        "wall_seconds": statistics.median(one["wall_seconds"] for one in every),
        "peak_memory_bytes": statistics.median(memory) if memory else None,
        "seeds": {str(seed): dict(one) for seed, one in runs.items()},
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
    """Mean IoU of `one` minus that of `other`, both `combined`, and its interval: paired by seed and by image."""
    pairs = [(one["seeds"][seed]["per_image"], other["seeds"][seed]["per_image"]) for seed in one["seeds"]]
    mean, (low, high) = mean_over_seeds(
        [
            by_place([(a[0], a[_TUNED] - b[_TUNED]) for a, b in zip(first, second, strict=True)])
            for first, second in pairs
        ],
        0,
    )
    return mean, (low, high)


def _mean(runs: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, list[float]]:
    mean, interval = mean_over_seeds([by_place(run) for run in runs], 0)
    return mean, list(interval)


def by_place(images: Sequence[tuple[float, float]], of: str = "") -> dict[Hashable, tuple[int, float]]:
    """Images of a run for `mean_over_seeds`, named by their place in the list: runs on one set have the same.

    Where a seed draws its own images that is not so, and the interval is wider than it has to be.
    """
    return {(of, place): (int(count), value) for place, (count, value) in enumerate(images)}
