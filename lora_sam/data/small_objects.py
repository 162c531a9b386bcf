"""Objects that a model sees in a few pixels, since it scales the whole image to its input; and tiles that mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.seeds import drawn_places
from lora_sam.core.tile_grid import LEAST_TILE
from lora_sam.core.wording import plural
from lora_sam.data.sources import labels_of

if TYPE_CHECKING:
    from lora_sam.data.sources import SampleSource

SMALL_SHARE = 1 / 24
"""Objects are small where the median of their image spans less of its longer side: 21 of 512 pixels, 43 of 1,024."""

SMALL_IMAGES = 0.1
"""Share of the images with small objects from which on it is worth a word."""

TILE_SPANS = 20
"""A tile that is proposed is so many times as wide as the median of the small objects."""

MOST_IMAGES = 20
"""Training images that are looked at as a run begins."""


@dataclass(frozen=True)
class Seen:
    """An image, as far as the size of its objects goes.

    Attributes:
        id: Id of the sample.
        side: Longer side in pixels.
        span: Square root of the pixels of an object, the median.
    """

    id: str
    side: int
    span: float


@dataclass(frozen=True)
class SmallObjects:
    """Images whose objects are small.

    Attributes:
        images: How many there are.
        of: Of so many.
        example: That with the smallest ones.
        tile: Side of tiles in pixels, a multiple of 64, in which they are seen well.
    """

    images: int
    of: int
    example: Seen
    tile: int

    def __str__(self) -> str:
        """What to say of them, in one line."""
        example, side = self.example, self.example.side
        return (
            f"{self.images:,} of {plural(self.of, 'image')}: the median object spans less than {SMALL_SHARE:.1%} of "
            f"the longer side ({example.id}: {example.span:.0f} of {side:,} pixels); data.tile={self.tile} shows it "
            f"{side / self.tile:.1f} times as large"
        )


def small_objects(images: Sequence[Seen]) -> SmallObjects | None:
    """Those whose objects are small; None where they are few, or tiles would not be smaller than they are."""
    small = [one for one in images if one.span < SMALL_SHARE * one.side]
    if not small or len(small) < SMALL_IMAGES * len(images):
        return None
    step = 2 * LEAST_TILE
    usual = float(np.median([one.span for one in small]))
    tile = max(2 * step, step * round(TILE_SPANS * usual / step))
    example = max(small, key=lambda one: one.side / one.span)
    return SmallObjects(len(small), len(images), example, tile) if tile < example.side else None


def small_in(train: SampleSource, seed: int) -> SmallObjects | None:
    """`small_objects` of at most `MOST_IMAGES` training images, drawn by `seed`."""
    places = drawn_places(len(train), MOST_IMAGES, seed, "small objects")
    return small_objects([_seen(train, int(place)) for place in (range(len(train)) if places is None else places)])


def span_of(areas: Sequence[int] | NDArray[np.int64]) -> float:
    """The median span of objects of so many pixels each."""
    return float(np.median(np.sqrt(areas)))


def _seen(train: SampleSource, place: int) -> Seen:
    sample = labels_of(train, place)
    return Seen(sample.id, max(sample.size), span_of(np.count_nonzero(sample.masks, axis=(1, 2))))
