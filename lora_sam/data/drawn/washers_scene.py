"""Washers on a cluttered workbench: pictures drawn from numbers, with masks of the washers' own metal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.drawn import washers_materials as materials
from lora_sam.data.drawn.washers_materials import Colour, Paint, Pixels
from lora_sam.data.drawn.washers_shapes import Distance, Field, band, bar, disc, hexagon, split_band

MIN_OBJECTS, MAX_OBJECTS = 6, 14

_MIN_VISIBLE = 0.3  # a washer that is covered more is not labelled
_REFERENCE_SIDE = 512  # lengths below are in pixels of a picture of this side
_TRIES = 400


def draw(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture and the masks of its washers.

    A mask holds what is seen of the washer's own metal: not its hole, not the cut of a split washer, not the rubber
    lip of a bonded seal, nor a nut, a bolt or a smaller washer that lies on it.

    Args:
        rng: All that the picture depends on besides `side`.
        side: Height and width in pixels.

    Returns:
        RGB uint8 [side, side, 3] and bool [N, side, side], N from `MIN_OBJECTS` to `MAX_OBJECTS`, none empty, none
        overlapping.
    """
    bench = _Bench(rng, side)
    wanted = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    for _ in range(rng.integers(3, 8)):
        bench.put_clutter(bench.anywhere())
    largest = 86 if wanted < 10 else 66
    for _ in range(_TRIES):
        missing = wanted - bench.washers
        if not missing:
            break
        bench.put_assembly(rng.uniform(40, largest) * bench.unit, stack=missing > 1)
        if rng.random() < 0.1:
            bench.put_clutter(bench.anywhere())
    return bench.picture(), bench.masks()


@dataclass(frozen=True)
class _Look:
    """How a washer is made: outer radius and width of its metal in pixels, and the metal."""

    outer: float
    width: float
    colour: Colour

    @property
    def inner(self) -> float:
        return self.outer - self.width


class _Bench:
    """A picture that things are laid on, one after the other, with a label for every pixel."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng = rng
        self.side = side
        self.unit = side / _REFERENCE_SIDE
        self.light = rng.uniform(-np.pi, np.pi)
        surfaces = (materials.wood, materials.brushed_plate, materials.cutting_mat, materials.paper)
        self.pixels: Pixels = surfaces[rng.integers(len(surfaces))](rng, side)
        if rng.random() < 0.5:
            self.pixels = np.ascontiguousarray(self.pixels.transpose(1, 0, 2))
        self.labels = np.zeros((side, side), np.int16)
        self.areas: list[int] = []  # of the washers, before anything covers them
        self._taken: list[tuple[float, float, float]] = []
        self._stain()

    @property
    def washers(self) -> int:
        """How many were laid down."""
        return len(self.areas)

    def anywhere(self) -> tuple[float, float]:
        """A place (x, y) on the bench."""
        x, y = self.rng.uniform(0, self.side, 2)
        return float(x), float(y)

    def picture(self) -> NDArray[np.uint8]:
        """What a camera sees: uneven light and a little sensor noise."""
        rng, side = self.rng, self.side
        light = 1 + 0.12 * materials.noise(rng, (side, side), (side, side))
        pixels = self.pixels * light[..., None]
        pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(1, 4))
        seen: NDArray[np.uint8] = pixels.clip(0, 255).astype(np.uint8)
        return seen

    def masks(self) -> NDArray[np.bool_]:
        """What is seen of every washer, without those that are mostly covered."""
        seen = np.bincount(self.labels.ravel(), minlength=self.washers + 1)[1:]
        kept = [number + 1 for number, area in enumerate(self.areas) if seen[number] >= _MIN_VISIBLE * area]
        return np.stack([self.labels == number for number in kept])

    def put_assembly(self, radius: float, *, stack: bool) -> None:
        """A washer of `radius` pixels, alone or with what belongs to it, if there is room for it at a place drawn."""
        rng = self.rng
        at = tuple(rng.uniform(0.8 * radius, self.side - 0.8 * radius, 2).tolist())
        if any(math.dist(at, (x, y)) < 0.84 * (radius + taken) for x, y, taken in self._taken):
            return
        self._taken.append((*at, radius))
        kind, metal = rng.random(), materials.METALS[rng.integers(len(materials.METALS))]
        size = radius / self.unit
        if kind < 0.2:
            self._put_washer(at, _Look(radius, radius * rng.uniform(0.27, 0.42), metal), split=rng.random() < 0.6)
        elif kind < 0.4 and size > 46:
            self._put_bolted(at, _Look(radius, radius * rng.uniform(0.5, 0.6), metal))
        elif kind < 0.6 and size > 54 and stack:
            self._put_washer(at, _Look(radius, radius * rng.uniform(0.5, 0.6), metal))
            small = radius * rng.uniform(0.58, 0.7)
            beside = tuple(value + rng.uniform(-0.06, 0.06) * radius for value in at)
            self._put_washer(beside, _Look(small, small * rng.uniform(0.38, 0.5), metal))
        else:
            self._put_bonded_seal(at, _Look(radius, radius * rng.uniform(0.27, 0.38), metal))

    def put_clutter(self, at: tuple[float, float]) -> None:
        """A nut, a screw, a rubber ring or a coin."""
        rng, unit = self.rng, self.unit
        metal = materials.METALS[rng.integers(len(materials.METALS))]
        kind, angle = rng.random(), rng.uniform(0, np.pi)
        if kind < 0.3:
            self._put_nut(at, rng.uniform(12, 24) * unit, metal)
        elif kind < 0.6:
            width, length = rng.uniform(7, 13) * unit, rng.uniform(50, 110) * unit
            paint = materials.threaded(metal, width, rng.uniform(4, 7) * unit, angle)
            self._lay(at, length, bar(length, width, angle), paint, height=4 * unit)
            head = at[0] + length / 2 * np.cos(angle), at[1] + length / 2 * np.sin(angle)
            cap = materials.threaded(metal, 2 * width, 1e6, angle)
            self._lay(head, 2 * width, bar(0.8 * width, 2 * width, angle), cap, height=5 * unit)
        elif kind < 0.85:
            radius, thick = rng.uniform(14, 34) * unit, rng.uniform(5, 8) * unit
            colour = materials.RUBBERS[rng.integers(len(materials.RUBBERS))]
            paint = materials.rubber(colour, radius, radius - thick, self.light)
            self._lay(at, radius, band(radius, radius - thick), paint, height=3 * unit)
        else:
            radius = rng.uniform(14, 26) * unit
            paint = materials.turned_metal(rng, metal, radius, 0.8 * radius, self.light)
            self._lay(at, radius, disc(radius), paint, height=2 * unit)

    def _put_washer(self, at: tuple[float, float], look: _Look, *, split: bool = False) -> None:
        rng = self.rng
        shape = band(look.outer, look.inner)
        if split:
            gap = rng.uniform(0.2, 0.45) * look.outer
            shape = split_band(look.outer, look.inner, gap, rng.uniform(-np.pi, np.pi), rng.uniform(-0.5, 0.5))
        paint = materials.turned_metal(rng, look.colour, look.outer, look.inner, self.light)
        self._lay(at, look.outer, shape, paint, height=rng.uniform(2, 5) * self.unit, washer=True)

    def _put_bonded_seal(self, at: tuple[float, float], look: _Look) -> None:
        """A metal ring with a rubber lip moulded onto its inside."""
        rng = self.rng
        self._put_washer(at, look)
        hole = look.inner * rng.uniform(0.3, 0.65)
        colour = materials.RUBBERS[rng.integers(len(materials.RUBBERS))]
        paint = materials.rubber(colour, look.inner, hole, self.light)
        self._lay(at, look.inner, band(look.inner, hole), paint, height=1.5 * self.unit)

    def _put_bolted(self, at: tuple[float, float], look: _Look) -> None:
        """A washer under a nut or the head of a bolt."""
        self._put_washer(at, look, split=self.rng.random() < 0.3)
        metal = look.colour if self.rng.random() < 0.6 else materials.METALS[0]
        self._put_nut(at, look.outer * self.rng.uniform(0.56, 0.66), metal)

    def _put_nut(self, at: tuple[float, float], apothem: float, metal: Colour) -> None:
        rng = self.rng
        hole = apothem * (rng.uniform(0.5, 0.65) if rng.random() < 0.6 else 0.0)
        paint = materials.machined(metal, 0.95 * apothem, hole, self.light)
        shape = hexagon(apothem, rng.uniform(0, np.pi))
        self._lay(at, 1.16 * apothem, shape, paint, height=rng.uniform(4, 7) * self.unit)

    def _stain(self) -> None:
        """Scratches, and dark spots with soft edges."""
        rng, unit = self.rng, self.unit
        for _ in range(rng.integers(2, 9)):
            length, light = rng.uniform(30, 160) * unit, rng.uniform(-0.3, 0.3)
            self._tint(self.anywhere(), length / 2, bar(length, 1.2 * unit, rng.uniform(0, np.pi)), light, 1)
        for _ in range(rng.integers(0, 4)):
            radius = rng.uniform(15, 60) * unit
            self._tint(self.anywhere(), 1.5 * radius, disc(radius), rng.uniform(-0.4, -0.1), radius)

    def _lay(
        self,
        at: tuple[float, float],
        reach: float,
        shape: Distance,
        paint: Paint,
        *,
        height: float,
        washer: bool = False,
    ) -> None:
        """Lay a thing of `shape` on the bench: its shadow first, then itself.

        Args:
            at: Its middle, (x, y).
            reach: No part of it is farther from `at`.
            shape: Signed distance to its edge.
            paint: Its colours.
            height: How far its shadow falls.
            washer: Whether its pixels are labelled as an object of its own.
        """
        away = at[0] - height * math.cos(self.light), at[1] - height * math.sin(self.light)
        self._tint(away, reach + height, shape, -0.5, height)
        rows, columns, x, y = self._window(at, reach + 2)
        distance = shape(x, y)
        window, cover = self.pixels[rows, columns], (0.5 - distance).clip(0, 1)[..., None]
        window += cover * (paint(x, y) - window)
        inside = distance < 0
        if washer:
            self.areas.append(int(inside.sum()))
        self.labels[rows, columns][inside] = self.washers if washer else 0

    def _tint(self, at: tuple[float, float], reach: float, shape: Distance, amount: float, softness: float) -> None:
        """Make the pixels inside `shape` lighter or darker by a share, fading over `softness` pixels."""
        rows, columns, x, y = self._window(at, reach + softness)
        cover = (0.5 - shape(x, y) / np.float32(softness)).clip(0, 1)[..., None]
        self.pixels[rows, columns] *= 1 + np.float32(amount) * cover

    def _window(self, at: tuple[float, float], reach: float) -> tuple[slice, slice, Field, Field]:
        """The rows and columns within `reach` of `at`, and x and y of their pixels' centres from there."""
        spans = [
            slice(max(0, math.floor(middle - reach)), max(0, min(self.side, math.ceil(middle + reach))))
            for middle in at
        ]
        x, y = (
            np.arange(span.start, span.stop, dtype=np.float32) + np.float32(0.5 - middle)
            for span, middle in zip(spans, at, strict=True)
        )
        shape = len(y), len(x)
        return spans[1], spans[0], np.broadcast_to(x, shape), np.broadcast_to(y[:, None], shape)
