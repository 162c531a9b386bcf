"""Labelled images drawn on the fly: no files, the same for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Sample
from lora_sam.data.splits import Splits

Count = Annotated[int, Field(ge=1, le=100_000)]


@dataclass(frozen=True, kw_only=True)
class Ellipses:
    """Bright, shaded ellipses on a noisy background, some overlapping: for tests and for trying a configuration.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        side: Height and width of an image in pixels.
        objects: Ellipses in an image.
        max_objects_per_image: Largest number of objects of an image that one training step uses; null for all.
    """

    train: Count
    val: Count
    test: Count
    side: Annotated[int, Field(ge=32, le=4096)]
    objects: Annotated[int, Field(ge=1, le=100)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None

    def open(self, seed: int) -> Splits:
        """The three splits; images are drawn when they are asked for, and differ between splits and seeds."""
        train, val, test = (
            _Drawn(seed, name, getattr(self, name), self.side, self.objects) for name in ("train", "val", "test")
        )
        return Splits(train=train, val=val, test=test, skipped=(), notes=("drawn on the fly, nothing was read",))


@dataclass(frozen=True)
class _Drawn:
    seed: int
    split: str
    count: int
    side: int
    objects: int

    def __len__(self) -> int:
        return self.count

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{self.split}/{index:05d}.png" for index in range(self.count))

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return ((self.side, self.side),) * self.count

    @cached_property
    def object_counts(self) -> tuple[int, ...]:
        return tuple(len(self[index].masks) for index in range(self.count))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = generator_for(self.seed, "ellipses", self.split, index)
        pixels = rng.normal(70, 20, (self.side, self.side, 3))
        pixels += rng.uniform(-30, 30, 3)
        layers = [draw_ellipse(rng, pixels) for _ in range(self.objects)]
        masks = []
        for number, mask in enumerate(layers):  # what a later ellipse covers is not seen
            for cover in layers[number + 1 :]:
                mask = mask & ~cover
            if mask.any():
                masks.append(mask)
        ids = tuple(str(number) for number in range(len(masks)))
        return Sample(self.ids[index], pixels.clip(0, 255).astype(np.uint8), np.stack(masks), ids)


def draw_ellipse(rng: np.random.Generator, pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Draw one ellipse on square `pixels`, float64 [S, S, 3], in place; returns its mask, bool [S, S]."""
    side = len(pixels)
    y, x = np.mgrid[:side, :side]
    centre = rng.uniform(0.15, 0.85, 2) * side
    radii = rng.uniform(0.06, 0.16, 2) * side
    angle = rng.uniform(0, np.pi)
    along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    across = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
    distance = (along / radii[0]) ** 2 + (across / radii[1]) ** 2
    mask: NDArray[np.bool_] = distance < 1
    shade = (1.1 - 0.4 * distance[mask])[:, None]
    pixels[mask] = rng.uniform(120, 230, 3) * shade + rng.normal(0, 12, (int(mask.sum()), 3))
    return mask
