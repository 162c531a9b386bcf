"""Boxes, points and points of a grid side by side: by image, or by object."""

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
from lora_sam.prompts.everything import EverythingPrompt
from lora_sam.prompts.interface import Kind, PromptSource, by_share
from lora_sam.prompts.points import PointPrompt, PointsPrompt

_BOX, _POINTS, _GRID = 0, 1, 3  # places of `MixedPrompt._weights`

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

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        return by_share(self.point_share)

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
    """For each object a box, points, both, or a point of a grid, drawn for it alone: one image may have them all.

    Images have the background points of the grid where `everything_weight` is not 0.

    Attributes:
        box: How boxes are made.
        points: How points are made.
        everything: How points of a grid are made, on objects and on the background.
        box_weight: How often an object gets a box and no point, in proportion to the other weights.
        points_weight: How often it gets points and no box.
        both_weight: How often it gets both.
        everything_weight: How often it gets a point of the grid and nothing else.
    """

    box: BoxPrompt
    points: PointsPrompt
    everything: EverythingPrompt
    box_weight: Weight
    points_weight: Weight
    both_weight: Weight
    everything_weight: Weight

    def check(self) -> None:
        """Raise `ConfigError` if no kind has a weight."""
        if not any(self._weights):
            raise ConfigError(
                "prompt.box_weight, prompt.points_weight, prompt.both_weight and prompt.everything_weight are all 0: "
                "give at least one a weight"
            )

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        boxes, points, both, grid = self._weights
        box: tuple[Kind, ...] = ("box",) if boxes or both else ()
        point: tuple[Kind, ...] = ("point",) if points or both or grid else ()
        return (*box, *point, *((self.everything.trained_kinds[1:]) if grid else ()))

    @property
    def points_per_side(self) -> int | None:
        """Points along each side of the image, as `EverythingPrompt` has them."""
        return self.everything.points_per_side

    @property
    def background_points(self) -> int:
        """Points per training image that lie on the background."""
        return self.everything.background_points if self.everything_weight else 0

    def background(self, occupied: NDArray[np.bool_], seed: int, epoch: int, sample_id: str) -> NDArray[np.float32]:
        """Those points; see `EverythingPrompt.background`."""
        return self.everything.background(occupied, seed, epoch, sample_id)

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Prompts that depend on (seed, epoch, sample.id)."""
        return self._prompts(
            self._kinds(sample, generator_for(seed, "kinds", epoch, sample.id)),
            lambda: self.box.training_prompts(sample, seed, epoch),
            lambda: self.points.training_prompts(sample, seed, epoch),
            lambda: self.everything.training_prompts(sample, seed, epoch),
        )

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Prompts that depend on (seed, sample.id)."""
        return self._prompts(
            self._kinds(sample, generator_for(seed, "kinds", "evaluation", sample.id)),
            lambda: self.box.evaluation_prompts(sample, seed),
            lambda: self.points.evaluation_prompts(sample, seed),
            lambda: self.everything.evaluation_prompts(sample, seed),
        )

    @property
    def _weights(self) -> tuple[float, float, float, float]:
        return self.box_weight, self.points_weight, self.both_weight, self.everything_weight

    def _kinds(self, sample: Sample, draws: np.random.Generator) -> NDArray[np.intp]:
        """Of each object, the place of its kind in `_weights`."""
        sums = np.cumsum(self._weights)
        return np.searchsorted((sums / sums[-1])[:-1], draws.random(len(sample.object_ids)), side="right")

    def _prompts(
        self,
        kinds: NDArray[np.intp],
        boxes: Callable[[], Prompts],
        points: Callable[[], Prompts],
        grid: Callable[[], Prompts],
    ) -> Prompts:
        on_grid = kinds == _GRID

        def placed() -> Prompts:
            if not on_grid.any():
                return points()
            found = grid()
            if on_grid[kinds != _BOX].all():
                return found
            others = points()
            assert found.points is not None
            assert found.labels is not None
            assert others.points is not None
            assert others.labels is not None
            more = others.points.shape[1] - 1
            return Prompts(
                points=np.where(
                    on_grid[:, None, None], np.pad(found.points, ((0, 0), (0, more), (0, 0))), others.points
                ),
                labels=np.where(
                    on_grid[:, None], np.pad(found.labels, ((0, 0), (0, more)), constant_values=-1), others.labels
                ),
            )

        return side_by_side((kinds != _POINTS) & ~on_grid, kinds != _BOX, boxes, placed)


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
