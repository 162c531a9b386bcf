"""Points on objects and beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts.geometry import (
    any_pixel,
    central_pixel,
    chessboard_distances,
    farthest_pixels,
    spaced,
    windows_of,
)
from lora_sam.prompts.interface import Kind

DYNAMIC = 2.75
"""With n points on an object, those are `DYNAMIC * sqrt(area) / n` pixels apart where `min_distance` is dynamic."""

_DRAWS_PER_POINT = 16


@dataclass(frozen=True, kw_only=True)
class PointPrompt:
    """One foreground point per object, in the middle of a pixel.

    Attributes:
        farthest_share: Share of the training points that lie where evaluation puts them, at the pixel farthest from
            the edge of the object; the others are drawn uniformly from its pixels, as in Segment Anything.
    """

    farthest_share: Annotated[float, Field(ge=0, le=1)]

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        return ("point",)

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Points that depend on (seed, epoch, sample.id)."""
        draws = generator_for(seed, "point", epoch, sample.id)
        farthest = draws.random(len(sample.object_ids)) < self.farthest_share
        windows = windows_of(sample)
        middles = iter(
            farthest_pixels([window for (window, _, _), middle in zip(windows, farthest, strict=True) if middle])
        )
        places = [
            next(middles) if middle else any_pixel(window, draws)
            for (window, _, _), middle in zip(windows, farthest, strict=True)
        ]
        return _one_point_each(windows, places)

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """The pixels farthest from the edges; no draw is involved."""
        windows = windows_of(sample)
        return _one_point_each(windows, farthest_pixels([window for window, _, _ in windows]))


@dataclass(frozen=True, kw_only=True)
class PointsPrompt:
    """Several points per object, in the middle of pixels: on the object, and beside it.

    Objects and images that are too small for all their points get fewer: padding with the label -1 takes their place.
    Evaluation puts points in the same way as training, always the same ones for a sample.

    Attributes:
        positive: Points on every object.
        negative: Points on the background of every object, which other objects are part of.
        placement: `random` draws pixels of the object; `center` and `farthest` put the first point at the pixel nearest
            to its centre of mass, or farthest from its edge, and draw the others; `eroded` draws from the object
            without its rim, and from the background without the rim around the object, as in Todoran's tutorial.
        area_per_pass: Pixels of an object for each erosion by a square of 3 x 3 (a rim of one pixel) that `eroded`
            makes, the quotient rounded down; fewer are made where nothing would be left.
        min_distance: Least distance in pixels between points with the same label; `dynamic` for 2.75 * sqrt(area) / n,
            with n such points and the area of the object; null for none. Half of it is taken where there is no room,
            and so on.
        negative_margin: Negative points lie in the box of the object grown on each side by this share of its width
            (height), at least by one pixel; null for anywhere in the image.
    """

    positive: Annotated[int, Field(ge=1, le=64)]
    negative: Annotated[int, Field(ge=0, le=64)]
    placement: Literal["random", "center", "farthest", "eroded"]
    area_per_pass: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    min_distance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["dynamic"] | None
    negative_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        return ("point",)

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Points that depend on (seed, epoch, sample.id)."""
        return self._points(sample, generator_for(seed, "points", epoch, sample.id))

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Points that depend on (seed, sample.id)."""
        return self._points(sample, generator_for(seed, "points", "evaluation", sample.id))

    def passes(self, area: int) -> int:
        """Erosions of an object of `area` pixels, unless nothing would be left."""
        return int(area / self.area_per_pass) if self.placement == "eroded" else 0

    def _points(self, sample: Sample, draws: np.random.Generator) -> Prompts:
        objects = [
            _Object(window, top, left, int(np.count_nonzero(window))) for window, top, left in windows_of(sample)
        ]
        areas = np.array([one.area for one in objects])
        points, labels = [], []
        for label, count, candidates in ((1, self.positive, self._inside), (0, self.negative, self._outside)):
            if not count:
                continue
            pixels, usable = candidates(sample, objects, draws)
            chosen = spaced(pixels, usable, count, self._distances(areas, count))
            places = np.take_along_axis(pixels, np.maximum(chosen, 0)[..., None], axis=1)
            points.append(np.where(chosen[..., None] < 0, np.float32(0), places[..., ::-1] + np.float32(0.5)))
            labels.append(np.where(chosen < 0, -1, label))
        return Prompts(points=np.concatenate(points, axis=1), labels=np.concatenate(labels, axis=1).astype(np.int64))

    def _inside(self, sample: Sample, objects: list[_Object], draws: np.random.Generator) -> _Candidates:
        size = _DRAWS_PER_POINT * self.positive
        shares = draws.random((len(objects), size))
        # the first place is for the one that is not drawn
        pixels, usable = np.zeros((len(objects), 1 + size, 2), np.float32), np.zeros((len(objects), 1 + size), np.bool_)
        for row, one in enumerate(objects):
            region = one.window
            if passes := self.passes(one.area):
                region = _survivors(chessboard_distances(region), passes, self.positive)
            _draw(region, one.top, one.left, shares[row], pixels[row, 1:], usable[row, 1:])
        if self.placement in ("center", "farthest"):
            windows = [one.window for one in objects]
            firsts = farthest_pixels(windows) if self.placement == "farthest" else list(map(central_pixel, windows))
            pixels[:, 0] = np.array(firsts) + np.array([(one.top, one.left) for one in objects])
            usable[:, 0] = True
        return pixels, usable

    def _outside(self, sample: Sample, objects: list[_Object], draws: np.random.Generator) -> _Candidates:
        size = _DRAWS_PER_POINT * self.negative
        shares = draws.random((len(objects), size, 2))
        corners = self._surroundings(sample)
        # drawn blindly first: only objects that fill most of their surroundings leave too few of these
        low = corners[:, None, :2]
        places = np.floor(shares * (corners[:, None, 2:] - low) + low).astype(np.intp)
        rows, columns = places[..., 0], places[..., 1]
        usable = ~sample.masks[np.arange(len(objects))[:, None], rows, columns]
        pixels = places.astype(np.float32)
        for row, one in enumerate(objects):
            passes = self.passes(one.area)
            if passes:
                usable[row] &= _is_far(one, passes, rows[row], columns[row])
            if np.count_nonzero(usable[row]) >= size // 4:
                continue
            top, left, bottom, right = corners[row].tolist()
            region = ~sample.masks[row, top:bottom, left:right]
            if passes:
                region = _survivors(_clipped(chessboard_distances(region, passes), passes), passes, self.negative)
            usable[row] = False
            _draw(region, top, left, shares[row, :, 0], pixels[row], usable[row])
        return pixels, usable

    def _surroundings(self, sample: Sample) -> NDArray[np.intp]:
        """Where negative points may lie: first row and column, and one past the last, [N, 4]."""
        height, width = sample.size
        if self.negative_margin is None:
            return np.tile(np.array([0, 0, height, width]), (len(sample.object_ids), 1))
        box = sample.boxes.astype(np.intp)[:, [1, 0, 3, 2]]
        margin = np.maximum(1, np.ceil(self.negative_margin * (box[:, 2:] - box[:, :2]))).astype(np.intp)
        corners = np.concatenate([box[:, :2] - margin, box[:, 2:] + margin], axis=1)
        limits = np.array([height, width, height, width])
        inside: NDArray[np.intp] = np.clip(corners, 0, limits)
        return inside

    def _distances(self, areas: NDArray[np.int_], count: int) -> NDArray[np.float64]:
        if self.min_distance == "dynamic":
            return DYNAMIC * np.sqrt(areas) / count
        return np.full(len(areas), float(self.min_distance or 0))


_Candidates = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Pixels (row, column) in random order, [N, M, 2], and which of them can be used, [N, M]."""


@dataclass(frozen=True)
class _Object:
    """An object in its window, which begins at row `top` and column `left`, and its area in pixels."""

    window: NDArray[np.bool_]
    top: int
    left: int
    area: int


def _draw(
    region: NDArray[np.bool_],
    top: int,
    left: int,
    shares: NDArray[np.float64],
    pixels: NDArray[np.float32],
    usable: NDArray[np.bool_],
) -> None:
    """Fill `pixels` [M, 2] with those of a region that begins at (top, left), as `shares` [M], uniform draws, decide.

    All of a small region, each once; of a large one a part, drawn with replacement, which is faster.
    """
    (inside,) = region.ravel().nonzero()
    if len(inside) <= len(shares):
        inside = inside[shares[: len(inside)].argsort()]
    else:
        inside = inside[(shares * len(inside)).astype(np.intp)]
    count, width = len(inside), region.shape[1]
    pixels[:count, 0] = inside // width + top
    pixels[:count, 1] = inside % width + left
    usable[:count] = True


def _survivors(distances: NDArray[np.int32], passes: int, least: int) -> NDArray[np.bool_]:
    """The pixels that survive so many erosions, or half as many, and so on, until at least `least` do or all count."""
    while passes and np.count_nonzero(distances > passes) < least:
        passes //= 2
    return distances > passes


def _is_far(one: _Object, passes: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether pixels are more than `passes` moves of a chess king away from an object."""
    # its surroundings up to that distance, framed so that their own border is nearer to no pixel in question
    border = 2 * passes + 1
    distances = chessboard_distances(~one.window, border)
    height, width = one.window.shape
    rows, columns = rows - one.top, columns - one.left
    near = (rows >= -passes) & (rows < height + passes) & (columns >= -passes) & (columns < width + passes)
    far: NDArray[np.bool_] = ~near
    far[near] = distances[rows[near] + border, columns[near] + border] > passes
    return far


def _clipped(values: NDArray[np.int32], border: int) -> NDArray[np.int32]:
    return values[border:-border, border:-border]


def _one_point_each(windows: list[tuple[NDArray[np.bool_], int, int]], places: list[tuple[int, int]]) -> Prompts:
    """Foreground points at the centres of pixels given as (row, column) in their windows."""
    points = np.array(
        [
            [(left + column + 0.5, top + row + 0.5)]
            for (_, top, left), (row, column) in zip(windows, places, strict=True)
        ],
        dtype=np.float32,
    )
    return Prompts(points=points, labels=np.ones((len(places), 1), dtype=np.int64))
