"""What a camera in the open adds: strong light and shade, motion, a lens, and a sensor's own noise."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn import noise, spectra
from lora_sam.data.drawn.camera import blurred, photographed
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.shapes import Pen


def taken(dice: Dice, picture: Image.Image) -> Image.Image:
    """The picture as a camera held in the hand took it; a random choice of faults, often none of a kind."""
    if dice.chance(0.14):
        picture = shaded(dice, picture)
    if dice.chance(0.12):
        picture = shaken(dice, picture)
    if dice.chance(0.15):
        picture = blooming(dice, picture)
    if dice.chance(0.2):
        picture = fringed(dice, picture)
    if dice.chance(0.25):
        picture = photographed(dice, picture, faint=True)
    elif dice.chance(0.3):
        picture = blurred(dice, picture)
    if dice.chance(0.5):
        picture = exposed(dice, picture)
    if dice.chance(0.5):
        picture = sensed(dice, picture)
    return picture


def shaded(dice: Dice, picture: Image.Image) -> Image.Image:
    """With shadows of things outside of the picture: leaves, bars, a wall."""
    side = picture.width
    kind = dice.uniform(0, 1)
    if kind < 0.5:
        level = dice.integer(90, 150)
        shade = spectra.field(dice, picture.size, ("pink", "oriented"), dice.log_uniform(1, 5))
        shade = shade.point([min(255, max(0, 128 + (value - level) * 9)) for value in range(256)])
    else:
        pen = Pen(np.array([[0.0, 0.0], [side - 2.0, side - 2.0]]))
        turn, pitch = dice.angle(), dice.log_uniform(side / 12, side)
        across, along = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
        start = dice.uniform(0, pitch)
        for step in range(-round(side / pitch) - 1, round(side / pitch) + 2):
            middle = np.array([side / 2, side / 2]) + across * (step * pitch + start)
            width = across * pitch * 0.25
            ends = along * 2 * side
            pen.fill(
                np.array([middle - ends - width, middle + ends - width, middle + ends + width, middle - ends + width])
            )
        shade = pen.shape().mask.resize(picture.size)
    shade = shade.filter(ImageFilter.BoxBlur(dice.log_uniform(0.5, 6)))
    depth = dice.uniform(0.3, 0.7)
    table = [round(255 - depth * value) for value in range(256)]
    cool = [min(255, value + 12) for value in table]
    light = Image.merge("RGB", (shade.point(table), shade.point(table), shade.point(cool)))
    return ImageChops.multiply(picture, light)


def shaken(dice: Dice, picture: Image.Image) -> Image.Image:
    """Moved as a whole while the shutter was open, in any direction, by a few pixels."""
    reach, turn = dice.uniform(1.5, 5), dice.angle()
    total = picture
    for count, share in ((1, -0.5), (2, 0.5), (3, -0.25), (4, 0.25)):
        dx, dy = share * reach * math.cos(turn), share * reach * math.sin(turn)
        copy = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.BILINEAR)
        total = Image.blend(total, copy, 1 / (count + 1))
    inner = math.ceil(reach / 2) + 1  # where copies reach beyond the edge, the picture itself
    box = (inner, inner, picture.width - inner, picture.height - inner)
    result = picture.copy()
    result.paste(total.crop(box), box)
    return result


def blooming(dice: Dice, picture: Image.Image) -> Image.Image:
    """With light that spills from its brightest places."""
    floor = dice.integer(150, 220)
    table = [max(0, round((value - floor) * 255 / (255 - floor) * 0.7)) for value in range(256)]
    small = picture.reduce(4).point(table * 3).filter(ImageFilter.BoxBlur(dice.uniform(1, 4)))
    return ImageChops.screen(picture, small.resize(picture.size, Image.Resampling.BILINEAR))


def fringed(dice: Dice, picture: Image.Image) -> Image.Image:
    """With colours that a lens magnifies differently: red a little more, blue a little less."""
    width, height = picture.size
    bands = list(picture.split())
    for channel, share in ((0, dice.uniform(0, 0.004)), (2, dice.uniform(0, 0.004))):
        box = (width * share, height * share, width * (1 - share), height * (1 - share))
        bands[channel] = bands[channel].resize((width, height), Image.Resampling.BILINEAR, box=box)
    return Image.merge("RGB", bands)


def exposed(dice: Dice, picture: Image.Image) -> Image.Image:
    """Too bright or too dark, through the curve of a film, in light of some colour."""
    gain = math.exp(dice.normal(0.22) - 0.08)
    bend = dice.uniform(0, 0.5)
    levels = np.linspace(0, 1, 256)[None] * gain * np.exp(dice.array.normal(0, 0.06, (3, 1)))
    levels = np.clip(levels, 0, 1)
    levels = (1 - bend) * levels + bend * levels * levels * (3 - 2 * levels)
    return picture.point((levels * 255).astype(np.uint8).ravel().tolist())


def sensed(dice: Dice, picture: Image.Image) -> Image.Image:
    """With noise of a sensor: of photons, which grows with the light, and of reading (Foi et al., 2008)."""
    coloured, coarse = dice.chance(0.6), dice.chance(0.4)
    grain = noise.grain(dice, picture.size, coloured=coloured, coarse=coarse)
    photon, read = dice.log_uniform(0.02, 0.35), dice.log_uniform(0.01, 0.2)
    weight = picture.point([min(255, round(255 * math.sqrt(photon**2 * v / 255 + read**2))) for v in range(256)] * 3)
    flat = Image.new("RGB", picture.size, (128, 128, 128))
    up = ImageChops.multiply(ImageChops.subtract(grain, flat), weight)
    down = ImageChops.multiply(ImageChops.subtract(flat, grain), weight)
    return ImageChops.subtract(ImageChops.add(picture, up), down)
