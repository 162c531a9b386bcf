"""Ground as from the air."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere
from lora_sam.data.drawn.materials import Material, apart, backdrop, colour, material
from lora_sam.data.drawn.outlines import Outline, blobs, outline_kind, place, strip
from lora_sam.data.drawn.shapes import Shape, filled, island


def terrain(dice: Dice, canvas: Canvas) -> None:
    """Ground parted into large regions, as from the air: shores, fields, rivers, roads, lakes, lesions."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 0.8))
    canvas.claim(Image.new("L", (side, side), 255), (0, 0), label=dice.chance(0.3))
    contrast = dice.log_uniform(20, 255)
    for _ in range(dice.integer(1, 4)):
        shape = dice.pick((_shore, _stream, _lake))(dice, side).within(side)
        if shape is None:
            continue
        tone = apart(dice, base, contrast / 2, contrast)
        surface = Material(dice, tone, texture=dice.uniform(0, 0.8), relief=0.0, sun=0)
        canvas.add(shape.mask, shape.at, surface.paint(dice, shape.size))
    kind = outline_kind(dice)
    surface = material(dice, colour(dice), dice.integer(0, 11))
    for _ in range(dice.pick((0, 0, 3, 8))):
        outline = place(kind(dice), anywhere(dice, side), dice.log_uniform(6, 30), dice.angle())
        shape = filled([outline])
        canvas.add(shape.mask, shape.at, surface.paint(dice, shape.size))


def _shore(dice: Dice, side: int) -> Shape:
    """All that lies on one side of a wavy line through the picture."""
    along = np.linspace(-1, 1, 80)
    wave = np.zeros(80)
    for order in (1, 2, 4, 8, 16):
        wave += dice.uniform(0, 0.16) / order * np.sin(order * math.pi * along + dice.angle())
    outline = np.concatenate([np.stack([along, wave], 1), [[1.0, 1.5], [-1.0, 1.5]]])
    return _through(dice, side, outline, 1.2 * side)


def _stream(dice: Dice, side: int) -> Shape:
    """A river or road across the picture."""
    count = 60
    along = np.linspace(-1, 1, count)
    wave, width = np.zeros(count), np.full(count, dice.log_uniform(0.01, 0.12))
    if dice.chance(0.7):
        for order in (1, 2, 3):
            wave += dice.uniform(0, 0.25) / order * np.sin(order * 4 * along + dice.angle())
        width *= np.exp(0.3 * np.sin(dice.uniform(4, 14) * along))
    return _through(dice, side, strip(along, wave, width), side)


def _through(dice: Dice, side: int, outline: Outline, radius: float) -> Shape:
    """An outline around a place near the middle of the picture, in any direction, cut just outside the picture."""
    middle = (side * dice.uniform(0.2, 0.8), side * dice.uniform(0.2, 0.8))
    return filled([np.clip(place(outline, middle, radius, dice.angle()), -4, side + 4)])


def _lake(dice: Dice, side: int) -> Shape:
    """A large irregular patch, perhaps with islands."""
    radius = side * dice.uniform(0.12, 0.4)
    middle = anywhere(dice, side)
    if dice.chance(0.5):
        return island(dice, middle, radius)
    outline = place(blobs(dice, 1, dice.uniform(0.1, 0.5), 2.5, 96)[0], middle, radius)
    holes = []
    for _ in range(dice.pick((0, 0, 1, 2))):
        at = (middle[0] + dice.normal(0.3 * radius), middle[1] + dice.normal(0.3 * radius))
        holes.append(place(blobs(dice, 1, 0.2, 2)[0], at, radius * dice.uniform(0.1, 0.3)))
    return filled([outline], holes)
