"""What things on a workbench are made of: colours in 0 to 255 for every pixel, lit from one side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.data.drawn.washers_shapes import Field

Pixels = NDArray[np.float32]
"""RGB, 0 to 255, float32 [h, w, 3]."""

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""

Paint = Callable[[Field, Field], Pixels]
"""Colour at (x, y), in pixels from the middle of the thing."""

METALS = ((168, 171, 176), (196, 198, 200), (188, 170, 112), (198, 160, 82), (184, 118, 84), (92, 92, 96))
"""Steel, bright zinc, yellow zinc, brass, copper, black oxide."""

RUBBERS = ((38, 38, 40), (60, 58, 56), (168, 62, 44), (52, 104, 74), (58, 82, 140), (150, 146, 138))
"""Black, dark grey, red silicone, green, blue, light grey."""


def noise(rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float]) -> Field:
    """Smooth noise of unit variance at its grid points, float32 [h, w]; `cell` is (height, width) of its grid."""
    coarse = [max(2, round(length / step) + 1) for length, step in zip(size, cell, strict=True)]
    grid = Image.fromarray(rng.standard_normal(coarse, dtype=np.float32))
    return np.asarray(grid.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def turned_metal(rng: np.random.Generator, colour: Colour, outer: float, inner: float, light: float) -> Paint:
    """A flat ring turned on a lathe: concentric grooves, highlights to two sides, bevelled edges, sometimes rust.

    Args:
        rng: Draws grooves, highlights and rust.
        colour: Of the clean metal.
        outer: Outer radius in pixels.
        inner: Inner radius in pixels.
        light: Direction towards the light, in radians.
    """
    first, second = rng.uniform(0, np.pi, 2)
    grooves = rng.normal(0, 0.035, int(2 * outer) + 8).astype(np.float32)
    side = 2 * int(outer) + 8
    stains = noise(rng, (side, side), (outer / 4, outer / 4)) if rng.random() < 0.3 else None

    def paint(x: Field, y: Field) -> Pixels:
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        glow = 0.15 * np.cos(2 * (angle - first)) + 0.07 * np.cos(4 * (angle - second))
        glow += grooves[np.minimum(2 * radius, len(grooves) - 1).astype(np.intp)]
        facing = np.cos(angle - light)
        glow += (
            0.3 * facing * (np.exp(-(((radius - outer + 1.5) / 1.6) ** 2)) - np.exp(-(((radius - inner) / 1.6) ** 2)))
        )
        pixels = _shaded(colour, glow)
        if stains is not None:
            rows, columns = ((value + side / 2).clip(0, side - 1).astype(np.intp) for value in (y, x))
            rust = ((stains[rows, columns] - 0.7) * 2).clip(0, 0.8)[..., None]
            pixels += rust * (_shaded((128, 72, 38), 2 * glow) - pixels)
        return pixels

    return paint


def rubber(colour: Colour, outer: float, inner: float, light: float) -> Paint:
    """A moulded lip between two radii: dull, round in section."""
    middle, half = (outer + inner) / 2, (outer - inner) / 2

    def paint(x: Field, y: Field) -> Pixels:
        across = ((np.hypot(x, y) - middle) / half).clip(-1, 1)
        facing = np.cos(np.arctan2(y, x) - light)
        return _shaded(colour, 0.12 + 0.25 * across * facing - 0.3 * across**2)

    return paint


def machined(colour: Colour, radius: float, hole: float, light: float) -> Paint:
    """The top of a nut or a bolt: a flat face with a chamfer outside `radius`, and a dark recess of radius `hole`."""

    def paint(x: Field, y: Field) -> Pixels:
        distance, facing = np.hypot(x, y), np.cos(np.arctan2(y, x) - light)
        glow: Field = np.where(distance < radius, 0.1 + 0.08 * y / radius, -0.15 + 0.3 * facing).astype(np.float32)
        glow += 0.25 * facing * _edge(distance, radius)
        glow -= 0.75 * (hole + 0.5 - distance).clip(0, 1) + 0.3 * facing * _edge(distance, hole)
        return _shaded(colour, glow)

    return paint


def threaded(colour: Colour, width: float, pitch: float, angle: float) -> Paint:
    """A screw that lies on its side, along `angle`."""
    cos, sin = np.cos(angle), np.sin(angle)

    def paint(x: Field, y: Field) -> Pixels:
        along, across = x * cos + y * sin, (y * cos - x * sin) / width
        return _shaded(colour, 0.2 - 2.2 * across**2 + 0.22 * np.sin(2 * np.pi * (along / pitch + across)))

    return paint


def wood(rng: np.random.Generator, side: int) -> Pixels:
    """Planks with grain along x."""
    colour = [(150, 112, 74), (176, 140, 98), (112, 80, 54), (196, 168, 126)][rng.integers(4)]
    unit = side / 512
    rows = np.arange(side, dtype=np.float32)[:, None]
    warp = noise(rng, (side, side), (60 * unit, 200 * unit))
    glow = 0.07 * np.sin(rows * rng.uniform(0.1, 0.25) / unit + 5 * warp)
    glow += 0.06 * noise(rng, (side, side), (2 * unit, 70 * unit))
    for seam in rng.uniform(0, side, rng.integers(1, 4)):
        glow -= 0.5 * _edge(rows / unit, seam / unit)
    return _shaded(colour, glow)


def brushed_plate(rng: np.random.Generator, side: int) -> Pixels:
    """A metal plate with streaks along x."""
    level = int(rng.integers(105, 175))
    glow = 0.06 * noise(rng, (side, side), (1, side / 4)) + 0.1 * noise(rng, (side, side), (side / 3, side))
    return _shaded((level, level + 2, level + 6), glow)


def cutting_mat(rng: np.random.Generator, side: int) -> Pixels:
    """A rubber mat with a printed grid."""
    colour = [(44, 92, 78), (52, 72, 112), (66, 66, 70)][rng.integers(3)]
    step = rng.uniform(0.07, 0.13) * side
    lines = np.abs((np.arange(side) + rng.uniform(0, step)) % step) < 1.3
    glow = 0.06 * noise(rng, (side, side), (2, 2))
    return _shaded(colour, glow + 0.45 * (lines[:, None] | lines))


def paper(rng: np.random.Generator, side: int) -> Pixels:
    """Plain or packing paper with creases."""
    colour = [(214, 210, 200), (186, 156, 118), (196, 204, 210)][rng.integers(3)]
    glow = 0.025 * noise(rng, (side, side), (2, 2)) + 0.05 * noise(rng, (side, side), (side / 6, side / 6))
    return _shaded(colour, glow)


def _edge(position: Field, place: float) -> Field:
    """1 at `place`, fading to 0 within some three pixels."""
    near: Field = np.exp(-(((position - np.float32(place)) / np.float32(1.6)) ** 2))
    return near


def _shaded(colour: Colour, glow: NDArray[np.floating[Any]]) -> Pixels:
    """`colour` made lighter or darker by the share `glow`."""
    return np.asarray(colour, np.float32) * (1 + glow[..., None]).astype(np.float32)
