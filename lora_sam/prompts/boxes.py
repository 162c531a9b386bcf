"""Boxes: tight ones, with sides moved at random as published recipes do, or around the whole image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts.interface import Kind


@dataclass(frozen=True, kw_only=True)
class BoxPrompt:
    """One box per object: its tight box, with sides that may be moved at random, each by its own draw.

    Boxes stay in the image and at least one pixel wide and high. As `length` counts the width of the box for its left
    and right side, and the height for the others. `uniform` draws from +-(jitter_pixels + jitter_fraction * length);
    with a fraction of 0.025 as micro-sam. `integer` draws whole pixels from that range, both ends included; with 10
    pixels as in Todoran's tutorial. `normal` draws from a normal distribution whose standard deviation is
    jitter_fraction of the width (height) of the image, but at most jitter_pixels; with 0.1 and 20 as OpenVINO Training
    Extensions 1.

    Attributes:
        jitter: How the moves are distributed: `uniform`, `integer` or `normal`.
        jitter_pixels: Part of the largest move that is the same for all boxes, in pixels of the original image; of
            `normal`, the largest standard deviation.
        jitter_fraction: Part of the largest move that grows with the box, as a share of its width or height; of
            `normal`, the standard deviation as a share of the image's.
        jitter_evaluation: Whether evaluation moves the sides too, always in the same way for a sample.
    """

    jitter: Literal["uniform", "integer", "normal"]
    jitter_pixels: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    jitter_fraction: Annotated[float, Field(ge=0, le=1)]
    jitter_evaluation: bool

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        return ("box",)

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Boxes that depend on (seed, epoch, sample.id)."""
        return Prompts(boxes=self._jittered(sample, seed, "box", epoch, sample.id))

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Tight boxes; with `jitter_evaluation`, boxes that depend on (seed, sample.id)."""
        if not self.jitter_evaluation:
            return Prompts(boxes=sample.boxes.copy())
        return Prompts(boxes=self._jittered(sample, seed, "box", "evaluation", sample.id))

    def _jittered(self, sample: Sample, *seed_parts: int | str) -> NDArray[np.float32]:
        if not (self.jitter_pixels or self.jitter_fraction):
            return sample.boxes.copy()
        boxes = sample.boxes.astype(np.float64)
        height, width = sample.size
        limits = np.array([width, height])
        boxes += self._moves(boxes, limits, generator_for(*seed_parts))
        corners = np.clip(boxes.reshape(-1, 2, 2), 0, limits)
        # sides that met or crossed: one pixel around where they met
        thin = corners[:, 1] - corners[:, 0] < 1
        low = np.clip(corners.mean(axis=1) - 0.5, 0, limits - 1)
        corners[:, 0] = np.where(thin, low, corners[:, 0])
        corners[:, 1] = np.where(thin, low + 1, corners[:, 1])
        return corners.reshape(-1, 4).astype(np.float32)

    def _moves(
        self, boxes: NDArray[np.float64], limits: NDArray[np.int_], draws: np.random.Generator
    ) -> NDArray[np.float64]:
        """How far each side of boxes [N, 4] moves, in an image of (width, height) `limits`."""
        if self.jitter == "normal":
            deviation = np.tile(np.minimum(self.jitter_fraction * limits, self.jitter_pixels), 2)
            normal: NDArray[np.float64] = draws.standard_normal(boxes.shape) * deviation
            return normal
        largest = self.jitter_pixels + self.jitter_fraction * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        if self.jitter == "integer":
            whole = np.floor(largest).astype(np.int64)
            return draws.integers(-whole, whole, endpoint=True).astype(np.float64)
        uniform: NDArray[np.float64] = draws.uniform(-1, 1, boxes.shape) * largest
        return uniform


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """No prompt but the image: for every object the box around the whole image, in training and in evaluation.

    For images with one object each. Of several objects in an image, all get the same prompt, and the model can learn no
    more than what they share; have their union as one object instead.
    """

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """The box around the image, whatever seed and epoch are."""
        return self.evaluation_prompts(sample, seed)

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """The box around the image."""
        height, width = sample.size
        return Prompts(boxes=np.tile(np.array([0, 0, width, height], np.float32), (len(sample.object_ids), 1)))
