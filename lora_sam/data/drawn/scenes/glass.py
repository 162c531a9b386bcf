"""Glass and polished metal: what is behind shows through, turned round and tinted, with hard highlights."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.bends import profile, rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere, crowd, diameters, radii_between, scatter
from lora_sam.data.drawn.materials import Colour, backdrop, colour, coloured, dimmed, metal, near, ramp, scaled
from lora_sam.data.drawn.outlines import Outline, band, blobs, ellipse, outline_kind
from lora_sam.data.drawn.outlines import place as placed
from lora_sam.data.drawn.shapes import Shape, filled


def glass(dice: Dice, canvas: Canvas) -> None:
    """Tumblers, bottles, drops and panes before a ground with things on it, and metal that mirrors it."""
    side = canvas.side
    canvas.camera = lens.taken
    base = colour(dice)
    if dice.chance(0.6):
        canvas.picture = spectra.photo(dice, (side, side), base, dice.uniform(0.1, 0.7), dice.log_uniform(1, 5))
    else:
        canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 0.8))
    for _ in range(dice.integer(0, 5)):  # solid things, some of which are seen through glass
        outline = placed(outline_kind(dice)(dice), anywhere(dice, side), dice.log_uniform(10, side / 5), dice.angle())
        shape = filled([outline])
        canvas.add(shape.mask, shape.at, spectra.Skin(dice, colour(dice)).paint(dice, shape.size))
    low, high = diameters(dice, side, least=20)
    count = min(30, crowd(dice, side, math.sqrt(low * high) / 2, 40))
    radii = np.sort(radii_between(dice, low, high, count))[::-1]
    alike = dice.pick((_drop, _tumbler, _bottle, _pane, None, None))
    shiny = dice.pick((0.0, 0.3, 1.0))
    tint = (255, 255, 255) if dice.chance(0.5) else near(dice, colour(dice), 40)
    depth = dice.uniform(0.15, 0.5)
    for _, centre, radius in scatter(dice, side, radii, gap=dice.uniform(0.6, 1.1)):
        form = alike or dice.pick((_drop, _tumbler, _bottle, _pane))
        shape = filled([form(dice, centre, radius)])
        if dice.chance(0.6):
            shadow(dice, canvas, shape, (3, 3), depth)
        if dice.chance(shiny):
            _metal(dice, canvas, shape)
        else:
            _glass(dice, canvas, shape, tint)
        _highlights(dice, canvas, shape, centre, radius)
        canvas.claim(shape.mask, shape.at)
    for _ in range(dice.pick((0, 0, 2, 5))):  # rings and wires of metal
        turn, squeeze = dice.angle(), dice.uniform(0.4, 1)
        circle = placed(
            band(0, math.tau, dice.uniform(0.75, 0.93), squeeze),
            anywhere(dice, side),
            dice.log_uniform(10, side / 6),
            turn,
        )
        shape = filled([circle])
        canvas.add(shape.mask, shape.at, _mirror(dice, shape.size))


def _drop(dice: Dice, centre: tuple[float, float], radius: float) -> Outline:
    return placed(blobs(dice, 1, dice.pick((0.0, 0.0, 0.12, 0.25)), 1.4, 40)[0], centre, radius)


def _tumbler(dice: Dice, centre: tuple[float, float], radius: float) -> Outline:
    top, low = dice.uniform(0.4, 0.75), dice.uniform(0.3, 0.6)
    corners = np.array([(-top, -1), (0, -1.06), (top, -1), (low, 0.9), (0, 1.0), (-low, 0.9)])
    return placed(rounded(corners, 1), centre, radius, dice.normal(0.05))


def _bottle(dice: Dice, centre: tuple[float, float], radius: float) -> Outline:
    neck, body, shoulder = dice.uniform(0.08, 0.2), dice.uniform(0.25, 0.5), dice.uniform(-0.5, 0.0)
    heights = np.array([-1, -0.9, -0.88, shoulder - 0.25, shoulder, 0.9, 1.0])
    halves = np.array([neck * 1.2, neck * 1.2, neck, neck, body, body, body * 0.85])
    return placed(profile(heights, halves, 0), centre, radius, dice.normal(0.05) if dice.chance(0.8) else dice.angle())


def _pane(dice: Dice, centre: tuple[float, float], radius: float) -> Outline:
    width, lean = dice.uniform(0.3, 1), dice.normal(0.2)
    corners = np.array([(-width, -1), (width, -1 + lean), (width, 1 + lean), (-width, 1)])
    return placed(corners, centre, radius * 0.8, dice.normal(0.2))


def _glass(dice: Dice, canvas: Canvas, shape: Shape, tint: Colour) -> None:
    """Show what is behind as a thick body shows it: turned round, smaller, tinted, dark at its rim."""
    width, height = shape.size
    left, top = shape.at
    grow = dice.uniform(-0.15, 0.5)
    box = (
        round(left - grow * width), round(top - grow * height),
        round(left + (1 + grow) * width), round(top + (1 + grow) * height),
    )  # fmt: skip
    side = canvas.side
    inside = (max(0, box[0]), max(0, box[1]), min(side, box[2]), min(side, box[3]))
    if inside[2] - inside[0] < 2 or inside[3] - inside[1] < 2:
        inside = (0, 0, side, side)
    through = canvas.picture.crop(inside).resize(shape.size, Image.Resampling.BILINEAR)
    if dice.chance(0.5):
        through = through.transpose(Image.Transpose.ROTATE_180)
    if dice.chance(0.25):  # frosted
        through = through.filter(ImageFilter.BoxBlur(max(1.0, min(width, height) / 12)))
    through = ImageChops.multiply(through, Image.new("RGB", shape.size, tint))
    reach = max(1.0, min(width, height) / dice.uniform(6, 20))
    core = shape.mask.filter(ImageFilter.BoxBlur(reach)).point([min(255, max(0, (v - 110) * 2)) for v in range(256)])
    factor = dice.uniform(0.2, 0.85)
    dark = through.point([round(v * factor) for v in range(256)] * 3)
    paint = Image.composite(through, dark, core)
    canvas.picture.paste(paint, shape.at, shape.mask)


def _metal(dice: Dice, canvas: Canvas, shape: Shape) -> None:
    canvas.picture.paste(_mirror(dice, shape.size), shape.at, shape.mask)


def _mirror(dice: Dice, size: tuple[int, int]) -> Image.Image:
    """Bands of light and dark that a bent mirror shows."""
    values = ramp(dice, size, dice.angle(), dice.uniform(0.8, 3), dice.angle())
    if dice.chance(0.5):
        values = Image.blend(values, spectra.field(dice, size, ("pink", "oriented"), 3), dice.uniform(0.1, 0.4))
    return coloured(values, metal(dice))


def _highlights(dice: Dice, canvas: Canvas, shape: Shape, centre: tuple[float, float], radius: float) -> None:
    """Draw the images of lamps and windows, within the shape."""
    for _ in range(dice.integer(1, 3)):
        at = (centre[0] + dice.normal(0.3) * radius, centre[1] + dice.normal(0.4) * radius)
        if dice.chance(0.5):
            form = ellipse(dice.uniform(0.04, 0.15), dice.uniform(0.04, 0.4))
        else:
            form = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (dice.uniform(0.04, 0.12), dice.uniform(0.1, 0.5))
        light = shape.common(filled([placed(form, at, radius, dice.normal(0.2))]))
        canvas.picture.paste(
            scaled((255, 255, 255), dice.uniform(0.85, 1)), light.box, dimmed(light.mask, dice.uniform(0.4, 1))
        )
