"""Outlines and masks of objects.

Outlines are float arrays [points, 2] of (x, y) around the origin with a radius of about 1. Masks are 8-bit grey images
of an object's own window with smooth edges, and the window's place in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.dice import Dice

Numbers = NDArray[np.float64]
"""One value per point."""

Outline = NDArray[np.float64]
"""Points [points, 2], (x, y)."""

Box = tuple[int, int, int, int]
"""XYXY in pixels."""

_CIRCLE = np.stack([np.cos(np.linspace(0, math.tau, 96, False)), np.sin(np.linspace(0, math.tau, 96, False))], 1)


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


def place(outline: Outline, centre: tuple[float, float], radius: float, turn: float = 0.0) -> Outline:
    """An outline turned by `turn` (radians), enlarged to `radius` and moved to `centre` (x, y)."""
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    placed: Outline = outline @ np.array([[cos, sin], [-sin, cos]]) + centre
    return placed


def blobs(dice: Dice, count: int, roughness: float, stretch: float, points: int = 32) -> NDArray[np.float64]:
    """Round, irregular outlines [count, points, 2], longer than wide by up to about `stretch`, turned at random."""
    rng = dice.array
    angle = np.linspace(0, math.tau, points, False)
    orders = np.arange(2, 7)
    size = roughness * rng.normal(0, 1, (count, len(orders), 1)) / orders[None, :, None] ** 1.2
    phase = rng.uniform(0, math.tau, (count, len(orders), 1))
    radius = np.clip(1 + (size * np.cos(orders[None, :, None] * angle + phase)).sum(1), 0.35, 1.9)
    long = np.sqrt(rng.uniform(1, max(stretch, 1), (count, 1)))
    x, y = radius * np.cos(angle) * long, radius * np.sin(angle) / long
    turn = rng.uniform(0, math.tau, (count, 1))
    outlines: NDArray[np.float64] = np.stack(
        [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 2
    )
    return outlines


def ellipse(width: float, height: float) -> Outline:
    """An ellipse with these half axes."""
    outline: Outline = _CIRCLE * np.array([width, height])
    return outline


def _ellipse(dice: Dice) -> Outline:
    return ellipse(1, dice.uniform(0.3, 1))


def _superellipse(dice: Dice) -> Outline:
    power = dice.log_uniform(0.5, 8)
    outline: Outline = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / power) * np.array([1, dice.uniform(0.3, 1)])
    return outline


def _polar(angle: Numbers, radius: Numbers, height: float = 1.0) -> Outline:
    """Points at these angles (radians) and distances from the origin, y times `height`."""
    return np.stack([np.cos(angle) * radius, np.sin(angle) * radius * height], 1)


def _polygon(dice: Dice) -> Outline:
    corners = dice.integer(3, 9)
    angle = np.linspace(0, math.tau, corners, False) + dice.array.uniform(-1, 1, corners) * dice.uniform(0, 2 / corners)
    radius = dice.array.uniform(dice.uniform(0.4, 1), 1.05, corners)
    return _polar(angle, radius, dice.uniform(0.5, 1))


def _box(dice: Dice) -> Outline:
    height, skew = dice.uniform(0.15, 1), dice.uniform(-0.3, 0.3) if dice.chance(0.4) else 0.0
    return np.array([[-1 - skew, -height], [1 - skew, -height], [1 + skew, height], [-1 + skew, height]])


def _star(dice: Dice) -> Outline:
    spikes = dice.integer(3, 12)
    angle = np.linspace(0, math.tau, 2 * spikes, False)
    radius = np.where(np.arange(2 * spikes) % 2, dice.uniform(0.3, 0.85), 1)
    return _polar(angle, radius)


def _gear(dice: Dice) -> Outline:
    teeth = dice.integer(4, 20)
    angle = np.linspace(0, math.tau, 4 * teeth, False)
    radius = np.where(np.arange(4 * teeth) % 4 < 2, dice.uniform(0.65, 0.92), 1)
    return _polar(angle, radius)


def _flower(dice: Dice) -> Outline:
    angle = np.linspace(0, math.tau, 96, False)
    radius = 0.75 + dice.uniform(0.08, 0.3) * np.cos(dice.integer(2, 9) * angle)
    return _polar(angle, radius, dice.uniform(0.6, 1))


def _leaf(dice: Dice) -> Outline:
    along = np.linspace(-1, 1, 24)
    width = dice.uniform(0.15, 0.6) * (1 - along**2) ** dice.uniform(0.6, 1.4)
    bend = dice.uniform(-0.4, 0.4) * along**2
    return strip(along, bend, width)


def _bean(dice: Dice) -> Outline:
    along = np.linspace(-1, 1, 24)
    width = dice.uniform(0.12, 0.45) * np.sqrt(np.clip(1 - np.abs(along) ** dice.uniform(2, 8), 0, 1))
    bend = dice.uniform(-0.9, 0.9) * along**2
    return strip(along, bend, width)


def _crescent(dice: Dice) -> Outline:
    reach = dice.uniform(1.2, 2.6)
    angle = np.linspace(-reach, reach, 32)
    inner = dice.uniform(0.4, 0.9)
    tip = 1 - (1 - inner) * np.sqrt(np.clip(1 - (angle / reach) ** 2, 0, 1))
    outside = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.concatenate([outside, (outside * tip[:, None])[::-1]])


def _cross(dice: Dice) -> Outline:
    a, b = dice.uniform(0.15, 0.5), dice.uniform(0.15, 0.5)
    quarter = np.array([[1, -a], [1, a], [b, a], [b, 1], [-b, 1], [-b, a], [-1, a], [-1, -a]])
    return np.concatenate([quarter, [[-b, -a], [-b, -1], [b, -1], [b, -a]]])


def _corner(dice: Dice) -> Outline:
    a, b, height = dice.uniform(-0.8, 0.4), dice.uniform(-0.6, 0.6), dice.uniform(0.5, 1)
    if dice.chance(0.5):  # like an L
        return np.array([[-1, -1], [a, -1], [a, b], [1, b], [1, height], [-1, height]])
    c = dice.uniform(0.1, 0.5)  # like a T
    return np.array([[-1, -height], [1, -height], [1, b], [c, b], [c, 1], [-c, 1], [-c, b], [-1, b]])


def _spiky(dice: Dice) -> Outline:
    corners = dice.integer(10, 40)
    angle = np.linspace(0, math.tau, corners, False)
    radius = dice.array.uniform(dice.uniform(0.3, 0.8), 1, corners)
    return _polar(angle, radius, dice.uniform(0.5, 1))


def _bottle(dice: Dice) -> Outline:
    knots = dice.integer(3, 7)
    along = np.linspace(-1, 1, 32)
    width = np.interp(along, np.linspace(-1, 1, knots), dice.array.uniform(0.1, 0.6, knots))
    return strip(along, np.zeros(32), width)


_OUTLINES: tuple[Callable[[Dice], Outline], ...] = (
    _ellipse,
    _ellipse,
    _superellipse,
    _polygon,
    _polygon,
    _box,
    _star,
    _gear,
    _flower,
    _leaf,
    _bean,
    _crescent,
    _cross,
    _corner,
    _spiky,
    _bottle,
)


def outline_kind(dice: Dice) -> Callable[[Dice], Outline]:
    """A family of outlines; each call of it gives another member."""
    if dice.chance(0.2):
        outlines = blobs(dice, 8, dice.uniform(0, 0.35), dice.uniform(1, 3.5), 48)
        outlines /= np.hypot(outlines[..., :1], outlines[..., 1:]).max(1, keepdims=True)
        return lambda dice: outlines[dice.integer(0, 7)]
    return dice.pick(_OUTLINES)


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


def arc(start: float, end: float, points: int = 40) -> Outline:
    """Points of a circle between two angles in radians."""
    angle = np.linspace(start, end, points)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def band(start: float, end: float, inner: float, squeeze: float) -> Outline:
    """A closed strip between two ellipses, from one angle to another; `squeeze` is height over width."""
    points = max(8, int(abs(end - start) * 14))
    outside = arc(start, end, points) * (1, squeeze)
    return np.concatenate([outside, (outside * inner)[::-1]])


def strip(along: Numbers, middle: Numbers, half: Numbers) -> Outline:
    """The outline of a band around the line of (`along`, `middle`), (x, y), that reaches `half` to both sides in y."""
    return np.concatenate([np.stack([along, middle + half], 1), np.stack([along, middle - half], 1)[::-1]])


def walk(dice: Dice, start: tuple[float, float], length: float, bend: float, step: float, turn: float) -> Outline:
    """A path of this length in steps, whose direction drifts (`bend`: standard deviation of its turn per step)."""
    count = max(2, round(length / step))
    turns = np.cumsum(dice.array.normal(0, bend, count)) + turn
    steps = np.stack([np.cos(turns), np.sin(turns)], 1) * step
    return np.concatenate([np.array([start]), np.cumsum(steps, 0) + start])
