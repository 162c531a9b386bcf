"""Prompts derived from the masks of labelled objects: boxes, and points inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.seeds import generator_for
from lora_sam.structures import Prompts, Sample


class PromptSource(Protocol):
    """How prompts are made from a labelled sample; a pure function of its arguments."""

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """One prompt per object; may differ from epoch to epoch."""
        ...

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """One prompt per object, always the same for a sample."""
        ...


@dataclass(frozen=True, kw_only=True)
class BoxPrompt:
    """One box per object: its tight box, with sides that may be moved at random.

    Each side moves by a uniform draw from ±(jitter_pixels + jitter_fraction · length), where length is the width of
    the box for its left and right side and the height for the others. Boxes stay in the image and at least one pixel
    wide and high.

    Attributes:
        jitter_pixels: Part of the largest move that is the same for all boxes, in pixels of the original image.
        jitter_fraction: Part of the largest move that grows with the box, as a share of its width or height.
        jitter_evaluation: Whether evaluation moves the sides too, always in the same way for a sample.
    """

    jitter_pixels: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    jitter_fraction: Annotated[float, Field(ge=0, le=1)]
    jitter_evaluation: bool

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Boxes that depend on (seed, epoch, sample.id)."""
        return Prompts(boxes=self._jittered(sample, generator_for(seed, "box", epoch, sample.id)))

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Tight boxes; with `jitter_evaluation`, boxes that depend on (seed, sample.id)."""
        if not self.jitter_evaluation:
            return Prompts(boxes=tight_boxes(sample.masks))
        return Prompts(boxes=self._jittered(sample, generator_for(seed, "box", "evaluation", sample.id)))

    def _jittered(self, sample: Sample, draws: np.random.Generator) -> NDArray[np.float32]:
        tight = tight_boxes(sample.masks)
        if not (self.jitter_pixels or self.jitter_fraction):
            return tight
        boxes = tight.astype(np.float64)
        lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += draws.uniform(-1, 1, boxes.shape) * (self.jitter_pixels + self.jitter_fraction * lengths)
        height, width = sample.size
        limits = np.array([width, height])
        corners = np.clip(boxes.reshape(-1, 2, 2), 0, limits)
        # sides that met or crossed: one pixel around where they met
        thin = corners[:, 1] - corners[:, 0] < 1
        low = np.clip(corners.mean(axis=1) - 0.5, 0, limits - 1)
        corners[:, 0] = np.where(thin, low, corners[:, 0])
        corners[:, 1] = np.where(thin, low + 1, corners[:, 1])
        return corners.reshape(-1, 4).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class PointPrompt:
    """One foreground point per object, in the middle of a pixel.

    Attributes:
        farthest_share: Share of the training points that lie where evaluation puts them, at the pixel farthest from
            the edge of the object; the others are drawn uniformly from its pixels, as in Segment Anything.
    """

    farthest_share: Annotated[float, Field(ge=0, le=1)]

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Points that depend on (seed, epoch, sample.id)."""
        draws = generator_for(seed, "point", epoch, sample.id)
        farthest = draws.random(len(sample.masks)) < self.farthest_share
        places = [
            farthest_pixel(mask) if middle else _any_pixel(mask, draws)
            for mask, middle in zip(sample.masks, farthest, strict=True)
        ]
        return _one_point_each(places)

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """The pixels farthest from the edges; no draw is involved."""
        return _one_point_each([farthest_pixel(mask) for mask in sample.masks])


@dataclass(frozen=True, kw_only=True)
class BoxOrPoint:
    """Boxes for the objects of some images, points for those of the others.

    Attributes:
        box: How boxes are made.
        point: How points are made.
        point_share: Share of the images that get points, in training and in evaluation.
    """

    box: BoxPrompt
    point: PointPrompt
    point_share: Annotated[float, Field(ge=0, le=1)]

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Prompts that depend on (seed, epoch, sample.id)."""
        return self._kind(seed, "kind", epoch, sample.id).training_prompts(sample, seed, epoch)

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Prompts that depend on (seed, sample.id)."""
        return self._kind(seed, "kind", "evaluation", sample.id).evaluation_prompts(sample, seed)

    def _kind(self, *seed_parts: int | str) -> PromptSource:
        return self.point if generator_for(*seed_parts).random() < self.point_share else self.box


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The smallest boxes that hold the masks, in the frame of `Prompts`.

    Args:
        masks: bool [N, H, W], none empty.

    Returns:
        XYXY, float32 [N, 4]: a single pixel at row 3, column 5 has the box (5, 3, 6, 4).
    """
    rows: NDArray[np.bool_] = np.any(masks, axis=2)
    columns: NDArray[np.bool_] = np.any(masks, axis=1)
    assert np.any(rows, axis=1).all(), "an empty mask has no box"
    sides = (
        columns.argmax(axis=1),
        rows.argmax(axis=1),
        columns.shape[1] - columns[:, ::-1].argmax(axis=1),
        rows.shape[1] - rows[:, ::-1].argmax(axis=1),
    )
    return np.stack(sides, axis=1).astype(np.float32)


def farthest_pixel(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of a mask [H, W] farthest from its edge; the border of the image is an edge.

    Where several are as far, the first in reading order.
    """
    from scipy.ndimage import distance_transform_edt

    window, top, left = _window(mask)
    distance = distance_transform_edt(np.pad(window, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), window.shape)
    return top + int(row), left + int(column)


def _any_pixel(mask: NDArray[np.bool_], draws: np.random.Generator) -> tuple[int, int]:
    """(row, column) of a pixel of a mask [H, W], each as likely."""
    window, top, left = _window(mask)
    inside = np.flatnonzero(window)
    row, column = np.unravel_index(int(inside[draws.integers(len(inside))]), window.shape)
    return top + int(row), left + int(column)


def _window(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int, int]:
    """The part of a mask inside its tight box, and the row and column where that begins."""
    left, top, right, bottom = (int(side) for side in tight_boxes(mask[None])[0])
    return mask[top:bottom, left:right], top, left


def _one_point_each(places: list[tuple[int, int]]) -> Prompts:
    """Foreground points at the centres of pixels given as (row, column)."""
    points = np.array([[(column + 0.5, row + 0.5)] for row, column in places], dtype=np.float32)
    return Prompts(points=points, labels=np.ones((len(places), 1), dtype=np.int64))
