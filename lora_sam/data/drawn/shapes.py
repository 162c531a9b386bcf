"""Masks of objects: 8-bit grey images of an object's own window with smooth edges, and its place in the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.outlines import Outline

Box = tuple[int, int, int, int]
"""XYXY in pixels."""


@dataclass(frozen=True)
class Shape:
    """An object's coverage of pixels.

    Attributes:
        mask: 8-bit grey, its window only.
        at: (x, y) of the window's corner in the picture.
    """

    mask: Image.Image
    at: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the window."""
        return self.mask.size

    @property
    def box(self) -> Box:
        """XYXY of the window in the picture."""
        return (*self.at, self.at[0] + self.mask.width, self.at[1] + self.mask.height)

    def within(self, side: int) -> Shape | None:
        """The part inside a picture of this side; None where nothing is."""
        left, top, right, bottom = self.box
        inside = (max(left, 0), max(top, 0), min(right, side), min(bottom, side))
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            return None
        if inside == self.box:
            return self
        x, y = inside[0] - left, inside[1] - top
        return Shape(self.mask.crop((x, y, x + inside[2] - inside[0], y + inside[3] - inside[1])), inside[:2])

    def common(self, other: Shape) -> Shape:
        """What this shape and another cover, in this one's window."""
        mask = Image.new("L", self.size)
        mask.paste(other.mask, (other.at[0] - self.at[0], other.at[1] - self.at[1]))
        return Shape(ImageChops.darker(mask, self.mask), self.at)


def filled(outlines: Sequence[Outline], holes: Sequence[Outline] = ()) -> Shape:
    """The area within any of the outlines and none of the holes; outlines in pixels of the picture."""
    pen = Pen(outlines[0] if len(outlines) == 1 else np.concatenate(list(outlines)))
    for outline in outlines:
        pen.fill(outline)
    for hole in holes:
        pen.erase(hole)
    return pen.shape()


def stroke(points: Outline, widths: Sequence[float] | float) -> Shape:
    """A line with round ends through points in pixels of the picture, with one width or one for every point."""
    pen = Pen(points, margin=float(np.max(widths)) / 2)
    pen.line(points, widths)
    return pen.shape()


class Pen:
    """Draws a mask at a multiple of its resolution."""

    def __init__(self, extent: Outline, margin: float = 0) -> None:
        """A window that holds the points of `extent`, in pixels of the picture, and `margin` around them."""
        low, high = extent.min(0) - margin, extent.max(0) + margin
        self.at = (math.floor(low[0]) - 1, math.floor(low[1]) - 1)
        width, height = math.ceil(high[0]) + 1 - self.at[0], math.ceil(high[1]) + 1 - self.at[1]
        largest = max(width, height)
        self.zoom = 4 if largest < 48 else 2 if largest < 400 else 1
        self.image = Image.new("L", (width * self.zoom, height * self.zoom))
        self._draw = ImageDraw.Draw(self.image)

    def _points(self, outline: Outline) -> list[float]:
        flat: list[float] = ((outline - self.at) * self.zoom).ravel().tolist()
        return flat

    def fill(self, outline: Outline, value: int = 255) -> None:
        """Fill an outline."""
        self._draw.polygon(self._points(outline), fill=value)

    def erase(self, outline: Outline) -> None:
        """Make a hole."""
        self.fill(outline, 0)

    def line(self, points: Outline, widths: Sequence[float] | float, value: int = 255) -> None:
        """Draw a line with round ends and corners."""
        flat = self._points(points)
        if isinstance(widths, (int, float)):
            width = widths * self.zoom
            self._draw.line(flat, fill=value, width=max(1, round(width)))
            dots = [width] * len(points)
        else:
            dots = [width * self.zoom for width in widths]
            for k in range(len(points) - 1):
                width = (dots[k] + dots[k + 1]) / 2
                self._draw.line(flat[2 * k : 2 * k + 4], fill=value, width=max(1, round(width)))
        for k, width in enumerate(dots):
            if width > 5:
                x, y, radius = flat[2 * k], flat[2 * k + 1], width / 2 - 0.5
                self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)

    def shape(self) -> Shape:
        """What was drawn, at the picture's resolution."""
        return Shape(self.image.reduce(self.zoom) if self.zoom > 1 else self.image, self.at)


def island(dice: Dice, centre: tuple[float, float], radius: float) -> Shape:
    """A solid of any form, from noise that is cut off at a level; may have holes and be in pieces."""
    side = max(8, round(2 * radius))
    dome = Image.radial_gradient("L").point(_FALLING).resize((side, side), Image.Resampling.BILINEAR)
    cloud = noise.smooth(dice, (side, side), dice.integer(4, 9))
    level = dice.integer(85, 120)
    steep = max(2.0, side / 24)
    table = [min(255, max(0, round((value - level) * 256 / steep + 128))) for value in range(256)]
    mask = Image.blend(dome, cloud, dice.uniform(0.25, 0.45)).point(table)
    mask = ImageChops.multiply(mask, Image.radial_gradient("L").point(_INSIDE).resize((side, side)))
    return Shape(mask, (round(centre[0] - side / 2), round(centre[1] - side / 2)))


# PIL's radial gradient is the distance from the centre, 0 to 255, that of an edge's middle being 180
_FALLING = [max(0, round(255 - value * 255 / 180)) for value in range(256)]
_INSIDE = [255 if value < 178 else 0 for value in range(256)]
