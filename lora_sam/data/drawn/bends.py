"""Lines and outlines of bodies: limbs with joints, smooth curves, profiles of turned things."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.outlines import Numbers, Outline, ellipse, place

Place = tuple[float, float]
"""(x, y) in pixels."""


def joint(start: Place, length: float, turn: float) -> Place:
    """Where a bone ends that starts at `start`; `turn` in radians from straight down, positive to the right."""
    return start[0] + length * math.sin(turn), start[1] + length * math.cos(turn)


def oval(centre: Place, width: float, height: float) -> Outline:
    """An ellipse with these half axes around `centre`."""
    return place(ellipse(width, height), centre, 1)


def curve(points: Sequence[Sequence[float]], rounds: int = 3) -> tuple[Outline, list[float]]:
    """A smooth line through about these (x, y, width): points [n, 2] and a width for each (Chaikin, 1974)."""
    line = np.asarray(points, float)
    for _ in range(rounds):
        before, after = line[:-1], line[1:]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], 1).reshape(-1, 3)
        line = np.concatenate([line[:1], cut, line[-1:]])
    return line[:, :2], line[:, 2].tolist()


def rounded(outline: Outline, rounds: int = 2) -> Outline:
    """A closed outline with its corners cut until they are round (Chaikin, 1974)."""
    for _ in range(rounds):
        after = np.roll(outline, -1, 0)
        outline = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], 1).reshape(-1, 2)
    return outline


def profile(heights: Numbers, halves: Numbers, middle: float) -> Outline:
    """The outline of a turned thing around the vertical line x = `middle`: half widths at heights (y), top first."""
    right = np.stack([middle + halves, heights], 1)
    left = np.stack([middle - halves, heights], 1)
    return np.concatenate([right, left[::-1]])


def wobbly(dice: Dice, outline: Outline, amount: float) -> Outline:
    """The outline with smooth irregularities of about `amount` pixels."""
    count = len(outline)
    angle = np.linspace(0, math.tau, count, False)
    shift = np.zeros((count, 2))
    for order in (2, 3, 5):
        shift += dice.array.normal(0, amount / order, 2) * np.cos(order * angle + dice.angle())[:, None]
    moved: Outline = outline + shift
    return moved
