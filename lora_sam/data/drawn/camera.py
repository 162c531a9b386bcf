"""What a camera or microscope adds to a picture: uneven light, blur, tone, noise, compression."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.dice import Dice


def photographed(dice: Dice, picture: Image.Image, *, faint: bool = False) -> Image.Image:
    """The picture as a camera took it: a random choice of faults, often none of a kind.

    Args:
        dice: Chooses them.
        picture: RGB.
        faint: The objects are hard to see already: little noise, no loss of contrast.
    """
    if dice.chance(0.3):
        picture = _lit(dice, picture)
    if dice.chance(0.4):
        picture = blurred(dice, picture)
    contrast = dice.log_uniform(0.2, 0.7) if not faint and dice.chance(0.1) else 1.0
    picture = _toned(dice, picture, contrast)
    if dice.chance(0.2 if faint else 0.5):
        picture = noisy(dice, picture, dice.log_uniform(1, 4 if faint else max(2, 28 * contrast)))
    if dice.chance(0.1 if faint else 0.25):
        picture = _compressed(dice, picture)
    return picture


def noisy(dice: Dice, picture: Image.Image, deviation: float) -> Image.Image:
    """With noise of this standard deviation (of 255): the same in all channels or not, fine or coarse."""
    coloured = picture.mode == "RGB" and dice.chance(0.5)
    field = noise.grain(dice, picture.size, coloured=coloured, coarse=dice.chance(0.4))
    if picture.mode == "L":
        field = field.getchannel(0)
    factor = deviation / 32
    table = [min(255, max(0, round(128 + (value - 128) * factor))) for value in range(256)]
    field = field.point(table * len(field.getbands()))
    if dice.chance(0.3):
        return ImageChops.overlay(picture, field)
    return ImageChops.add(picture, field, 1, -128)


def blurred(dice: Dice, picture: Image.Image) -> Image.Image:
    """Out of focus, moved, or taken with too few pixels."""
    kind = dice.uniform(0, 1)
    if kind < 0.3:
        return picture.filter(ImageFilter.BoxBlur(dice.uniform(0.3, 1.2)))
    if kind < 0.45:
        return soft(picture, dice.log_uniform(1, 4))
    if kind < 0.65:
        reach = dice.uniform(0.5, 3)
        return picture.filter(ImageFilter.BoxBlur((reach, 0) if dice.chance(0.5) else (0, reach)))
    way = dice.pick((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST))
    few = round(picture.width / dice.uniform(1.5, 3))
    return picture.resize((few, few), Image.Resampling.BOX).resize(picture.size, way)


def soft(picture: Image.Image, sigma: float) -> Image.Image:
    """Blurred by a Gaussian of `sigma` pixels; from 1 on at half the resolution, which nobody sees."""
    if sigma < 1:
        return picture.filter(ImageFilter.GaussianBlur(sigma))
    half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    half = half.filter(ImageFilter.GaussianBlur(math.sqrt(max(sigma**2 - 0.6, 0.1)) / 2))
    return half.resize(picture.size, Image.Resampling.BILINEAR)


def _lit(dice: Dice, picture: Image.Image) -> Image.Image:
    """Under uneven light."""
    depth = dice.uniform(0.2, 0.8)
    if dice.chance(0.3):  # vignette
        table = [round(255 * (1 - depth * (value / 255) ** 2)) for value in range(256)]
        light = Image.radial_gradient("L").point(table).resize(picture.size, Image.Resampling.BILINEAR)
        light = light.convert("RGB")
    else:
        cells = dice.pick((2, 2, 3, 5))
        values = 255 * (1 - depth * dice.array.random((cells, cells, 1)))
        values = np.clip(values + dice.array.normal(0, 12, (cells, cells, 3)), 0, 255)
        light = Image.fromarray(values.astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(picture, light)


def _toned(dice: Dice, picture: Image.Image, contrast: float) -> Image.Image:
    """With another tone curve: gamma, contrast, cast, inversion, or without colours."""
    if dice.chance(0.15):
        picture = picture.convert("L").convert("RGB")
    if contrast == 1 and dice.chance(0.4):
        return picture
    levels = np.linspace(0, 1, 256)[None]
    levels = levels ** math.exp(dice.normal(0.35))
    levels = dice.uniform(0, 1 - contrast) + contrast * levels
    if dice.chance(0.3):
        gain = np.exp(dice.array.normal(0, 0.12, (3, 1)))
        levels = levels * gain
    if dice.chance(0.08):
        levels = 1 - levels
    table = np.broadcast_to(np.clip(levels * 255, 0, 255), (3, 256)).astype(np.uint8)
    return picture.point(table.ravel().tolist())


def _compressed(dice: Dice, picture: Image.Image) -> Image.Image:
    """As JPEG stores it."""
    memory = io.BytesIO()
    picture.save(memory, "JPEG", quality=dice.integer(20, 92))
    return Image.open(memory).convert("RGB")
