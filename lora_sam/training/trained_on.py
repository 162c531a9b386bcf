"""What an adapter remembers of the images it was trained on: their classes and their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.seeds import drawn_places
from lora_sam.data.sources import labels_of

if TYPE_CHECKING:
    from lora_sam.data.sources import SampleSource

MOST_IMAGES = 100
"""Of the training images, that many are looked at."""


@dataclass(frozen=True)
class TrainedOn:
    """Of at most `MOST_IMAGES` training images, drawn by the seed of the run.

    Attributes:
        classes: Names of the classes of their objects, sorted; empty where the data has none.
        side: Median of the longer sides in pixels.
    """

    classes: tuple[str, ...]
    side: int

    @classmethod
    def of(cls, train: SampleSource, seed: int) -> TrainedOn:
        """Read from the labels alone where the source can."""
        classes: set[str] = set()
        sides = []
        for place in some_images(len(train), seed).tolist():
            sample = labels_of(train, place)
            classes |= set(sample.classes)
            sides.append(max(sample.size))
        return cls(tuple(sorted(classes)), int(np.median(sides)))


def points_per_side(train: SampleSource, seed: int) -> int:
    """The fewest of `PER_SIDE` points along each side of an image that lie on `ENOUGH` of the objects, else the most.

    An object that no point lies on is hardly found without a prompt, however good the model is. Objects of at most
    `MOST_IMAGES` training images are counted, each once.
    """
    from lora_sam.predictors.grid import grid_points
    from lora_sam.prompts.everything import ENOUGH, PER_SIDE

    hit, objects = np.zeros(len(PER_SIDE), np.int64), 0
    for place in some_images(len(train), seed).tolist():
        sample = labels_of(train, place)
        objects += len(sample.masks)
        for number, per_side in enumerate(PER_SIDE):
            columns, rows = grid_points(per_side, sample.size).astype(np.intp).T
            hit[number] += np.count_nonzero(sample.masks[:, rows, columns].any(axis=1))
    return next((count for count, found in zip(PER_SIDE, hit, strict=True) if found >= ENOUGH * objects), PER_SIDE[-1])


def some_images(count: int, seed: int) -> NDArray[np.intp]:
    """At most `MOST_IMAGES` places of `count`, drawn by `seed`."""
    rows = drawn_places(count, MOST_IMAGES, seed, "class head")
    return np.arange(count) if rows is None else np.asarray(rows)
