"""Sections of tissue: glands with a lumen and a wall of nuclei, fat, vessels, fibres between them."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from lora_sam.data.drawn import noise, spectra
from lora_sam.data.drawn.bends import rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import edge
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere, crowd, scatter
from lora_sam.data.drawn.materials import Colour, coloured, hsv, mixed, near, palette, scaled
from lora_sam.data.drawn.outlines import Outline, blobs, place
from lora_sam.data.drawn.shapes import filled
from lora_sam.data.drawn.spectra import Skin


def tissue(dice: Dice, canvas: Canvas) -> None:
    """Stained as pathologists do; labels: glands as wholes, their lumen, nuclei, fat cells, vessels."""
    side = canvas.side
    hue = dice.pick((0.88, 0.9, 0.85, 0.93, 0.08, dice.uniform(0, 1)))
    pink = hsv(hue, dice.uniform(0.15, 0.5), dice.uniform(0.75, 0.98))
    blue = hsv(hue - dice.uniform(0.08, 0.2), dice.uniform(0.4, 0.8), dice.uniform(0.2, 0.6))
    white = near(dice, (240, 236, 240), 6)
    fibres = noise.texture(dice, (side, side), ("fibre", "vein", "cloud"), dice.log_uniform(1, 4))
    fibres = Image.blend(fibres, spectra.field(dice, (side, side), ("oriented", "pink")), dice.uniform(0.2, 0.6))
    canvas.picture = coloured(fibres, palette([scaled(pink, 0.75), pink, mixed(pink, white, dice.uniform(0.2, 0.9))]))
    scale = dice.log_uniform(0.5, 2.2)
    if dice.chance(0.35):
        _fat(dice, canvas, pink, white, 24 * scale)
    nucleus = 5.5 * scale
    _loose(dice, canvas, blue, nucleus, dice.integer(3, 30))
    if dice.chance(0.85):
        radius = nucleus * dice.uniform(3.5, 9)
        count = min(14, crowd(dice, side, radius, 25))
        radii = radius * np.exp(dice.array.normal(0, 0.3, count))
        wall = Skin(dice, mixed(pink, blue, dice.uniform(0.1, 0.5)), dice.uniform(0.1, 0.4))
        for _, centre, size in scatter(dice, side, radii, gap=dice.uniform(0.85, 1.1)):
            _gland(dice, canvas, centre, size, nucleus, (wall, blue, white))
    for _ in range(dice.pick((0, 0, 1, 2))):
        _vessel(dice, canvas, anywhere(dice, side), nucleus * dice.uniform(2, 6), pink, white)


def _nucleus(dice: Dice, canvas: Canvas, form: Outline, tone: Colour, speckle: noise.Sheet) -> int:
    shape = filled([form])
    paint = coloured(speckle.piece(dice, shape.size), palette([scaled(tone, 0.7), tone, scaled(tone, 1.35)]))
    return canvas.add(shape.mask, shape.at, paint)


def _loose(dice: Dice, canvas: Canvas, blue: Colour, radius: float, count: int) -> None:
    """Nuclei between the glands, long and thin ones among them."""
    long = dice.pick((1.3, 2.5, 5.0))
    forms = blobs(dice, count, 0.08, long, 20)
    speckle = noise.Sheet(dice, ("grain", "blotch", "speck"), dice.log_uniform(0.5, 2))
    turn = dice.angle()
    for form in forms:
        outline = place(form, anywhere(dice, canvas.side), radius * dice.uniform(0.6, 1.2), turn)
        _nucleus(dice, canvas, outline, near(dice, blue, 12), speckle)


def _gland(
    dice: Dice,
    canvas: Canvas,
    centre: tuple[float, float],
    radius: float,
    nucleus: float,
    looks: tuple[Skin, Colour, Colour],
) -> None:
    """A ring of cells, each with its nucleus near the outside, around a lumen."""
    skin, blue, white = looks
    form = blobs(dice, 1, dice.uniform(0.05, 0.3), dice.uniform(1, 1.8), 48)[0]
    shape = filled([place(form, centre, radius)])
    whole = canvas.add(shape.mask, shape.at, skin.paint(dice, shape.size))
    edge(canvas, place(form, centre, radius), max(1.0, nucleus * 0.15), near(dice, mixed(blue, white, 0.4), 10))
    hollow = dice.uniform(0.15, 0.65)
    if hollow * radius > 3:
        inner = place(form * (1 + dice.array.normal(0, 0.06, (48, 1))), centre, radius * hollow)
        lumen = filled([rounded(inner, 1)]).common(shape)
        paint = Skin(dice, mixed(white, blue, dice.uniform(0, 0.15)), 0.06).paint(dice, lumen.size)
        canvas.include(whole, canvas.add(lumen.mask, lumen.at, paint))
    speckle = noise.Sheet(dice, ("grain", "blotch", "speck"), dice.log_uniform(0.5, 2))
    reach = np.hypot(*(form * radius).T)
    middle = max(0.6, 1 - 1.4 * nucleus / radius)
    count = max(5, round(math.tau * float(reach.mean()) * middle / (nucleus * dice.uniform(1.7, 3))))
    long = dice.uniform(1, 2)
    forms = blobs(dice, count, 0.08, 1.1, 16)
    for k in range(count):
        spot = form[int(k * 48 / count) % 48] * radius * middle * (1 + dice.normal(0.04))
        turn = math.atan2(spot[1], spot[0])
        outline = forms[k] * (math.sqrt(long), 1 / math.sqrt(long))
        placed = place(outline, (centre[0] + spot[0], centre[1] + spot[1]), nucleus * dice.uniform(0.75, 1.1), turn)
        canvas.include(whole, _nucleus(dice, canvas, placed, near(dice, blue, 12), speckle))


def _fat(dice: Dice, canvas: Canvas, pink: Colour, white: Colour, radius: float) -> None:
    """Empty round cells, tightly packed in one region, with thin walls."""
    side = canvas.side
    count = min(60, crowd(dice, side, radius, 60))
    clusters = dice.integer(1, 2)
    forms = blobs(dice, count, 0.07, 1.25, 28)
    radii = radius * np.exp(dice.array.normal(0, 0.15, count))
    for index, centre, size in scatter(dice, side, radii, gap=0.93, clusters=clusters, spread=3 * radius):
        outer = filled([place(forms[index], centre, size + 1.5)])
        canvas.picture.paste(near(dice, scaled(pink, 0.85), 6), outer.box, outer.mask)
        shape = filled([place(forms[index], centre, size)])
        canvas.add(shape.mask, shape.at, near(dice, white, 4))


def _vessel(
    dice: Dice, canvas: Canvas, centre: tuple[float, float], radius: float, pink: Colour, white: Colour
) -> None:
    """A wall around blood: red cells are seen one by one; labels: the whole, its blood cells."""
    form = blobs(dice, 1, 0.12, 2, 40)[0]
    shape = filled([place(form, centre, radius)])
    whole = canvas.add(shape.mask, shape.at, Skin(dice, scaled(pink, 0.8), 0.3).paint(dice, shape.size))
    inner = filled([place(form, centre, radius * 0.75)])
    canvas.include(whole, canvas.add(inner.mask, inner.at, white, label=False))
    red = hsv(0.98, dice.uniform(0.4, 0.8), dice.uniform(0.6, 0.9))
    for _ in range(dice.integer(0, 16)):
        at = (centre[0] + dice.normal(0.3) * radius, centre[1] + dice.normal(0.3) * radius)
        cell = filled([place(blobs(dice, 1, 0.05, 1.2, 16)[0], at, max(3.0, radius * 0.13))]).common(inner)
        soft = cell.mask.filter(ImageFilter.BoxBlur(0.5))
        canvas.picture.paste(near(dice, red, 8), cell.box, soft)
        canvas.include(whole, canvas.claim(cell.mask, cell.at))
