"""What the values of all masks of a data set mean together: objects, soft edges, blends of labels, void, background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import Notes
from lora_sam.data.reading.image_file import ImageFile, place_of
from lora_sam.data.reading.images import is_jpeg
from lora_sam.data.reading.looked_at import looked_at
from lora_sam.data.reading.mask_areas import (
    are_alike,
    band_of,
    is_hollow,
    parts_of_values,
    separate_parts,
    strips_of,
    tally,
)
from lora_sam.data.reading.mask_values import MaskValues, mask_values
from lora_sam.data.reading.skipping import attempt_all

VOIDS = (255, 65535)
"""What tools write where a pixel belongs to nothing."""

MANY_PARTS = 4
"""So many separate parts, without specks, may be objects of their own."""

_MOST_FILES = 64  # masks that are looked at, evenly spaced

_ALONE = 2  # of the eight neighbours of a pixel of a soft edge, at most so many have its value
_SOLID_PIXELS, _SOLID_ALONE = 16, 0.3  # a value with so many pixels, few of them alone, fills an area
_SOFT = 0.4  # of the pixels between background and the largest value, if they are edges
_RINGING = 0.6  # of the same pixels alone, where all values are near the two
_NEAR = 0.06  # of the largest value: how far JPEG moves a value, mostly
_FEW_PIXELS, _MOSTLY, _BLENDED, _BLENDED_PIXELS = 32, 0.8, 0.04, 50
_STRIPS, _LEAPS = 0.1, 0.25  # of the pixels at edges; of unequal neighbours, those more than 1 apart
_STRIP_IDS = 16  # larger steps leave edges of single pixels
_FEW_IDS, _MOST_IDS, _USED_IDS = 32, 200, 0.3  # beside void: few ids may have gaps, more use this share of the numbers
_FRAMED = 0.6
_INSIDE = 0.05  # of the border: what has less lies inside
_VALUES = 64  # of a mask, whose parts are counted


@dataclass
class Survey:
    """Counts over the masks that were looked at, by stored value.

    Attributes:
        files: How many there were.
        counts: Pixels of each value.
        alone: Pixels few of whose neighbours have their value.
        between: Those of them with a smaller and a larger neighbour.
        jpegs: Files that are JPEG.
        transparent: Files whose objects are in their alpha channel.
        framed: Files whose foreground covers most of the border, on all sides, and most of the picture.
        alike: Files whose foreground is large, and nearly that of the first one.
        no_background: Files without a pixel of 0.
        border: Pixels on the border, of each value.
        rims: Pairs of neighbouring pixels (left and right, above and below) of two values, the smaller first.
        edges: Pixels above 0 with another value beside them.
        strips: Pixels of each value in thin strips between a smaller and a larger value, left by smooth enlargement.
        apart: Pixels of each value in thick areas, with no larger value near.
        hollow: Files whose foreground is thin closed outlines.
        parts: Connected parts of what is at least half the largest value, without specks, of each file.
        parts_of_values: Values of files with several, and the same of each.
    """

    files: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    alone: dict[int, int] = field(default_factory=dict)
    between: dict[int, int] = field(default_factory=dict)
    border: dict[int, int] = field(default_factory=dict)
    jpegs: int = 0
    transparent: int = 0
    framed: int = 0
    no_background: int = 0
    alike: int = 0
    rims: dict[tuple[int, int], int] = field(default_factory=dict)
    edges: int = 0
    strips: dict[int, int] = field(default_factory=dict)
    apart: dict[int, int] = field(default_factory=dict)
    hollow: int = 0
    parts: list[int] = field(default_factory=list)
    parts_of_values: list[tuple[int, int]] = field(default_factory=list)
    _first: NDArray[np.bool_] | None = None

    def add(self, values: NDArray[Any], *, jpeg: bool = False, transparent: bool = False) -> None:
        """Count one mask: integers [H, W]."""
        self.files += 1
        self.jpegs += jpeg
        self.transparent += transparent
        foreground = values != 0
        self._first = foreground if self._first is None else self._first
        self.alike += are_alike(foreground, self._first)
        sides = [foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1]]
        border = np.concatenate(sides)
        self.framed += bool(
            min(side.any() for side in sides) and border.mean() > _FRAMED and 0.5 < foreground.mean() < 1
        )
        self.no_background += bool(foreground.all())
        tally(self.border, np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]]))
        values = band_of(values, foreground)
        self.hollow += is_hollow(values != 0)
        self.parts.append(separate_parts(2 * values.astype(np.int64) > int(values.max())))
        tally(self.counts, values)
        if len(np.unique(values)) < 3 and not jpeg:
            return  # nothing lies between two values
        if not jpeg:
            self.parts_of_values += parts_of_values(values, _VALUES)
        self._meet(values)
        padded = np.pad(values, 1, mode="edge")
        height, width = values.shape
        same = np.zeros(values.shape, np.uint8)
        low, high = values.copy(), values.copy()
        for top in range(3):
            for left in range(3):
                if (top, left) != (1, 1):
                    other = padded[top : top + height, left : left + width]
                    same += other == values
                    np.minimum(low, other, out=low)
                    np.maximum(high, other, out=high)
        alone = same <= _ALONE
        tally(self.alone, values[alone])
        tally(self.between, values[alone & (low < values) & (high > values)])
        self.edges += int(np.count_nonzero((low != high) & (values > 0)))
        if int(np.unique(values)[-2]) <= _STRIP_IDS:  # the largest may be void
            for count, where in zip((self.strips, self.apart), strips_of(values), strict=True):
                tally(count, values[where])

    def _meet(self, values: NDArray[Any]) -> None:
        for one, two in ((values[:, :-1], values[:, 1:]), (values[:-1], values[1:])):
            apart = one != two
            low, high = np.minimum(one, two)[apart].astype(np.int64), np.maximum(one, two)[apart].astype(np.int64)
            pairs, numbers = np.unique(low * 2**32 + high, return_counts=True)
            for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
                key = pair // 2**32, pair % 2**32
                self.rims[key] = self.rims.get(key, 0) + number

    def values(self, ignored: Sequence[int] = ()) -> list[int]:
        """The values above 0 that are not `ignored`, ascending."""
        return sorted(value for value in self.counts if value > 0 and value not in ignored)

    def largest(self, ignored: Sequence[int] = ()) -> int:
        """The largest value that is not `ignored`."""
        return max((0, *self.values(ignored)))

    @property
    def usual_parts(self) -> int:
        """Median number of parts of a mask."""
        return int(np.median(self.parts or [0]))

    def usual_parts_of_values(self, ignored: Sequence[int]) -> int:
        """Median number of parts of a value that is not `ignored`, in masks with several."""
        return int(np.median([parts for value, parts in self.parts_of_values if value not in ignored] or [0]))

    def on_the_border(self, values: Sequence[int]) -> int:
        """Which of `values` most pixels of the borders have."""
        return max(values, key=lambda value: self.border.get(value, 0))

    def around_zero(self, voids: Sequence[int]) -> int | None:
        """Which of these values lies around 0, as a background does around objects; None for none."""
        total = sum(self.border.values())
        if not self.counts.get(0) or self.border.get(0, 0) > _INSIDE * total:
            return None
        most = [value for value in voids if self.border.get(value, 0) > 0.5 * total]
        return next((value for value in most if self.counts.get(value, 0) > self.counts[0]), None)

    def is_rim(self, lower: int, upper: int) -> bool:
        """Whether `upper` hardly meets background: `lower` lies all around it, and covers less."""
        outside, between = self.rims.get((0, upper), 0), self.rims.get((lower, upper), 0)
        return between > 0 and outside < 0.05 * (outside + between) and self.counts[lower] < self.counts[upper]

    def void(self) -> tuple[int, ...]:
        """Values that are plainly no objects: 255 or 65535 far above ids that are small, and -1."""
        found = [-1] if 0 < self.counts.get(-1, 0) < 0.5 * sum(self.counts.values()) else []
        ids = [value for value in self.counts if value > 0 and value not in VOIDS]
        if ids and not self.jpegs:
            largest = max(ids)
            dense = largest <= _FEW_IDS or len(ids) >= _USED_IDS * largest
            if largest <= _MOST_IDS and dense and self._fills(ids):
                found += [value for value in VOIDS if value in self.counts]
        return tuple(sorted(found))

    def _fills(self, values: Sequence[int]) -> bool:
        """Whether most pixels of these values lie in areas of one value, as labels do and soft edges do not."""
        pixels = sum(self.counts[value] for value in values)
        return sum(self.alone.get(value, 0) for value in values) < 0.5 * pixels

    def kind(self, ignored: Sequence[int] = ()) -> Literal["plain", "soft", "blended"]:
        """`soft`: one kind of object whose edges have values between; `blended`: labels that were resized or
        compressed.

        Args:
            ignored: Values that are no objects.
        """
        counts = {value: count for value, count in self.counts.items() if value > 0 and value not in ignored}
        if len(counts) < 2:
            return "plain"
        largest = max(counts)
        between = [value for value in counts if value != largest]
        pixels = sum(counts[value] for value in between)
        if pixels < _FEW_PIXELS and counts[largest] < _MOSTLY * (pixels + counts[largest]):
            return "plain"
        alone = sum(self.alone.get(value, 0) for value in between)
        edges = sum(self.between.get(value, 0) for value in between)
        near = _NEAR * largest if len(between) > 3 and largest > 100 else 0.0
        middle = [value for value in between if near < value < largest - near]
        solid = [
            value
            for value in middle
            if counts[value] >= _SOLID_PIXELS and self.alone.get(value, 0) < _SOLID_ALONE * counts[value]
        ]
        if not solid:
            ringing = near > 0 and sum(counts[value] for value in middle) < 0.1 * (pixels + counts[largest])
            soft = edges >= _SOFT * pixels or (ringing and alone >= _RINGING * pixels)
            return "soft" if soft else "plain"
        strips = sum(
            count for value, count in self.strips.items() if value in solid and self.apart.get(value, 0) > count
        )
        leaps = sum(count for (low, high), count in self.rims.items() if high - low > 1 and high not in ignored)
        if strips >= max(_STRIPS * self.edges, _BLENDED_PIXELS) and leaps < _LEAPS * sum(self.rims.values()):
            return "blended"
        return "blended" if edges >= max(_BLENDED * pixels, _BLENDED_PIXELS) else "plain"


def surveyed(files: Sequence[ImageFile], read: Callable[[ImageFile], MaskValues] = mask_values) -> Survey:
    """Look at some of the masks, evenly spaced, as `read` gives them.

    Those that cannot be read are passed over, as are those much larger than most: they may belong to no image.
    """
    survey = Survey()

    def look(file: ImageFile) -> tuple[NDArray[Any], bool, bool]:
        found = read(file)
        return found.values, getattr(file, "suffix", "") != ".npy" and is_jpeg(file), found.alpha

    for outcome in attempt_all(look, looked_at(files, _MOST_FILES)):
        if not isinstance(outcome, DataError):
            values, jpeg, transparent = outcome
            survey.add(values, jpeg=jpeg, transparent=transparent)
    return survey


def void_of(
    survey: Survey, ignore: tuple[int, ...] | Literal["auto"], files: Sequence[ImageFile], notes: Notes
) -> tuple[int, ...]:
    """The values that are no objects, as the user said; where that is `auto`, a note says which."""
    if ignore != "auto":
        if background := survey.around_zero(ignore):
            notes.found("zero_is_an_object", f"{place_of(files)}: {_around(background)}")
        return ignore
    found = survey.void()
    if background := survey.around_zero(found):
        raise DataError(
            f"{files[0]}: {_around(background)}; add 1 to every value, so that the background becomes 0, or set "
            f"data.ignore=[{background}] if 0 is the background.",
            "ambiguous_mask",
        )
    if found:
        listed = ",".join(str(value) for value in found)
        notes.found(
            "void_values",
            f"{place_of(files)}: {listed} beside ids up to {survey.largest(found)} is taken for void, no object, "
            f"as data.ignore=[{listed}] does; data.ignore=[] takes it for one",
        )
    return found


def _around(background: int) -> str:
    return f"{background} covers most of the borders, and 0 lies inside, as an object on a background of {background}"


def blended(file: ImageFile, otherwise: str) -> DataError:
    """The error for label images that were resized or compressed."""
    return DataError(
        f"{file}: labels that were resized or compressed: between areas of one value lie edges of other values, "
        f"which are no objects. Export the labels again as PNG, and resize with nearest neighbour; {otherwise}.",
        "ambiguous_mask",
    )
