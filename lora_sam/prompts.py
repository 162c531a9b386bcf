"""Prompts derived from the masks of labelled objects."""

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
