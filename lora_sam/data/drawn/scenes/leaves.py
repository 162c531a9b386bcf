"""Dead leaves: forms of all sizes that cover one another, as in photographs without a subject."""

from __future__ import annotations

import math

import numpy as np

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere
from lora_sam.data.drawn.materials import colour, near
from lora_sam.data.drawn.outlines import outline_kind, place
from lora_sam.data.drawn.shapes import filled
from lora_sam.data.drawn.spectra import Skin

_SMALLEST = 5.0


def leaves(dice: Dice, canvas: Canvas) -> None:
    """Forms whose number falls with the cube of their radius, each with its texture (Lee, Mumford and Huang, 2001)."""
    side = canvas.side
    canvas.camera = lens.taken
    base = colour(dice)
    canvas.picture = spectra.photo(dice, (side, side), base, dice.uniform(0.1, 0.6))
    count = round(dice.log_uniform(12, 70) * (side / 256) ** 1.5)
    low, high = _SMALLEST, side * dice.uniform(0.15, 0.5)
    share = dice.array.random(count)
    radii = 1 / np.sqrt(share / high**2 + (1 - share) / low**2)
    radii = np.where(
        dice.array.random(count) < 0.4, np.exp(dice.array.uniform(math.log(low), math.log(high), count)), radii
    )
    kinds = [outline_kind(dice) for _ in range(dice.integer(1, 6))]
    related = dice.chance(0.5)
    skins = [Skin(dice, near(dice, base, 60) if related else colour(dice)) for _ in range(7)]
    depth = dice.uniform(0.2, 0.8) if dice.chance(0.5) else 0.0
    offset = (dice.normal(3), dice.normal(3))
    ordered = np.sort(radii)[::-1] if dice.chance(0.7) else radii
    for radius in ordered.tolist():
        shape = filled([place(dice.pick(kinds)(dice), anywhere(dice, side), radius, dice.angle())])
        if depth:
            shadow(dice, canvas, shape, offset, depth)
        canvas.add(shape.mask, shape.at, dice.pick(skins).paint(dice, shape.size))
