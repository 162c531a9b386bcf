"""Outlines through the centres of pixels, as programs trace masks, where people draw along edges: known, and filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.noticed import Notes
from lora_sam.data.reading.numbers import is_number

Course = Literal["edges", "centres", "between"]
"""Where outlines run.

`edges`: between pixels; pixel (0, 0) is the square from 0 to 1. `centres`: through pixels of the object, whose centres
are whole numbers, as those of OpenCV's `findContours`. `between`: halfway between such centres, as those of
scikit-image's `find_contours`.
"""

_SAID: dict[Course, str] = {
    "centres": "outlines run through the centres of pixels, as those of OpenCV's findContours, and are read with them",
    "between": "outlines count from the centres of pixels, as those of scikit-image's find_contours, and are read so",
}
_SHARE = 0.9  # of outlines that tell
_LEAST = 8  # corners of an outline that tells by its steps
_RECTANGLE = 4  # turns
_EXACT = 1e-6
_MOST_RINGS = 100  # of one object
_ENOUGH = 5000  # outlines that tell


@dataclass
class Courses:
    """What is known of the course of many outlines.

    Attributes:
        counts: How many tell of which.
    """

    counts: Counter[Course] = field(default_factory=Counter)

    def add(self, rings: Sequence[NDArray[np.float64]], box: Any = None, area: Any = None, slip: float = 0.0) -> None:
        """Look at an object.

        Args:
            rings: Its outlines, corners [N, 2] (x, y) in pixels.
            box: As stated beside it, [x, y, width, height].
            area: As stated beside it.
            slip: By how much coordinates may be off, because they were rounded.
        """
        if len(rings) > _MOST_RINGS:
            return
        points = np.concatenate(rings)
        if self.counts.total() >= _ENOUGH or not (np.abs(points) < 1e6).all():
            return
        whole = np.rint(points)
        if np.abs(points - whole).max() <= slip + _EXACT:
            told = _told_by_whole([np.rint(ring) for ring in rings], whole, box, area)
        elif np.abs(2 * points - np.rint(2 * points)).max() <= 2 * slip + _EXACT:
            odd = (np.rint(2 * points) % 2 == 1)[(points != 0).all(axis=1)]  # some cut at the border
            told = "between" if len(odd) >= _LEAST / 2 and (odd.sum(axis=1) == 1).all() else "edges"
        else:
            told = "edges"
        if told is not None:
            self.counts[told] += 1

    @property
    def found(self) -> Course:
        """Where nearly all of them run."""
        for course in _SAID:
            if self.counts[course] and self.counts[course] >= _SHARE * self.counts.total():
                return course
        return "edges"

    def tell(self, place: str, notes: Notes) -> None:
        """Say it where it is not the usual one."""
        if self.found != "edges":
            notes.found("other_frame", f"{place}: {_SAID[self.found]}")


def _told_by_whole(rings: list[NDArray[np.float64]], points: NDArray[np.float64], box: Any, area: Any) -> Course | None:
    """By outlines of whole numbers: a box or an area that counts the pixels below the outline, or its steps."""
    low, high = points.min(axis=0), points.max(axis=0)
    numbers = isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and max(map(abs, box)) < 1e6
    if numbers and np.abs(np.array([*low, *(high - low + 1)]) - np.array(box, np.float64)).max() <= _EXACT:
        return "centres"
    if len(rings) == 1 and is_number(area) and abs(_pixels(points) - min(float(area), 1e15)) <= _EXACT:
        return "centres"
    steps = np.concatenate([_without_bridges(ring)[1] for ring in rings])
    steps = steps[(steps != 0).any(axis=1)]
    turns = np.count_nonzero((np.sign(steps) != np.sign(np.roll(steps, 1, axis=0))).any(axis=1))
    if len(points) < _LEAST or turns <= _RECTANGLE * len(rings):
        return None
    some = (np.abs(steps[:, 0]) == np.abs(steps[:, 1])).any()  # where it turns outwards a trace goes diagonally
    return "centres" if some and _from_pixel_to_pixel(steps).mean() >= _SHARE else "edges"


def _from_pixel_to_pixel(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which steps [N, 2] lead along a row, a column or a diagonal: those of a trace, but for bridges to holes."""
    straight: NDArray[np.bool_] = (steps == 0).any(axis=1) | (np.abs(steps[:, 0]) == np.abs(steps[:, 1]))
    return straight


def _pixels(points: NDArray[np.float64]) -> float:
    """Centres of pixels in or on an outline through centres (Pick's theorem)."""
    following = np.roll(points, -1, axis=0)
    inside = abs(float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum())) / 2
    steps = np.abs(following - points).astype(np.int64)
    return inside + float(np.gcd(steps[:, 0], steps[:, 1]).sum()) / 2 + 1


def _without_bridges(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the steps of an outline [N, 2] begin, and the steps, but for those that lead to a hole and back."""
    following = np.roll(points, -1, axis=0)
    steps = following - points
    kept = _from_pixel_to_pixel(steps)
    others = np.flatnonzero(~kept)
    ends = [frozenset(map(tuple, (points[place].tolist(), following[place].tolist()))) for place in others.tolist()]
    times = Counter(ends)
    kept[others] = [times[pair] < 2 for pair in ends]
    return points[kept], steps[kept]


def shifted(polygons: Sequence[list[float]], course: Course) -> list[list[float]]:
    """Polygons in the usual frame, out of one that counts from the centres of pixels."""
    placed = []
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        if course == "between":  # some write 0 where it is -0.5
            cut = (points == np.rint(points)).all(axis=1)
            points[cut] -= 0.5 * (points[cut] == 0)
        placed.append((points + 0.5).ravel().tolist())
    return placed


def drawn(polygons: Sequence[list[float]], size: tuple[int, int]) -> dict[str, Any] | None:
    """The pixels of an image of `size` (H, W) through whose centres polygons run, as RLE {"size", "counts"}.

    None where there are none.
    """
    height, width = size
    lines = []
    for polygon in polygons:
        points = np.rint(np.array(polygon, np.float64).reshape(-1, 2))
        points, along = _without_bridges(points)
        lengths = np.maximum(np.abs(along).max(axis=1), 1).astype(np.int64)
        of = np.repeat(np.arange(len(points)), lengths)
        part = (np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)) / lengths[of]
        lines.append(np.rint(points[of] + along[of] * part[:, None]).astype(np.int64))
    x, y = np.concatenate(lines).T
    there = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    places = np.unique(x[there] * height + y[there])
    if not len(places):
        return None
    first = np.concatenate([[True], np.diff(places) > 1])
    starts, ends = places[first], places[np.concatenate([first[1:], [True]])] + 1
    bounds = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    return {"size": [height, width], "counts": np.diff(bounds).tolist()}
