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


def some_images(count: int, seed: int) -> NDArray[np.intp]:
    """At most `MOST_IMAGES` places of `count`, drawn by `seed`."""
    rows = drawn_places(count, MOST_IMAGES, seed, "class head")
    return np.arange(count) if rows is None else np.asarray(rows)
