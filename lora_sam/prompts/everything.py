"""Points of a grid: those on objects stand for them, those on the background for nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.scores import MOST_PER_SIDE
from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts.geometry import farthest_pixels, nth_pixel, windows_of
from lora_sam.prompts.interface import Kind

PER_SIDE = (16, 24, 32)
"""Points along each side of an image, of which data chooses."""

ENOUGH = 0.9
"""Share of the objects that a point of the grid lies on, at least."""


@dataclass(frozen=True, kw_only=True)
class EverythingPrompt:
    """The points that masks without a prompt are made of: a grid over the image, each point moved within its cell.

    An object gets one of the points that lie on it, as likely each; an object that the grid misses gets one of its
    pixels. So the predicted IoU of a point on an object learns how good its mask is. Points on the background teach it
    what no object is: there it should be 0, as CellSeg1 trains it (Zhou et al., 2024). What they count for is set in
    the trainer (`background_iou`, `background_mask`). A point on pixels that are neither object nor background
    (`Sample.ignored`) is not used.

    Evaluation puts one point on each object, at the pixel farthest from its edge.

    Attributes:
        points_per_side: Points along each side of the image; null takes 16 for training, and for masks without a prompt
            the fewest of `PER_SIDE` that lie on `ENOUGH` of the training objects.
        jitter: How far a point may lie from the middle of its cell, as a share of half the cell's side: 0 for a regular
            grid, 1 for anywhere in the cell. Drawn anew in every epoch.
        background_points: Points per training image that lie on the background, drawn from those of the grid that do;
            fewer where fewer do. For data whose objects are all labelled.
    """

    points_per_side: Annotated[int, Field(ge=1, le=MOST_PER_SIDE)] | None
    jitter: Annotated[float, Field(ge=0, le=1)]
    background_points: Annotated[int, Field(ge=0, le=256)]

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        return ("point", "everything")

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Points that depend on (seed, epoch, sample.id)."""
        rows, columns = self._grid(sample.size, seed, epoch, sample.id)
        on_objects = sample.masks[:, rows, columns]
        draws = generator_for(seed, "everything", epoch, sample.id).random(len(sample.masks))
        places = []
        for mask, hits, draw in zip(sample.masks, on_objects, draws.tolist(), strict=True):
            (inside,) = hits.nonzero()
            if len(inside):
                one = inside[int(draw * len(inside))]
                places.append((int(rows[one]), int(columns[one])))
            else:
                places.append(nth_pixel(mask, draw))
        return _one_each(places)

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """The pixels farthest from the edges; no draw is involved."""
        del seed
        windows = windows_of(sample)
        middles = farthest_pixels([window for window, _, _ in windows])
        return _one_each(
            [(top + row, left + column) for (_, top, left), (row, column) in zip(windows, middles, strict=True)]
        )

    def background(self, occupied: NDArray[np.bool_], seed: int, epoch: int, sample_id: str) -> NDArray[np.float32]:
        """Points (x, y) of the grid in the middle of pixels that are not occupied, by (seed, epoch, sample id).

        Args:
            occupied: Pixels of all labelled objects of the image, and those that are ignored, bool [H, W].
            seed: Seed of the run.
            epoch: Number of the epoch.
            sample_id: Id of the sample.

        Returns:
            float32 [K, 2], K at most `background_points`.
        """
        height, width = occupied.shape
        rows, columns = self._grid((height, width), seed, epoch, sample_id)
        (free,) = (~occupied[rows, columns]).nonzero()
        draws = generator_for(seed, "background", epoch, sample_id)
        chosen = draws.permutation(free)[: self.background_points]
        return np.stack([columns[chosen], rows[chosen]], axis=1).astype(np.float32) + np.float32(0.5)

    def _grid(
        self, size: tuple[int, int], seed: int, epoch: int, sample_id: str
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of the pixel under each point of the grid, [points_per_side ** 2] each."""
        per_side = self.points_per_side or PER_SIDE[0]
        shares = generator_for(seed, "grid", epoch, sample_id).uniform(-1, 1, (2, per_side, per_side))
        cells = np.arange(per_side)
        down = (cells[:, None] + 0.5 + shares[0] * self.jitter / 2) * (size[0] / per_side)
        across = (cells[None, :] + 0.5 + shares[1] * self.jitter / 2) * (size[1] / per_side)
        rows, columns = (
            np.clip(np.floor(values), 0, limit - 1).astype(np.intp).ravel()
            for values, limit in ((down, size[0]), (across, size[1]))
        )
        return rows, columns


def _one_each(places: list[tuple[int, int]]) -> Prompts:
    """A foreground point for each object in the middle of a pixel (row, column)."""
    points = np.array([[(column + 0.5, row + 0.5)] for row, column in places], np.float32).reshape(-1, 1, 2)
    return Prompts(points=points, labels=np.ones((len(places), 1), np.int64))
