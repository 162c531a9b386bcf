"""Smears of blood: pale discs that overlap, a few large cells with lobed nuclei, platelets."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from lora_sam.data.drawn import spectra
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import edge
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere, crowd, scatter
from lora_sam.data.drawn.materials import Colour, coloured, hsv, mixed, near, palette, scaled, sprite
from lora_sam.data.drawn.outlines import blobs, place
from lora_sam.data.drawn.shapes import filled


def smear(dice: Dice, canvas: Canvas) -> None:
    """Stained for a count; labels: red cells, white cells as wholes, their nuclei, platelets."""
    side = canvas.side
    ground = hsv(dice.uniform(0.05, 0.15), dice.uniform(0, 0.12), dice.uniform(0.8, 0.97))
    canvas.picture = spectra.photo(dice, (side, side), ground, dice.uniform(0.02, 0.1))
    red = hsv(dice.uniform(0.94, 1.06), dice.uniform(0.15, 0.6), dice.uniform(0.6, 0.9))
    violet = hsv(dice.uniform(0.7, 0.82), dice.uniform(0.4, 0.8), dice.uniform(0.25, 0.6))
    radius = dice.log_uniform(7, side / 8)
    count = min(70, crowd(dice, side, radius, 110))
    red_cells(dice, canvas, radius, count, red, ground)
    for _ in range(dice.pick((0, 1, 2, 3))):
        white_cell(dice, canvas, anywhere(dice, side), radius * dice.uniform(1.2, 2), red, violet)
    platelets(dice, canvas, radius, red, violet)


def red_cells(
    dice: Dice, canvas: Canvas, radius: float, count: int, red: Colour, ground: Colour, *, label: bool = True
) -> None:
    """Up to `count` pale discs of about this radius in pixels, which touch and overlap."""
    forms = blobs(dice, count, dice.pick((0.02, 0.05, 0.12)), dice.pick((1.05, 1.2, 1.8)), 32)
    radii = radius * np.exp(dice.array.normal(0, 0.08, count))
    pale, sheer = dice.uniform(0, 0.8), dice.uniform(0.6, 1)
    for index, centre, size in scatter(dice, canvas.side, radii, gap=dice.uniform(0.65, 1.05)):
        outline = place(forms[index], centre, size)
        shape = filled([outline])
        values = Image.blend(Image.new("L", shape.size), sprite("halo", shape.size), pale)
        tone = near(dice, red, 6)
        paint = coloured(values, palette([tone, mixed(tone, ground, 0.9)]))
        paint = Image.blend(canvas.picture.crop(shape.box), paint, sheer)
        canvas.add(shape.mask, shape.at, paint, label=label)
        edge(canvas, outline, max(1.0, size * 0.06), scaled(tone, 0.85))


def platelets(dice: Dice, canvas: Canvas, radius: float, red: Colour, violet: Colour, *, label: bool = True) -> None:
    """Some small violet grains among red cells of this radius in pixels."""
    for _ in range(dice.integer(0, 6)):
        outline = place(blobs(dice, 1, 0.25, 1.4, 16)[0], anywhere(dice, canvas.side), max(4.0, radius * 0.3))
        platelet = filled([outline])
        canvas.add(platelet.mask, platelet.at, near(dice, mixed(violet, red, 0.4), 10), label=label)


def white_cell(
    dice: Dice,
    canvas: Canvas,
    centre: tuple[float, float],
    radius: float,
    red: Colour,
    violet: Colour,
    *,
    label_nucleus: bool = True,
) -> None:
    """A large cell with a grainy body and a nucleus of one to four lobes that hang together."""
    shape = filled([place(blobs(dice, 1, 0.07, 1.2, 40)[0], centre, radius)])
    body = spectra.Skin(dice, mixed(red, violet, dice.uniform(0.1, 0.5)), dice.uniform(0.05, 0.3))
    whole = canvas.add(shape.mask, shape.at, body.paint(dice, shape.size))
    lobes = dice.integer(1, 4)
    size = radius * (0.75 if lobes == 1 else 0.42)
    turn = dice.angle()
    outlines = []
    for k in range(lobes):
        way = turn + k * dice.uniform(0.9, 1.3)
        away = 0.0 if lobes == 1 else 0.4 * radius
        at = (centre[0] + away * math.cos(way), centre[1] + away * math.sin(way))
        outlines.append(place(blobs(dice, 1, 0.1, 1.3, 24)[0], at, size))
    nucleus = filled(outlines).common(shape)
    paint = spectra.Skin(dice, violet, 0.3).paint(dice, nucleus.size)
    canvas.include(whole, canvas.add(nucleus.mask, nucleus.at, paint, label=label_nucleus))


def bare_nucleus(dice: Dice, canvas: Canvas, centre: tuple[float, float], radius: float, violet: Colour) -> None:
    """What a crushed white cell leaves: a frayed patch of nucleus without a body. It is never labelled."""
    shape = filled([place(blobs(dice, 1, 0.3, 1.8, 40)[0], centre, radius)])
    paint = spectra.Skin(dice, violet, 0.5).paint(dice, shape.size)
    canvas.add(shape.mask, shape.at, paint, label=False)
