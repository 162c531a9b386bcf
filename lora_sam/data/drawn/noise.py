"""Textures as windows into tiles that are computed once per process, from a seed of their own.

A tile is an 8-bit image of `TILE` × `TILE` pixels that repeats at its edges. A window into one, enlarged and turned, is
a texture that costs a fraction of a millisecond.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.seeds import generator_for
from lora_sam.data.drawn.dice import Dice

TILE = 512
SHEET = 128
GRAIN = 1024

Field = NDArray[np.float32]

_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
)


def texture(dice: Dice, size: tuple[int, int], kinds: tuple[str, ...] | None = None, zoom: float = 1.0) -> Image.Image:
    """A texture of (width, height) pixels, 8-bit grey, of full contrast; `zoom` enlarges its details."""
    bank = _bank()
    tile = dice.pick(bank[dice.pick(kinds or tuple(bank))])
    width, height = size
    zoom = max(zoom, max(size) / TILE)
    left = dice.uniform(0, TILE - width / zoom)
    top = dice.uniform(0, TILE - height / zoom)
    box = (left, top, left + width / zoom, top + height / zoom)
    window = tile.resize(size, Image.Resampling.BILINEAR, box=box)
    return window.transpose(dice.pick(_TURNS)) if width == height and dice.chance(0.5) else window


class Sheet:
    """A texture from which pieces are cut, for many small objects of one kind."""

    def __init__(self, dice: Dice, kinds: tuple[str, ...], zoom: float) -> None:
        self._kinds = (dice.pick(kinds),)
        self._zoom = zoom
        self._picture: Image.Image | None = None

    def piece(self, dice: Dice, size: tuple[int, int]) -> Image.Image:
        """A piece of (width, height) from any place; a texture of its own where the sheet is too small."""
        width, height = size
        if max(size) > SHEET:
            return texture(dice, size, self._kinds, self._zoom)
        if self._picture is None:
            self._picture = texture(dice, (SHEET, SHEET), self._kinds, self._zoom)
        left, top = dice.integer(0, SHEET - width), dice.integer(0, SHEET - height)
        return self._picture.crop((left, top, left + width, top + height))


def grain(dice: Dice, size: tuple[int, int], *, coloured: bool, coarse: bool) -> Image.Image:
    """Noise of a camera, (width, height) up to `GRAIN`: RGB around 128 with a standard deviation of 32."""
    tile = _grain(coloured, coarse)
    left, top = dice.integer(0, GRAIN - size[0]), dice.integer(0, GRAIN - size[1])
    return tile.crop((left, top, left + size[0], top + size[1]))


def smooth(dice: Dice, size: tuple[int, int], cells: int) -> Image.Image:
    """Smooth value noise, 8-bit grey: random values on `cells` × `cells` points, enlarged."""
    values = dice.array.integers(0, 256, (cells, cells), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@cache
def _grain(coloured: bool, coarse: bool) -> Image.Image:
    from scipy import ndimage

    rng = generator_for("drawing", "grain", int(coloured), int(coarse))
    shape = (GRAIN, GRAIN, 3 if coloured else 1)
    values = rng.standard_normal(shape, dtype=np.float32)
    if coarse:
        values = ndimage.gaussian_filter(values, (0.8, 0.8, 0), mode="wrap")
        values /= values.std()
    values = np.clip(128 + 32 * values, 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(values, (GRAIN, GRAIN, 3))))


@cache
def _bank() -> dict[str, tuple[Image.Image, ...]]:
    """Tiles by kind."""
    rng = generator_for("drawing", "noise")
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32) / TILE
    clouds = [_spectral(rng, slope) for slope in (1.2, 1.6, 2.0, 2.0, 2.6, 3.2)]
    fields: dict[str, list[Field]] = {
        "cloud": clouds,
        "vein": [-np.abs(_spectral(rng, slope)) for slope in (1.8, 2.2, 2.8)],
        "grain": [_band(rng, sigma) for sigma in (0.7, 1.5, 3.0)],
        "blotch": [_band(rng, sigma) for sigma in (6.0, 12.0, 24.0)],
        "patch": [np.tanh(3 * _band(rng, sigma)) for sigma in (4.0, 9.0)],
        "speck": [_specks(rng, count, sigma) for count, sigma in ((4000, 1.0), (900, 2.5), (250, 4.0))],
        "fibre": [_fibres(rng, turn, stretch) for turn, stretch in ((0.2, 9.0), (1.1, 14.0), (2.3, 7.0), (2.8, 20.0))],
        "marble": [np.sin(k * _spectral(rng, 2.2)) for k in (2.5, 5.0)],
        "wave": [
            np.sin(2 * np.pi * (kx * x + ky * y) + warp * _spectral(rng, 3.0))
            for kx, ky, warp in ((24, 7, 0.5), (6, 40, 1.5), (14, -14, 3.0), (60, 25, 0.0))
        ],
        "weave": [
            np.sin(2 * np.pi * (kx * x + ky * y)) * np.sin(2 * np.pi * (kx * y - ky * x))
            for kx, ky in ((32, 0), (21, 13), (64, 10))
        ],
        "check": [
            np.sign(np.sin(2 * np.pi * (kx * x + ky * y)) * np.sin(2 * np.pi * (kx * y - ky * x)))
            for kx, ky in ((12, 0), (17, 9))
        ],
        "cell": [_cells(rng, count, flat) for count, flat in ((300, False), (1200, False), (300, True), (900, True))],
    }
    return {kind: tuple(_tile(field) for field in tiles) for kind, tiles in fields.items()}


def _tile(field: Field) -> Image.Image:
    low, high = np.percentile(field[::4, ::4], (1, 99))
    return Image.fromarray(np.clip((field - low) * (255 / max(float(high - low), 1e-6)), 0, 255).astype(np.uint8))


def _frequencies() -> tuple[Field, Field]:
    """Cycles per tile of every coefficient of `rfft2`, down and across."""
    down = np.fft.fftfreq(TILE, 1 / TILE).astype(np.float32)[:, None]
    across = np.fft.rfftfreq(TILE, 1 / TILE).astype(np.float32)[None]
    return down, across


def _filtered(rng: np.random.Generator, response: Field) -> Field:
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE), dtype=np.float32)) * response
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum).astype(np.float32)
    result: Field = field / field.std()
    return result


def _spectral(rng: np.random.Generator, slope: float) -> Field:
    fy, fx = _frequencies()
    return _filtered(rng, np.maximum(np.hypot(fy, fx), 2) ** -np.float32(slope / 2 + 0.5))


def _band(rng: np.random.Generator, sigma: float) -> Field:
    fy, fx = _frequencies()
    return _filtered(rng, np.exp(-2 * (np.pi * sigma / TILE) ** 2 * (fy**2 + fx**2)))


def _fibres(rng: np.random.Generator, turn: float, stretch: float) -> Field:
    fy, fx = _frequencies()
    along = fx * np.cos(turn) + fy * np.sin(turn)
    across = fy * np.cos(turn) - fx * np.sin(turn)
    straight = _filtered(rng, 1 / (6 + np.hypot(along * stretch, across)))
    bend = 9 * _spectral(rng, 3.0)
    y, x = np.mgrid[:TILE, :TILE]
    bent: Field = straight[(y + bend.astype(int)) % TILE, (x + bend.astype(int)) % TILE]
    return bent


def _specks(rng: np.random.Generator, count: int, sigma: float) -> Field:
    from scipy import ndimage

    field = np.zeros((TILE, TILE), np.float32)
    np.add.at(field, tuple(rng.integers(0, TILE, (2, count))), rng.uniform(0.3, 1, count).astype(np.float32))
    blurred: Field = ndimage.gaussian_filter(field, sigma, mode="wrap")
    return np.sqrt(blurred)


def _cells(rng: np.random.Generator, count: int, flat: bool) -> Field:
    from scipy import ndimage

    away = np.ones((TILE, TILE), bool)
    away[tuple(rng.integers(0, TILE, (2, count)))] = False
    distance, nearest = ndimage.distance_transform_edt(away, return_indices=True)
    if flat:
        values: Field = rng.standard_normal((TILE, TILE), dtype=np.float32)[tuple(nearest)]
        return values
    result: Field = -distance.astype(np.float32)
    return result
