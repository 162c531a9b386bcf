"""Outlines of things on a workbench, as signed distances: pixels to the edge, negative inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""One value per pixel, float32 [h, w]."""

Distance = Callable[[Field, Field], Field]
"""Signed distance at (x, y), in pixels from the middle of the thing."""


def disc(radius: float) -> Distance:
    """A full disc."""
    return lambda x, y: np.hypot(x, y) - np.float32(radius)


def band(outer: float, inner: float) -> Distance:
    """The ring between two radii."""

    def distance(x: Field, y: Field) -> Field:
        radius = np.hypot(x, y)
        return np.maximum(radius - np.float32(outer), np.float32(inner) - radius)

    return distance


def split_band(outer: float, inner: float, gap: float, angle: float, slant: float) -> Distance:
    """A ring that is cut through, as spring lock washers and snap rings are.

    Args:
        outer: Outer radius.
        inner: Inner radius.
        gap: Width of the cut.
        angle: Where the cut is, in radians from the x axis.
        slant: Angle in radians between the cut and the radius.
    """
    whole = band(outer, inner)
    cut = bar(1.5 * (outer - inner), gap, angle + slant)
    middle = (outer + inner) / 2
    at_x, at_y = np.float32(middle * np.cos(angle)), np.float32(middle * np.sin(angle))
    return lambda x, y: np.maximum(whole(x, y), -cut(x - at_x, y - at_y))


def hexagon(apothem: float, angle: float) -> Distance:
    """A regular hexagon with `apothem` from the middle to its sides."""
    normals = [(np.float32(np.cos(turn)), np.float32(np.sin(turn))) for turn in angle + np.pi / 3 * np.arange(3)]

    def distance(x: Field, y: Field) -> Field:
        sides = [np.abs(x * cos + y * sin) for cos, sin in normals]
        return np.maximum(np.maximum(sides[0], sides[1]), sides[2]) - np.float32(apothem)

    return distance


def bar(length: float, width: float, angle: float) -> Distance:
    """A rectangle whose long side points along `angle`."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))

    def distance(x: Field, y: Field) -> Field:
        along, across = np.abs(x * cos + y * sin), np.abs(y * cos - x * sin)
        return np.maximum(along - np.float32(length / 2), across - np.float32(width / 2))

    return distance
