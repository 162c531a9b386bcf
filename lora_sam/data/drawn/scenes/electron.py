"""As electron microscopes show cells and particles: grey, grainy, dark membranes, bright edges."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn import noise, spectra
from lora_sam.data.drawn.bends import rounded
from lora_sam.data.drawn.camera import noisy
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere, crowd, radii_between, scatter
from lora_sam.data.drawn.materials import ball, coloured, dimmed, palette
from lora_sam.data.drawn.outlines import Outline, blobs, outline_kind, place, walk
from lora_sam.data.drawn.shapes import Shape, filled, stroke


def electron(dice: Dice, canvas: Canvas) -> None:
    """A thin section with cells and organelles, or the surface of a sample with particles."""
    canvas.faint = True
    canvas.picture = Image.new("L", (canvas.side, canvas.side))
    if dice.chance(0.65):
        _section(dice, canvas)
    else:
        _surface(dice, canvas)
    if dice.chance(0.8):
        canvas.picture = noisy(dice, canvas.picture, dice.log_uniform(3, 30))
    if dice.chance(0.5):
        canvas.picture = canvas.picture.filter(ImageFilter.GaussianBlur(dice.uniform(0.4, 1)))
    low, high = dice.integer(0, 60), dice.integer(190, 255)
    stops = [(low,) * 3, (high,) * 3] if dice.chance(0.85) else [(high,) * 3, (low,) * 3]
    canvas.picture = coloured(canvas.picture, palette(stops))


def _section(dice: Dice, canvas: Canvas) -> None:
    """Cells parted by membranes, with nuclei, mitochondria and vesicles; labels: each, and cells as wholes."""
    side = canvas.side
    level = dice.integer(120, 200)
    cytoplasm = spectra.field(dice, (side, side), ("pink", "cellular", "pebble"), dice.log_uniform(0.5, 1.5))
    canvas.picture = dimmed(cytoplasm, 0.25, level * 0.75)
    membrane = dice.integer(20, 80)
    size = dice.log_uniform(14, side / 2.5)
    count = min(60, max(3, round(1.1 * side * side / (math.pi * size * size))))
    rough = dice.uniform(0.05, 0.25)
    forms = blobs(dice, count, rough, dice.pick((1.2, 1.8, 3)), 48)
    radii = size * np.exp(dice.array.normal(0, 0.35, count))
    for index, centre, radius in scatter(dice, side, radii, gap=dice.uniform(0.75, 1.0)):
        _cell(dice, canvas, forms[index], centre, radius, membrane)


def _within(dice: Dice, centre: tuple[float, float], radius: float, share: float) -> tuple[float, float]:
    turn, away = dice.angle(), radius * share * math.sqrt(dice.uniform(0, 1))
    return centre[0] + away * math.cos(turn), centre[1] + away * math.sin(turn)


def _ringed(canvas: Canvas, shape: Shape, inside: Image.Image | int, line: int, width: float) -> int:
    """Draw an object with a dark membrane, which belongs to it."""
    values = inside if isinstance(inside, Image.Image) else Image.new("L", shape.size, inside)
    wide = shape.mask.crop((-2, -2, shape.size[0] + 2, shape.size[1] + 2))
    core = wide.filter(ImageFilter.BoxBlur(width)).crop((2, 2, shape.size[0] + 2, shape.size[1] + 2))
    core = core.point([0 if value < 190 else min(255, (value - 190) * 4) for value in range(256)])
    paint = Image.composite(values, Image.new("L", shape.size, line), core)
    return canvas.add(shape.mask, shape.at, paint)


def _cell(dice: Dice, canvas: Canvas, form: Outline, centre: tuple[float, float], radius: float, membrane: int) -> None:
    shape = filled([place(form, centre, radius)])
    level = dice.integer(120, 215)
    texture = spectra.field(dice, shape.size, ("pink", "pebble"), dice.log_uniform(0.4, 1.2))
    whole = _ringed(canvas, shape, dimmed(texture, 0.3, level * 0.65), membrane, dice.uniform(0.6, 1.5))
    if radius > 30 and dice.chance(0.5):
        size = radius * dice.uniform(0.3, 0.5)
        body = filled([place(blobs(dice, 1, 0.12, 1.4, 32)[0], _within(dice, centre, radius, 0.3), size)]).common(shape)
        clumps = spectra.field(dice, body.size, ("pink", "maze"), dice.log_uniform(0.8, 2))
        canvas.include(whole, _ringed(canvas, body, dimmed(clumps, 0.6, 40), membrane, 1.2))
    if radius > 14:
        most = min(12.0, 1 + (radius / 14) ** 2)
        for _ in range(round(dice.uniform(0, most))):
            canvas.include(whole, _mitochondrion(dice, canvas, shape, _within(dice, centre, radius, 0.75), membrane))
        size = dice.uniform(2.8, 5)
        for _ in range(round(dice.uniform(0, 2 * most)) if dice.chance(0.5) else 0):
            at = _within(dice, centre, radius, 0.75)
            vesicle = filled([place(blobs(dice, 1, 0.05, 1.1, 16)[0], at, size * dice.uniform(0.8, 1.2))]).common(shape)
            canvas.include(whole, _ringed(canvas, vesicle, dice.pick((215, 190, 60)), membrane, 0.7))


def _mitochondrion(dice: Dice, canvas: Canvas, cell: Shape, at: tuple[float, float], membrane: int) -> int:
    """A bean with cristae: light stripes across it."""
    width = dice.uniform(5, 12)
    path = walk(dice, at, width * dice.uniform(0.3, 2.2), 0.25, 3, dice.angle())
    shape = stroke(path, width).common(cell)
    stripes = noise.texture(dice, shape.size, ("wave", "vein"), dice.uniform(0.5, 1.2))
    values = dimmed(stripes, dice.uniform(0.15, 0.5), dice.integer(50, 110))
    return _ringed(canvas, shape, values, membrane, 1)


def _surface(dice: Dice, canvas: Canvas) -> None:
    """Particles, pores or crystals whose edges shine; labels: each."""
    side = canvas.side
    ground = spectra.field(dice, (side, side), ("pink", "pebble", "ridged", "cellular"), dice.log_uniform(0.7, 4))
    canvas.picture = dimmed(ground, dice.uniform(0.15, 0.6), dice.integer(0, 60))
    low = dice.log_uniform(8, side / 4)
    count = min(60, crowd(dice, side, low, 90))
    radii = np.sort(radii_between(dice, low, low * dice.uniform(1.2, 4), count))[::-1]
    kind = dice.pick(("ball", "pore", "grain", "rod"))
    form = outline_kind(dice)
    bright = dice.integer(60, 200)
    for _, centre, radius in scatter(dice, side, radii, gap=dice.uniform(0.5, 0.95)):
        if kind == "rod":
            shape = stroke(walk(dice, centre, radius * 4, 0.05, 5, dice.angle()), max(4.0, radius * 0.6))
        elif kind == "grain":
            corners = place(form(dice), centre, radius, dice.angle())
            shape = filled([rounded(corners, 1)])
        else:
            shape = filled([place(blobs(dice, 1, 0.05, 1.2, 32)[0], centre, radius)])
        if kind == "pore":
            values = dimmed(spectra.field(dice, shape.size, ("pink",)), 0.2, 5)
        else:
            values = Image.blend(spectra.field(dice, shape.size, ("pink", "pebble")), ball(shape.size, 11), 0.4)
            values = dimmed(values, 0.5, bright * 0.4)
        soft = shape.mask.filter(ImageFilter.BoxBlur(max(1.0, radius / 8)))
        rim = ImageChops.subtract(Image.new("L", shape.size, 255), soft)
        values = ImageChops.add(values, dimmed(rim, dice.uniform(0.5, 1)))
        canvas.add(shape.mask, shape.at, values)
    if dice.chance(0.2):
        path = walk(dice, anywhere(dice, side), side, 0.2, 8, dice.angle())
        crack = stroke(path, dice.uniform(2, 6))
        canvas.add(crack.mask, crack.at, 10)
