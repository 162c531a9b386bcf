"""Outlines of objects: float arrays [points, 2] of (x, y) around the origin with a radius of about 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.drawn.dice import Dice

Numbers = NDArray[np.float64]
"""One value per point."""

Outline = NDArray[np.float64]
"""Points [points, 2], (x, y)."""

_CIRCLE = np.stack([np.cos(np.linspace(0, math.tau, 96, False)), np.sin(np.linspace(0, math.tau, 96, False))], 1)


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
