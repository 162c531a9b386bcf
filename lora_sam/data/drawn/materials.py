"""Colours and surfaces: a grey picture of the relief or light, and a palette that turns it into colours."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.dice import Dice

Colour = tuple[int, int, int]

_SUNS = 12


def colour(dice: Dice) -> Colour:
    """Any colour: greys, muted and strong ones, dark to bright."""
    kind = dice.uniform(0, 1)
    saturation = 0.0 if kind < 0.2 else dice.uniform(0.05, 0.45) if kind < 0.65 else dice.uniform(0.4, 1)
    return hsv(dice.uniform(0, 1), saturation, dice.uniform(0.08, 1))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value in 0…1; the hue goes round, the others are clipped."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def near(dice: Dice, base: Sequence[int], amount: float) -> Colour:
    """A colour that differs from `base` by about `amount` of 255, mostly in brightness."""
    light = dice.normal(amount)
    red, green, blue = (min(255, max(0, round(part + light + dice.normal(amount / 3)))) for part in base)
    return red, green, blue


def apart(dice: Dice, base: Sequence[int], low: float, high: float) -> Colour:
    """A colour whose distance from `base` is between `low` and `high` of 255 in its largest channel, if possible."""
    goal = dice.uniform(low, high)
    other = colour(dice)
    distance = max(abs(a - b) for a, b in zip(other, base, strict=True)) or 1
    return mixed(base, other, min(1.0, goal / distance))


def mixed(first: Sequence[int], second: Sequence[int], share: float) -> Colour:
    """A colour between two; `share` of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def scaled(base: Sequence[int], factor: float) -> Colour:
    """A colour, brighter or darker."""
    red, green, blue = (min(255, max(0, round(part * factor))) for part in base)
    return red, green, blue


def dimmed(picture: Image.Image, factor: float, offset: float = 0.0) -> Image.Image:
    """A grey picture with its values times `factor`, plus `offset`; both small enough to stay in 0 to 255."""
    return picture.point([round(offset + value * factor) for value in range(256)])


def palette(stops: Sequence[Colour], positions: tuple[float, ...] | None = None) -> bytes:
    """256 RGB colours that run through `stops`, at `positions` in 0…255 or evenly."""
    if positions is None:
        positions = tuple(255 * k / max(1, len(stops) - 1) for k in range(len(stops)))
    return (_weights(positions) @ np.array(stops, np.float32)).astype(np.uint8).tobytes()


@cache
def _weights(positions: tuple[float, ...]) -> NDArray[np.float32]:
    """Share of every stop in every colour of a palette, [256, stops]."""
    return np.stack([np.interp(range(256), positions, row) for row in np.eye(len(positions))], 1).astype(np.float32)


def coloured(values: Image.Image, colours: bytes) -> Image.Image:
    """A grey picture seen through a palette; `values` is not changed."""
    picture = values.copy()
    picture.putpalette(colours)
    return picture.convert("RGB")


def ramp(dice: Dice, size: tuple[int, int], turn: float, cycles: float = 1.0, phase: float = 0.0) -> Image.Image:
    """A grey ramp across (width, height) pixels in direction `turn`; with more `cycles` it goes up and down."""
    width, height = size
    reach = abs(width * math.cos(turn)) + abs(height * math.sin(turn))
    x = (np.arange(width, dtype=np.float32) - width / 2) * np.float32(math.cos(turn) / reach)
    y = (np.arange(height, dtype=np.float32) - height / 2) * np.float32(math.sin(turn) / reach)
    values = np.add.outer(y, x)
    if cycles == 1.0:
        values = values * 255 + 127.5
    else:
        values = 127.5 + 127.5 * np.cos((math.tau * cycles) * values + np.float32(phase))
    return Image.fromarray(values.astype(np.uint8))


@cache
def _ball(sun: int) -> Image.Image:
    """Light on a half sphere, with a highlight; corners as its rim. 128 × 128, 8-bit grey."""
    y, x = (np.mgrid[:128, :128] - 63.5) / 64
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    norm = np.maximum(1, np.hypot(x, y))
    turn = math.tau * sun / (_SUNS - 1)
    tilt = 0.75 if sun < _SUNS - 1 else 0.0
    light = (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), math.cos(tilt))
    diffuse = np.clip(x / norm * light[0] + y / norm * light[1] + z * light[2], 0, 1)
    values = 30 + 170 * diffuse + 55 * diffuse**40
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@cache
def _round(kind: str) -> Image.Image:
    """A sprite, see `sprite`. 128 × 128, 8-bit grey."""
    y, x = (np.mgrid[:128, :128] - 63.5) / 64
    distance = np.hypot(x, y)
    values = 1 - distance if kind == "halo" else 2.6 * (1 - distance)
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8))


@cache
def _small(kind: str, sun: int) -> Image.Image:
    """A ball or a sprite, see above, at 32 × 32: resized to a small window in less time."""
    return (_ball(sun) if kind == "ball" else _round(kind)).reduce(4)


def sprite(kind: str, size: tuple[int, int]) -> Image.Image:
    """A round mask that fills the window: "halo" falls off from the centre, "spot" at its edge only."""
    whole = _small(kind, 0) if max(size) <= 40 else _round(kind)
    return whole.resize(size, Image.Resampling.BILINEAR)


@cache
def _cone(turns: int) -> Image.Image:
    """Brightness that goes up and down `turns` times around the centre. 128 × 128, 8-bit grey."""
    y, x = np.mgrid[:128, :128] - 63.5
    return Image.fromarray((127.5 + 127.5 * np.cos(turns * np.arctan2(y, x) + turns)).astype(np.uint8))


def ball(size: tuple[int, int], sun: int) -> Image.Image:
    """A lit ball that fills the window; `sun` in 0…11 is where the light comes from, 11 from the front."""
    whole = _small("ball", sun % _SUNS) if max(size) <= 40 else _ball(sun % _SUNS)
    return whole.resize(size, Image.Resampling.BILINEAR)


def cone(size: tuple[int, int], turns: int) -> Image.Image:
    """Light that changes around the centre of the window, as on turned metal."""
    return _cone(turns).resize(size, Image.Resampling.BILINEAR)


def metal(dice: Dice) -> bytes:
    """A palette with dark and bright reflections: silver, gold, copper, steel, or any colour."""
    hue, saturation = dice.pick(
        ((0.6, 0.03), (0.6, 0.08), (0.11, 0.55), (0.125, 0.7), (0.05, 0.45), (0.09, 0.3), (dice.uniform(0, 1), 0.5))
    )
    count = dice.integer(3, 8)
    dark = dice.uniform(0.05, 0.7)
    lights = [dice.uniform(dark, 0.8) if k % 2 else dice.uniform(0.6, 1.15) for k in range(count)]
    return palette([hsv(hue, saturation * (1.4 - 0.9 * min(light, 1)), light) for light in lights])


class Material:
    """A way to paint surfaces: objects of one material look alike but not the same."""

    def __init__(self, dice: Dice, base: Colour, *, texture: float, relief: float, sun: int) -> None:
        """Decide the look.

        Args:
            dice: Where the look is drawn from.
            base: Mean colour.
            texture: Strength of the texture, 0 to 1.
            relief: Strength of the light on a solid form, 0 to 1.
            sun: Where the light comes from, see `ball`.
        """
        self._texture, self._relief, self._sun = texture, relief, sun
        self._sheet = noise.Sheet(dice, _KINDS, dice.log_uniform(0.5, 3)) if texture > 0.02 else None
        kind = dice.uniform(0, 1)
        second = near(dice, base, 40) if kind < 0.7 else colour(dice)
        gloss = scaled((255, 255, 255), dice.uniform(0.6, 1)) if dice.chance(0.4) else scaled(second, 1.4)
        dark = scaled(base, dice.uniform(0.2, 0.7))
        plain = self._sheet is None and not relief
        stops = [base, base] if plain else [dark, base, second, gloss]
        self._colours = (
            metal(dice) if kind > 0.93 and not plain else palette(stops, None if plain else (0, 110, 200, 255))
        )

    def paint(self, dice: Dice, size: tuple[int, int]) -> Image.Image:
        """An RGB picture of (width, height)."""
        light = ball(size, self._sun) if self._relief else Image.new("L", size, 140)
        if self._relief and self._relief < 1:
            light = Image.blend(Image.new("L", size, 140), light, self._relief)
        if self._sheet is not None:
            light = Image.blend(light, self._sheet.piece(dice, size), self._texture)
        return coloured(light, self._colours)


_KINDS = (
    "cloud",
    "cloud",
    "vein",
    "grain",
    "blotch",
    "patch",
    "speck",
    "fibre",
    "marble",
    "wave",
    "weave",
    "check",
    "cell",
)


def material(dice: Dice, base: Colour, sun: int) -> Material:
    """A material at random: plain or textured, flat or solid."""
    texture = 0.0 if dice.chance(0.25) else dice.uniform(0.05, 0.8)
    relief = 0.0 if dice.chance(0.35) else dice.uniform(0.2, 1)
    return Material(dice, base, texture=texture, relief=relief, sun=sun)


def backdrop(dice: Dice, side: int, base: Colour, contrast: float) -> Image.Image:
    """A background around `base`: plain, gradient, texture or a mixture of two. `contrast` 0 to 1."""
    size = (side, side)
    reach = 110 * contrast
    kind = dice.uniform(0, 1)
    if kind < 0.12:
        return Image.new("RGB", size, base)
    stops = [near(dice, base, reach) for _ in range(dice.integer(2, 4))]
    if kind < 0.24:
        return coloured(ramp(dice, size, dice.angle()), palette(stops))
    if kind < 0.34:
        return coloured(noise.smooth(dice, size, dice.integer(2, 8)), palette(stops))
    zoom = dice.log_uniform(0.8, 6)
    first = coloured(noise.texture(dice, size, (dice.pick(_KINDS),), zoom), palette(stops))
    if kind < 0.65:
        return first
    stops = [near(dice, base, reach) for _ in range(3)]
    second = coloured(noise.texture(dice, size, (dice.pick(_KINDS),), dice.log_uniform(0.8, 4)), palette(stops))
    if kind < 0.8:
        return Image.blend(first, second, dice.uniform(0.2, 0.8))
    if kind < 0.9:
        return ImageChops.multiply(first, second) if dice.chance(0.5) else ImageChops.screen(first, second)
    steep = dice.pick((1, 3, 12))
    table = [min(255, max(0, 128 + (value - 128) * steep)) for value in range(256)]
    return Image.composite(
        first, second, noise.texture(dice, size, ("cloud", "blotch"), dice.log_uniform(1, 5)).point(table)
    )
