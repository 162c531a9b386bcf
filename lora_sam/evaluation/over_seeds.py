"""The mean of several runs that differ in their seed, with an interval over seeds and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.groups import clusters_of
from lora_sam.core.seeds import generator_for
from lora_sam.evaluation.comparison import CONFIDENCE, RESAMPLES

Clusters = Sequence[tuple[int, float]]
"""Of one run: objects of every image, or of what images are parts of, and their mean figure."""


def clusters_in(
    images: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]
) -> list[tuple[int, float]]:
    """What `mean_over_seeds` draws as a whole: the images of a list of `evaluation.json`, those of one group as one.

    Where all are of one group, each image is drawn by itself: of one thing there is nothing to draw.

    Args:
        images: `per_image`, of test or of validation.
        value: Of an image the mean of the figure per object.
    """
    whole = clusters_of([image.get("group") for image in images])
    if not whole.any():
        whole = np.arange(len(images))
    objects = np.array([image["objects"] for image in images], np.float64)
    values = np.array([value(image) for image in images], np.float64)
    counts = np.bincount(whole, objects)
    means = np.bincount(whole, objects * values) / np.maximum(counts, 1)
    return [(int(count), mean) for count, mean in zip(counts, means.tolist(), strict=True)]


def gain_of(image: Mapping[str, Any]) -> float:
    """What tuning added to the mean IoU of an image of `per_image`."""
    return float(image["tuned_iou"] - image["base_iou"])


def mean_over_seeds(runs: Sequence[Clusters], seed: int) -> tuple[float, tuple[float, float]]:
    """Mean of the means per object of several runs, and its 95 % interval over seeds and images.

    The hierarchical bootstrap: each resample draws runs, and images anew within each of them (Davison and Hinkley,
    1997, section 3.8; Agarwal et al., 2021, for runs of learning algorithms). It is wider than the interval of one run,
    which knows nothing of what another seed would have given. With one run it is the interval over images.

    Args:
        runs: For each run its images as (objects, mean of the figure per object); their images may differ.
        seed: Draws the resamples.

    Raises:
        DataError: there is no run, or one without an object.
    """
    if not runs or any(sum(count for count, _ in run) == 0 for run in runs):
        raise DataError("cannot average: there is no run, or a run without an object")
    tables = [np.array([(count, count * value) for count, value in run], np.float64) for run in runs]
    means = [float(table[:, 1].sum() / table[:, 0].sum()) for table in tables]
    generator = generator_for(seed, "seeds")
    sums = np.zeros(RESAMPLES)
    for _ in runs:
        chosen = generator.integers(len(runs), size=RESAMPLES)
        for number, table in enumerate(tables):
            places = np.flatnonzero(chosen == number)
            sums[places] += _resampled(table, len(places), generator)
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(sums / len(runs), [tail, 100 - tail]).tolist()
    return float(np.mean(means)), (low, high)


def _resampled(table: NDArray[np.float64], times: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Means per object of `times` draws of whole images, [times]."""
    images = len(table)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=times) @ table
    return np.asarray(drawn[:, 1] / np.maximum(drawn[:, 0], 1))
