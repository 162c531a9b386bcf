"""A place with depth: ground that runs to a horizon, and things that stand on it, smaller the farther they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, defocused, hazed, lit, mirrored, moved, warped
from lora_sam.data.drawn.materials import Colour, backdrop, colour, coloured, hsv, near, palette, ramp, scaled

Maker = Callable[[Dice, float], Layer]
"""Draws one thing of about this height in pixels."""


@dataclass(frozen=True)
class Place:
    """Where things stand.

    Attributes:
        horizon: Height of the eye in the picture, y in pixels; may lie above the picture.
        air: Colour of the distance.
        sun: Direction of the light in radians.
        slant: Pixels that a shadow runs sideways for each pixel of a thing's height.
        shade: Depth of shadows, 0 to 1.
        focus: y of the ground that is sharp; None for a lens that shows everything sharp.
        aperture: Blur in pixels at the greatest distance from `focus`.
        haze: How much the air hides at the horizon, 0 to 1.
    """

    horizon: float
    air: Colour
    sun: float
    slant: float
    shade: float
    focus: float | None
    aperture: float
    haze: float


def place(dice: Dice, canvas: Canvas, *, outdoors: bool) -> Place:
    """Draw a ground and what is behind it."""
    side = canvas.side
    canvas.camera = lens.taken
    horizon = side * (dice.uniform(0.15, 0.6) if dice.chance(0.75) else dice.uniform(-0.6, 0.0))
    if outdoors:
        air = hsv(dice.uniform(0.5, 0.65), dice.uniform(0, 0.5), dice.uniform(0.5, 1))
        ground = hsv(dice.uniform(0.05, 0.4), dice.uniform(0.05, 0.6), dice.uniform(0.2, 0.8))
    else:
        air, ground = colour(dice), colour(dice)
    canvas.picture = _behind(dice, side, air, outdoors=outdoors)
    top = max(0, round(horizon))
    if dice.chance(0.15):  # a sheet of paper, sand, a table: nothing that shows depth
        canvas.picture = backdrop(dice, side, ground, dice.uniform(0.1, 0.7))
    else:
        canvas.picture.paste(_floor(dice, side, side - top, horizon, ground), (0, top))
    haze = dice.uniform(0.1, 0.7) if outdoors and dice.chance(0.4) else 0.0
    if haze and horizon > 0:
        fade = ramp(dice, (side, side - top), -math.pi / 2).point([round(haze * value) for value in range(256)])
        canvas.picture.paste(air, (0, top, side, side), fade)
    shallow = dice.chance(0.35)
    result = Place(
        horizon=horizon,
        air=air,
        sun=dice.pick((-2.6, -2.0, -1.6, -1.1, -0.5)),
        slant=dice.uniform(-1.2, 1.2),
        shade=dice.uniform(0.25, 0.8) if dice.chance(0.7) else 0.0,
        focus=dice.uniform(max(0, horizon), side) if shallow else None,
        aperture=dice.log_uniform(1, 5) * side / 256,
        haze=haze,
    )
    if shallow:
        soft = canvas.picture.filter(ImageFilter.BoxBlur(result.aperture))
        sharp = Image.new("L", (1, side))
        sharp.putdata([round(255 * max(0.0, 1 - 2.5 * abs(y - (result.focus or 0)) / side)) for y in range(side)])
        canvas.picture = Image.composite(canvas.picture, soft, sharp.resize((side, side)))
    return result


def populate(
    dice: Dice, canvas: Canvas, place: Place, makers: Sequence[Maker], count: int, *, tallest: float = 0.8
) -> None:
    """Let things stand on the ground, the farthest first; heights in shares of the side at the front."""
    side = canvas.side
    top = max(place.horizon, -0.3 * side)
    reach = side * 1.05 - top
    unit = side * dice.log_uniform(0.2, tallest)
    feet = sorted(top + reach * (0.1 + 0.9 * dice.uniform(0, 1) ** 0.8) for _ in range(count))
    for foot in feet:
        depth = (foot - place.horizon) / (1.05 * side - place.horizon)
        height = unit * depth * math.exp(dice.normal(0.3))
        if height < 14 or foot < 0:
            continue
        stand(dice, canvas, place, dice.pick(makers)(dice, min(height, 1.3 * side)), (dice.uniform(0, side), foot))


def stand(dice: Dice, canvas: Canvas, place: Place, layer: Layer, spot: tuple[float, float]) -> None:
    """Put one thing on the ground at `spot` (x, y), with its shadow, in light, air and focus of its place."""
    side = canvas.side
    if dice.chance(0.5):
        layer = mirrored(layer)
    if dice.chance(0.3):
        layer = warped(dice, layer, 0.06)
    if dice.chance(0.75):
        layer = lit(layer, place.sun, dice.uniform(0.3, 1.3))
    if place.shade:
        cast(canvas, layer, spot, place)
    far = min(1.0, max(0.0, 1 - (spot[1] - place.horizon) / max(1.0, side - place.horizon)))
    if place.haze and far:
        layer = hazed(layer, place.air, place.haze * far**2)
    size = min(layer.size)
    if place.focus is not None:
        blur = min(place.aperture * 2 * abs(spot[1] - place.focus) / side, size / 12)
        if blur > 0.5:
            layer = defocused(layer, blur)
    elif dice.chance(0.06):
        layer = moved(layer, min(dice.uniform(2, 8), size / 6))
    canvas.stamp(layer, layer.at(spot))


def cast(canvas: Canvas, layer: Layer, spot: tuple[float, float], place: Place) -> None:
    """Darken the ground where a thing keeps the light off: its outline, laid down sideways."""
    width, height = layer.size
    coarse = 2 if max(width, height) > 60 else 1
    low = max(2, round(height * 0.35 / coarse))
    run = place.slant * height / coarse
    wide = max(2, round(width / coarse + abs(run)))
    start = max(0.0, -run)
    small = layer.cover.resize((max(1, width // coarse), low), Image.Resampling.BILINEAR)
    shear = (1, run / low, -start - run, 0, 1, 0)
    shadow = small.transform((wide, low), Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    shadow = shadow.crop((-4, -4, wide + 4, low + 4)).filter(ImageFilter.BoxBlur(1.2))
    shadow = shadow.point([round(place.shade * value) for value in range(256)])
    shadow = shadow.resize((shadow.width * coarse, shadow.height * coarse), Image.Resampling.BILINEAR)
    left = round(spot[0] - layer.foot[0] - (start + 4) * coarse)
    top = round(spot[1] - shadow.height + 4 * coarse)
    canvas.picture.paste((8, 8, 14), (left, top, left + shadow.width, top + shadow.height), shadow)


def _behind(dice: Dice, side: int, air: Colour, *, outdoors: bool) -> Image.Image:
    """Sky, hills or a wall."""
    if not outdoors:
        if dice.chance(0.5):
            return spectra.photo(dice, (side, side), air, dice.log_uniform(0.05, 0.4))
        return backdrop(dice, side, air, dice.uniform(0, 0.5))
    sky = coloured(ramp(dice, (side, side), math.pi / 2), palette([scaled(air, 0.75), air, near(dice, air, 25)]))
    if dice.chance(0.6):
        clouds = spectra.field(dice, (side, side), ("pink",), dice.log_uniform(1.5, 5))
        clouds = clouds.point([min(255, max(0, (value - 120) * 4)) for value in range(256)])
        sky.paste(near(dice, (235, 235, 240), 15), (0, 0, side, side), clouds)
    return sky


def _floor(dice: Dice, side: int, height: int, horizon: float, base: Colour) -> Image.Image:
    """Ground in perspective, `height` rows from the lower edge up."""
    texture = spectra.photo(dice, (512, 512), base, dice.log_uniform(0.1, 0.7), 1.0)
    if dice.chance(0.4):  # boards, tiles, furrows
        lines = Image.new("L", (512, 512), 255)
        pitch = dice.pick((32, 64, 128))
        dark = dice.integer(90, 210)
        for start in range(0, 512, pitch):
            lines.paste(dark, (start, 0, start + max(2, pitch // 20), 512))
            if pitch > 40 or dice.chance(0.5):
                lines.paste(dark, (0, start, 512, start + max(2, pitch // 20)))
        texture = ImageChops.multiply(texture, Image.merge("RGB", (lines, lines, lines)))
    pixels = np.asarray(texture).reshape(-1, 3)
    # a row at distance v below the horizon shows ground at depth near / v, 1 at the lower edge
    below = np.maximum(np.arange(height, dtype=np.float32) + max(0.0, -horizon) + 1, 1)[:, None]
    depth = below[-1, 0] / below
    across = (np.arange(side, dtype=np.float32) - side / 2) * depth
    along = depth * np.float32(dice.uniform(0.8, 2) * side)
    turn, zoom = dice.angle(), np.float32(1 / dice.log_uniform(0.5, 1.5))
    cos, sin = np.float32(math.cos(turn)) * zoom, np.float32(math.sin(turn)) * zoom
    column = (across * cos + along * sin).astype(np.int32) % 512
    row = (along * cos - across * sin).astype(np.int32) % 512
    floor = Image.fromarray(pixels.take(row * 512 + column, 0))
    # far off a pixel holds many details: their mean
    far = np.clip((depth - 2.5) / 5, 0, 0.85)
    mask = Image.fromarray((255 * far).astype(np.uint8)).resize((side, height))
    floor.paste(base, (0, 0, side, height), mask)
    return floor
