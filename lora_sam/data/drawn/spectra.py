"""Textures with the statistics of photographs: spectra that fall as 1/f, orientation, cells, correlated colours.

That spectra of photographs fall as 1/f^a is from Field (1987). That drawn images with such statistics teach a network
to see is from Baradad et al. (2021). Tiles are computed once per process, as those of `noise`.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image

from lora_sam.core.seeds import generator_for
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.materials import Colour
from lora_sam.data.drawn.noise import TILE, Field

KINDS = ("pink", "oriented", "ridged", "cellular", "maze", "fur", "pebble")

_SHEET = 96


def field(dice: Dice, size: tuple[int, int], kinds: tuple[str, ...] = KINDS, zoom: float = 1.0) -> Image.Image:
    """A texture of (width, height) pixels, 8-bit grey, with a mean of about 128; `zoom` enlarges its details."""
    tile = dice.pick(_bank()[dice.pick(kinds)])
    width, height = size
    zoom = max(zoom, max(size) / TILE)
    left, top = dice.uniform(0, TILE - width / zoom), dice.uniform(0, TILE - height / zoom)
    box = (left, top, left + width / zoom, top + height / zoom)
    return tile.resize(size, Image.Resampling.BILINEAR, box=box)


def photo(dice: Dice, size: tuple[int, int], base: Colour, contrast: float, zoom: float | None = None) -> Image.Image:
    """A coloured texture around `base`: most of its variance is light, some is hue; `contrast` 0 to 1."""
    if zoom is None:
        zoom = dice.log_uniform(0.6, 5)
    light = field(dice, size, zoom=zoom)
    if dice.chance(0.3):
        light = Image.blend(light, field(dice, size, zoom=zoom * dice.pick((0.3, 3))), 0.4)
    hue = field(dice, size, ("pink", "ridged"), zoom * 1.5)
    channels = Image.merge("RGB", (light, hue, hue))
    spread = dice.normal(0.35), dice.normal(0.35)
    rows: list[float] = []
    for channel, share in enumerate((spread[0], 0.0, spread[1])):
        gain = contrast * dice.uniform(0.85, 1.15)
        rows += [gain, contrast * share, 0.0, base[channel] - 128 * (gain + contrast * share)]
    return channels.convert("RGB", tuple(rows))


class Skin:
    """A surface of photographic texture, for many objects that are alike."""

    def __init__(self, dice: Dice, base: Colour, contrast: float | None = None) -> None:
        self._contrast = dice.log_uniform(0.05, 0.7) if contrast is None else contrast
        self._zoom = dice.log_uniform(0.4, 3)
        self._base = base
        self._sheet: Image.Image | None = None

    def paint(self, dice: Dice, size: tuple[int, int]) -> Image.Image:
        """An RGB picture of (width, height)."""
        width, height = size
        if max(size) > _SHEET:
            return photo(dice, size, self._base, self._contrast, self._zoom)
        if self._sheet is None:
            self._sheet = photo(dice, (_SHEET, _SHEET), self._base, self._contrast, self._zoom)
        left, top = dice.integer(0, _SHEET - width), dice.integer(0, _SHEET - height)
        return self._sheet.crop((left, top, left + width, top + height))


@cache
def _bank() -> dict[str, tuple[Image.Image, ...]]:
    """Tiles by kind; each repeats at its edges."""
    rng = generator_for("drawing", "spectra")
    return {
        "pink": tuple(_tile(_pink(rng, slope)) for slope in (0.8, 1.0, 1.2, 1.5)),
        "oriented": tuple(
            _tile(_pink(rng, 1.1, turn, stretch))
            for turn, stretch in ((0.0, 4.0), (1.57, 6.0), (0.6, 3.0), (2.4, 12.0))
        ),
        "ridged": tuple(_tile(-np.sqrt(np.abs(_pink(rng, slope)))) for slope in (1.1, 1.5)),
        "cellular": tuple(_tile(_cellular(rng, count)) for count in (200, 700, 2500)),
        "maze": tuple(_tile(np.tanh(2.5 * _ring(rng, cycles))) for cycles in (18.0, 40.0)),
        "fur": tuple(_tile(_fur(rng, stretch)) for stretch in (6.0, 14.0)),
        "pebble": tuple(_tile(_pebbles(rng, count)) for count in (250, 1200)),
    }


def _tile(values: Field) -> Image.Image:
    values = (values - values.mean()) / max(float(values.std()), 1e-6)
    return Image.fromarray(np.clip(128 + 55 * values, 0, 255).astype(np.uint8))


def _frequencies() -> tuple[Field, Field]:
    down = np.fft.fftfreq(TILE, 1 / TILE).astype(np.float32)[:, None]
    return down, np.fft.rfftfreq(TILE, 1 / TILE).astype(np.float32)[None]


def _filtered(rng: np.random.Generator, response: Field) -> Field:
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE), dtype=np.float32)) * response
    spectrum[0, 0] = 0
    values = np.fft.irfft2(spectrum).astype(np.float32)
    result: Field = values / values.std()
    return result


def _pink(rng: np.random.Generator, slope: float, turn: float = 0.0, stretch: float = 1.0) -> Field:
    """Amplitudes that fall as 1/f^slope, drawn out along `turn` by `stretch`."""
    fy, fx = _frequencies()
    along = (fx * math.cos(turn) + fy * math.sin(turn)) * math.sqrt(stretch)
    across = (fy * math.cos(turn) - fx * math.sin(turn)) / math.sqrt(stretch)
    return _filtered(rng, np.maximum(np.hypot(along, across), 1.5) ** -np.float32(slope))


def _ring(rng: np.random.Generator, cycles: float) -> Field:
    fy, fx = _frequencies()
    return _filtered(rng, np.exp(-(((np.hypot(fy, fx) - cycles) / (0.2 * cycles)) ** 2)))


def _fur(rng: np.random.Generator, stretch: float) -> Field:
    """Short strokes whose direction drifts: noise smeared along a smooth field of directions."""
    values = rng.standard_normal((TILE, TILE), dtype=np.float32)
    turn = 1.2 * _pink(rng, 2.5)
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)
    total = np.zeros_like(values)
    for step in np.linspace(-stretch / 2, stretch / 2, 9):
        total += values[(y + step * np.sin(turn)).astype(int) % TILE, (x + step * np.cos(turn)).astype(int) % TILE]
    return total


def _nearest_two(rng: np.random.Generator, count: int) -> tuple[Field, Field]:
    """Distance of every pixel to the nearest and to the second of `count` seeds, the tile repeating."""
    from scipy.spatial import cKDTree

    tree = cKDTree(rng.uniform(0, TILE, (count, 2)), boxsize=TILE)
    half = np.stack(list(np.mgrid[:TILE:2, :TILE:2]), 2).reshape(-1, 2)
    near = tree.query(half, 2)[0].astype(np.float32).reshape(TILE // 2, TILE // 2, 2)
    both = [np.asarray(Image.fromarray(near[..., k]).resize((TILE, TILE), Image.Resampling.BILINEAR)) for k in (0, 1)]
    return both[0], both[1]


def _cellular(rng: np.random.Generator, count: int) -> Field:
    """Cells with thin dark walls (Worley, 1996)."""
    first, second = _nearest_two(rng, count)
    result: Field = np.minimum(second - first, 5.0) + 0.1 * first + 0.4 * _pink(rng, 1.2)
    return result


def _pebbles(rng: np.random.Generator, count: int) -> Field:
    first, second = _nearest_two(rng, count)
    result: Field = np.sqrt(np.clip(second - first, 0, None)) + 0.3 * _pink(rng, 1.0)
    return result
