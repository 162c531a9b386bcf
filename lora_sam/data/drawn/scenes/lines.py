"""Lines: worms, cracks, vessels, rivers, letters, grilles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import clutter, shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import LARGEST_SHARE, Point, anywhere, crowd
from lora_sam.data.drawn.materials import apart, backdrop, colour, material
from lora_sam.data.drawn.outlines import Outline, arc, place, walk
from lora_sam.data.drawn.shapes import Pen, Shape, stroke


def thin(dice: Dice, canvas: Canvas) -> None:
    """Lines: worms, cracks, vessels, rivers, wires, letters; the truth is the material only."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.05, 0.8))
    if dice.chance(0.3):
        clutter(dice, canvas, base)
    contrast = dice.log_uniform(30, 255)
    kind = dice.pick((_worm, _worm, _crack, _vessel, _river, _letter, _grille))
    various = dice.chance(0.3)
    sun = dice.integer(0, 11)
    surface = material(dice, apart(dice, base, contrast / 2, contrast), sun)
    length = dice.log_uniform(24, LARGEST_SHARE * side)
    count = crowd(dice, side, length / 2, 24)
    for _ in range(count):
        if various:
            kind = dice.pick((_worm, _crack, _vessel, _river, _letter, _grille))
        shape = kind(dice, anywhere(dice, side), length * dice.uniform(0.6, 1.2))
        if dice.chance(0.15):
            shadow(dice, canvas, shape, (dice.uniform(1, 5), dice.uniform(1, 5)), 0.5)
        canvas.add(shape.mask, shape.at, surface.paint(dice, shape.size))


def _worm(dice: Dice, start: Point, length: float) -> Shape:
    """A bent line with thinner ends."""
    step = max(2.0, length / 30)
    path = walk(dice, start, length, dice.uniform(0.05, 0.35), step, dice.angle())
    width = max(2.5, length * dice.log_uniform(0.03, 0.2))
    taper = np.sin(np.linspace(0.25, math.pi - 0.25, len(path))) ** dice.uniform(0, 1)
    return stroke(path, np.maximum(width * taper, 2.0).tolist())


def _crack(dice: Dice, start: Point, length: float) -> Shape:
    """A jagged line, with branches."""
    heading = dice.angle()
    paths: list[Outline] = []
    for branch in range(dice.integer(1, 4)):
        origin = np.array(start) if branch == 0 else paths[0][dice.integer(0, len(paths[0]) - 1)]
        reach = length if branch == 0 else length * dice.uniform(0.2, 0.6)
        angle = heading if branch == 0 else heading + dice.sign() * dice.uniform(0.4, 1.2)
        steps = max(3, round(reach / dice.uniform(4, 14)))
        turns = angle + dice.array.normal(0, dice.uniform(0.3, 0.8), steps)
        hops = np.stack([np.cos(turns), np.sin(turns)], 1) * (reach / steps)
        paths.append(np.concatenate([origin[None], np.cumsum(hops, 0) + origin]))
    width = dice.log_uniform(2, 7)
    return _strokes(paths, [width * dice.array.uniform(0.5, 1.3, len(path)) for path in paths])


def _vessel(dice: Dice, start: Point, length: float) -> Shape:
    """A line that forks again and again, thinner every time."""
    width = max(3.0, length * dice.log_uniform(0.02, 0.09))
    paths: list[Outline] = []
    widths: list[NDArray[np.float64]] = []
    queue = [(start, dice.angle(), length * 0.5, width)]
    while queue and len(paths) < 9:
        origin, angle, reach, thick = queue.pop(0)
        path = walk(dice, origin, reach, 0.12, max(3.0, reach / 12), angle)
        paths.append(path)
        widths.append(np.linspace(thick, thick * 0.8, len(path)))
        if thick > 2.5:
            end = (float(path[-1, 0]), float(path[-1, 1]))
            heading = math.atan2(*(path[-1] - path[-2])[::-1])
            for sign in (-1, 1):
                queue.append(
                    (end, heading + sign * dice.uniform(0.2, 0.7), reach * dice.uniform(0.5, 0.9), thick * 0.7)
                )
    return _strokes(paths, widths)


def _river(dice: Dice, start: Point, length: float) -> Shape:
    """A winding band of changing width."""
    count = 28
    along = np.linspace(-0.5, 0.5, count) * length * 1.4
    bend = sum(dice.uniform(0, 0.14) * length * np.sin(k * along / length * 4 + dice.uniform(0, 6)) for k in (1, 2, 3))
    turn = dice.angle()
    path = np.stack([along * math.cos(turn) - bend * math.sin(turn), along * math.sin(turn) + bend * math.cos(turn)], 1)
    width = np.exp(dice.array.normal(0, 0.15, count)) * max(3.0, length * dice.log_uniform(0.02, 0.2))
    return _strokes([path + start], [np.convolve(width, np.ones(5) / 5, "same") + 1])


def _letter(dice: Dice, start: Point, length: float) -> Shape:
    """A few strokes between the points of a grid, perhaps with a bow."""
    size = length * 0.6
    knots = np.array([(x, y) for x in (-0.3, 0, 0.3) for y in (-0.5, 0, 0.5)])
    paths = []
    for _ in range(dice.integer(1, 3)):
        path = knots[dice.array.permutation(9)[: dice.integer(2, 5)]]
        paths.append(path * size + start)
    if dice.chance(0.4):
        paths.append(arc(0, dice.uniform(2, math.tau), 20) * size * 0.3 + start)
    width = max(2.5, size * dice.uniform(0.06, 0.2))
    return _strokes(paths, [np.full(len(path), width) for path in paths])


def _grille(dice: Dice, start: Point, length: float) -> Shape:
    """A comb, ladder, fence or grid."""
    rows, columns = dice.integer(1, 4), dice.integer(2, 7)
    height = length * dice.uniform(0.3, 0.8)
    paths = [np.array([(-0.5, y), (0.5, y)]) for y in np.linspace(-0.5, 0.5, rows)]
    paths += [np.array([(x, -0.5), (x, 0.5)]) for x in np.linspace(-0.5, 0.5, columns)]
    turn = dice.angle()
    width = max(2.0, min(length / columns, height / rows) * dice.uniform(0.1, 0.35))
    return _strokes(
        [place(path * (length, height), start, 1, turn) for path in paths], [np.full(2, width) for _ in paths]
    )


def _strokes(paths: Sequence[Outline], widths: Sequence[NDArray[np.float64]]) -> Shape:
    """The union of lines, each with a width for every point."""
    pen = Pen(np.concatenate(list(paths)), margin=max(float(width.max()) for width in widths))
    for path, width in zip(paths, widths, strict=True):
        pen.line(path, width.tolist())
    return pen.shape()
