"""Boxes and points side by side: by image, or by object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts.boxes import BoxPrompt
from lora_sam.prompts.interface import PromptSource
from lora_sam.prompts.points import PointPrompt, PointsPrompt

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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


@dataclass(frozen=True, kw_only=True)
class MixedPrompt:
    """For each object a box, points, or both, drawn for the object alone: one image may have them all.

    Attributes:
        box: How boxes are made.
        points: How points are made.
        box_weight: How often an object gets a box and no point, in proportion to the other weights.
        points_weight: How often it gets points and no box.
        both_weight: How often it gets both.
    """

    box: BoxPrompt
    points: PointsPrompt
    box_weight: Weight
    points_weight: Weight
    both_weight: Weight

    def check(self) -> None:
        """Raise `ConfigError` if no kind has a weight."""
        if not self.box_weight + self.points_weight + self.both_weight > 0:
            raise ConfigError(
                "prompt.box_weight, prompt.points_weight and prompt.both_weight are all 0: give at least one a weight"
            )

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Prompts that depend on (seed, epoch, sample.id)."""
        with_box, with_points = self._kinds(sample, generator_for(seed, "kinds", epoch, sample.id))
        return side_by_side(
            with_box,
            with_points,
            lambda: self.box.training_prompts(sample, seed, epoch),
            lambda: self.points.training_prompts(sample, seed, epoch),
        )

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Prompts that depend on (seed, sample.id)."""
        with_box, with_points = self._kinds(sample, generator_for(seed, "kinds", "evaluation", sample.id))
        return side_by_side(
            with_box,
            with_points,
            lambda: self.box.evaluation_prompts(sample, seed),
            lambda: self.points.evaluation_prompts(sample, seed),
        )

    def _kinds(self, sample: Sample, draws: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which objects get a box, and which get points."""
        weights = np.array([self.box_weight, self.points_weight, self.both_weight])
        kinds = np.searchsorted(np.cumsum(weights / weights.sum())[:2], draws.random(len(sample.masks)), side="right")
        return kinds != 1, kinds != 0


def side_by_side(
    with_box: NDArray[np.bool_],
    with_points: NDArray[np.bool_],
    boxes: Callable[[], Prompts],
    points: Callable[[], Prompts],
) -> Prompts:
    """Boxes for some of N objects and points for some, as `Prompts` describes it; what none has is not made.

    Args:
        with_box: Which objects have a box, bool [N].
        with_points: Which objects have points, bool [N]; those without a box at least.
        boxes: Makes boxes for all N.
        points: Makes points for all N.
    """
    if not with_points.any():
        return boxes()
    placed = points()
    if not with_box.any():
        return placed
    drawn = boxes()
    assert drawn.boxes is not None
    assert placed.points is not None
    assert placed.labels is not None
    return Prompts(
        boxes=np.where(with_box[:, None], drawn.boxes, np.float32(np.nan)),
        points=np.where(with_points[:, None, None], placed.points, np.float32(0)),
        labels=np.where(with_points[:, None], placed.labels, -1),
    )
