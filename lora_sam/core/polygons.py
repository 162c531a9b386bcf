"""Masks as polygons along the edges of their pixels: filled, they are the mask again, holes included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

Ring = list[tuple[int, int]]

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass(frozen=True)
class Polygon:
    """One connected part of a mask.

    Attributes:
        outer: Corners (x, y) in pixels of the image, clockwise as it is seen; the last is joined to the first.
        holes: The same of each hole, counter-clockwise.
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()


def polygons_of(mask: NDArray[np.bool_]) -> list[Polygon]:
    """The parts of a mask [H, W] by falling area; pixels that touch at a corner only are parts of their own.

    The frame is that of `Prompts`: a single pixel at row 3, column 5 has the corners (5, 3), (6, 3), (6, 4) and (5, 4).
    Where a ring would touch itself at a corner it is parted there, so every polygon is valid as OGC defines it.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    window = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    parts, count = label(window)  # neighbours share a side
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {number: [] for number in range(1, count + 1)}
    for part, ring in _rings(window, parts):
        placed = [(x + left, y + top) for x, y in ring]
        if _twice_area(ring) > 0:
            outer[part] = placed
        else:
            holes[part].append(placed)
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    order = sorted(outer, key=lambda part: -int(areas[part]))
    return [Polygon(outer[part], tuple(holes[part])) for part in order]


def single_ring(polygons: list[Polygon]) -> Ring:
    """All parts and holes as one ring, joined by lines that are gone there and back.

    For formats that have one polygon for an object. Filled by either rule (even-odd, non-zero) it is the same mask: a
    line that is gone twice encloses nothing.
    """
    rings = [ring for polygon in polygons for ring in (polygon.outer, *polygon.holes)]
    if not rings:
        return []
    start = rings[0][0]
    joined = [*rings[0], start]
    for ring in rings[1:]:
        joined += [*ring, ring[0], start]
    return joined[:-1]


def _rings(mask: NDArray[np.bool_], parts: NDArray[np.int32]) -> list[tuple[int, Ring]]:
    """Closed walks along pixel edges with the mask on the right hand, and the part of the mask that each belongs to."""
    padded = np.pad(mask, 1)
    inside, above, before = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    # every edge between mask and background, by the corner where it starts
    starts: list[set[tuple[int, int]]] = [set(), set(), set(), set()]
    for direction, found, shift in (
        (_EAST, inside & ~above, (0, 0)),
        (_WEST, ~inside & above, (1, 0)),
        (_NORTH, inside & ~before, (0, 1)),
        (_SOUTH, ~inside & before, (0, 0)),
    ):
        y, x = np.nonzero(found)
        starts[direction] = set(zip((x + shift[0]).tolist(), (y + shift[1]).tolist(), strict=True))
    rings: list[tuple[int, Ring]] = []
    for first in sorted(starts[_EAST], key=lambda corner: (corner[1], corner[0])):
        if first not in starts[_EAST]:  # part of an earlier walk
            continue
        corner, direction, part = first, _EAST, int(parts[first[1], first[0]])
        corners: Ring = []
        places: dict[tuple[int, int], int] = {}
        while corner in starts[direction]:
            starts[direction].discard(corner)
            corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
            # to the right first: pixels that touch at a corner are walked around one by one
            for turned in ((direction + 1) % 4, direction, (direction - 1) % 4):
                if corner in starts[turned]:
                    if turned != direction:
                        _add(corner, part, corners, places, rings)
                    direction = turned
                    break
            else:
                _add(corner, part, corners, places, rings)  # the walk is back where it began
        if len(corners) > 2:
            rings.append((part, corners))
    return rings


def _add(
    corner: tuple[int, int],
    part: int,
    corners: Ring,
    places: dict[tuple[int, int], int],
    rings: list[tuple[int, Ring]],
) -> None:
    """Add a corner; where the walk has been there before, what lies between is a ring of its own."""
    seen = places.get(corner)
    if seen is None:
        places[corner] = len(corners)
        corners.append(corner)
        return
    loop = corners[seen:]
    for other in loop[1:]:
        del places[other]
    del corners[seen + 1 :]
    if len(loop) > 2:
        rings.append((part, loop))


def _twice_area(ring: Ring) -> int:
    """Twice the enclosed area; positive where the ring is clockwise as it is seen (y down)."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True))
