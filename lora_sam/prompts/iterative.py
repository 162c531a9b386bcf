"""A first box or point per object, then clicks and mask prompts where the prediction is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Corrections, Prompts, Sample
from lora_sam.prompts.boxes import BoxPrompt
from lora_sam.prompts.geometry import nth_pixel
from lora_sam.prompts.interface import Kind, by_share
from lora_sam.prompts.mixed import side_by_side
from lora_sam.prompts.points import PointPrompt

Rounds = Annotated[int, Field(ge=1, le=64)]


def most_rounds(prompt: Mapping[str, Any]) -> int:
    """Most rounds in which training corrects the prompts of these saved settings; 1 where it does not."""
    rounds = prompt.get("rounds", 1)
    return max(rounds) if isinstance(rounds, list | tuple) else int(rounds)


@dataclass(frozen=True, kw_only=True)
class IterativePrompt:
    """A box or a point, corrected in rounds of training by clicks where the prediction is wrong.

    The training algorithm of Segment Anything (Kirillov et al., 2023, appendix A), and of micro-sam: a round adds a
    click drawn uniformly from the error region to the prompts so far, and may give the logits of the round before as
    mask prompt. The loss is the mean over the rounds. Evaluation has the first prompts only.

    Points on the background, where no object is labelled, teach the predicted IoU what no object is: their true mask is
    empty. What they count for is set in the trainer (`background_iou`, `background_mask`).

    Attributes:
        box: How first boxes are made.
        point: How first points are made.
        point_share: Share of the objects that begin with a point, in training and in evaluation.
        rounds: Rounds of training, the first prompt's included; of several numbers each image draws one, equally likely
            (one that is named twice is drawn twice as often).
        mask_prob: How often a later round of an object has the logits of the round before as mask prompt.
        idle_prob: How often a later round of an image adds no click, and always has the mask prompt.
        last_without_click: Whether the last round adds no click, and always has the mask prompt: the model learns to
            refine its own masks.
        background_points: Points per training image that lie on no labelled object, prompts of their own with an empty
            mask; for data whose objects are all labelled. Where objects cover the whole image there are none.
    """

    box: BoxPrompt
    point: PointPrompt
    point_share: Annotated[float, Field(ge=0, le=1)]
    rounds: Rounds | Annotated[tuple[Rounds, ...], Field(min_length=1, max_length=64)]
    mask_prob: Annotated[float, Field(ge=0, le=1)]
    idle_prob: Annotated[float, Field(ge=0, le=1)]
    last_without_click: bool
    background_points: Annotated[int, Field(ge=0, le=64)]

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        clicks: tuple[Kind, ...] = ("clicks",) if most_rounds(vars(self)) > 1 else ()
        return (*by_share(self.point_share), *clicks)

    @property
    def mean_rounds(self) -> float:
        """How often an object is decoded, on average."""
        return float(self.rounds) if isinstance(self.rounds, int) else sum(self.rounds) / len(self.rounds)

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Prompts of the first round, which depend on (seed, epoch, sample.id)."""
        with_point = generator_for(seed, "first", epoch, sample.id).random(len(sample.object_ids)) < self.point_share
        return side_by_side(
            ~with_point,
            with_point,
            lambda: self.box.training_prompts(sample, seed, epoch),
            lambda: self.point.training_prompts(sample, seed, epoch),
        )

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Prompts that depend on (seed, sample.id)."""
        with_point = (
            generator_for(seed, "first", "evaluation", sample.id).random(len(sample.object_ids)) < self.point_share
        )
        return side_by_side(
            ~with_point,
            with_point,
            lambda: self.box.evaluation_prompts(sample, seed),
            lambda: self.point.evaluation_prompts(sample, seed),
        )

    def corrections(self, sample: Sample, seed: int, epoch: int) -> Corrections:
        """The draws for the rounds after the first, which depend on (seed, epoch, sample.id)."""
        draws = generator_for(seed, "corrections", epoch, sample.id)
        shape = len(sample.object_ids), self._rounds(sample, seed, epoch) - 1
        places, masks = draws.random(shape), draws.random(shape) < self.mask_prob
        idle = draws.random(shape[1]) < self.idle_prob
        if self.last_without_click:
            idle[-1:] = True
        places[:, idle] = np.nan
        masks[:, idle] = True
        return Corrections(places, masks)

    def background(self, occupied: NDArray[np.bool_], seed: int, epoch: int, sample_id: str) -> NDArray[np.float32]:
        """Points (x, y) in the middle of pixels that no object occupies, which depend on (seed, epoch, sample id).

        Args:
            occupied: Pixels of all labelled objects of the image, bool [H, W].
            seed: Seed of the run.
            epoch: Number of the epoch.
            sample_id: Id of the sample.

        Returns:
            float32 [background_points, 2], or [0, 2] where the whole image is occupied.
        """
        if not self.background_points or occupied.all():
            return np.empty((0, 2), np.float32)
        free, draws = ~occupied, generator_for(seed, "background", epoch, sample_id)
        pixels = [nth_pixel(free, float(place)) for place in draws.random(self.background_points)]
        return np.array([(column + 0.5, row + 0.5) for row, column in pixels], np.float32)

    def _rounds(self, sample: Sample, seed: int, epoch: int) -> int:
        if isinstance(self.rounds, int):
            return self.rounds
        return self.rounds[int(generator_for(seed, "rounds", epoch, sample.id).integers(len(self.rounds)))]
