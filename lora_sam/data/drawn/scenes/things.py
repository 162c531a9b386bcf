"""Single things on a ground: plain to see, or hardly."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import clutter, edge, shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import crowd, diameters, radii_between, scatter
from lora_sam.data.drawn.materials import apart, backdrop, colour, coloured, material, near, palette
from lora_sam.data.drawn.outlines import outline_kind, place, walk
from lora_sam.data.drawn.shapes import Pen, Shape, filled, island


def natural(dice: Dice, canvas: Canvas) -> None:
    """Solid and flat things of all forms on textured ground, shaded, with shadows, covering one another."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 1))
    if dice.chance(0.5):
        clutter(dice, canvas, base)
    low, high = diameters(dice, side)
    count = crowd(dice, side, math.sqrt(low * high) / 2, 45)
    sun = dice.integer(0, 11)
    offset = (dice.uniform(-10, 10), dice.uniform(-10, 10))
    shadows = dice.uniform(0.2, 0.8) if dice.chance(0.4) else 0.0
    contrast = dice.log_uniform(25, 255)
    variety = 1 if dice.chance(0.35) else 6
    kinds = [outline_kind(dice) for _ in range(variety)]
    surfaces = [material(dice, apart(dice, base, contrast / 2, contrast), sun) for _ in range(variety)]
    radii = radii_between(dice, low, high, count)
    if dice.chance(0.6):
        radii = np.sort(radii)[::-1]
    for _, centre, radius in scatter(dice, side, radii, gap=dice.pick((0.0, 0.5, 0.8, 1.05))):
        if radius > 12 and dice.chance(0.12):
            shape = island(dice, centre, radius)
        else:
            shape = filled([place(dice.pick(kinds)(dice), centre, radius, dice.angle())])
        if shadows:
            shadow(dice, canvas, shape, offset, shadows)
        canvas.add(shape.mask, shape.at, dice.pick(surfaces).paint(dice, shape.size))
        if radius > 15 and dice.chance(0.15):
            _mark(dice, canvas, shape)


def _mark(dice: Dice, canvas: Canvas, shape: Shape) -> None:
    """Draw lines on a thing; they stay part of it."""
    width, height = shape.size
    pen = Pen(np.array([[0.0, 0.0], [width, height]]) + shape.at)
    for _ in range(dice.integer(1, 4)):
        start = (shape.at[0] + dice.uniform(0, width), shape.at[1] + dice.uniform(0, height))
        pen.line(walk(dice, start, max(width, height), 0.1, 8, dice.angle()), dice.log_uniform(1, 6))
    lines = shape.common(pen.shape())
    canvas.picture.paste(colour(dice), lines.box, lines.mask)


_TEXTURES = ("cloud", "fibre", "wave", "grain", "weave", "cell", "vein", "speck", "marble", "check")


def subtle(dice: Dice, canvas: Canvas) -> None:
    """Things that differ from their surroundings by texture, by a shade of colour or by their outline only."""
    side = canvas.side
    size = (side, side)
    base = colour(dice)
    canvas.faint = True
    mode = dice.pick(("texture", "shade", "outline", "turned"))
    kind = dice.pick(("fibre", "wave") if mode == "turned" else _TEXTURES)
    zoom = dice.log_uniform(0.7, 2.5)
    stops = palette([near(dice, base, 35), near(dice, base, 35), near(dice, base, 35)])
    values = noise.texture(dice, size, (kind,), zoom)
    canvas.picture = coloured(values, stops) if mode != "shade" else backdrop(dice, side, base, dice.uniform(0, 0.6))
    low, high = diameters(dice, side, least=24 if mode in ("texture", "turned") else 10)
    high = max(high, low * 1.2)
    count = crowd(dice, side, math.sqrt(low * high) / 2, 40)
    radii = radii_between(dice, low, high, count)
    form = outline_kind(dice)
    other = (dice.pick([name for name in _TEXTURES if name != kind]),)
    shift = [dice.normal(16) for _ in range(3)] if dice.chance(0.5) else [dice.sign() * dice.uniform(7, 30)] * 3
    line = near(dice, base, 70)
    for _, centre, radius in scatter(dice, side, radii, gap=1.05 if mode == "outline" else 0.9):
        outline = place(form(dice), centre, radius, dice.angle())
        shape = filled([outline])
        if mode == "texture":
            paint = coloured(noise.texture(dice, shape.size, other, zoom), stops)
        elif mode == "turned":
            turned = noise.texture(dice, shape.size[::-1], (kind,), zoom).transpose(Image.Transpose.ROTATE_90)
            paint = coloured(turned, stops)
        elif mode == "shade":
            table = [min(255, max(0, round(v + part))) for part in shift for v in range(256)]
            paint = canvas.picture.crop(shape.box).point(table)
        else:
            paint = canvas.picture.crop(shape.box)
        canvas.add(shape.mask, shape.at, paint)
        if mode == "outline" or dice.chance(0.05):
            edge(canvas, outline, dice.uniform(1, 3), line)
