"""A first box or point per object, then clicks and mask prompts where the prediction is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Corrections, Prompts, Sample
from lora_sam.prompts.boxes import BoxPrompt
from lora_sam.prompts.mixed import side_by_side
from lora_sam.prompts.points import PointPrompt


@dataclass(frozen=True, kw_only=True)
class IterativePrompt:
    """A box or a point, corrected in rounds of training by clicks where the prediction is wrong.

    The training algorithm of Segment Anything (Kirillov et al., 2023, appendix A), and of micro-sam: a round adds a
    click drawn uniformly from the error region to the prompts so far, and may give the logits of the round before as
    mask prompt. The loss is the mean over the rounds. Evaluation has the first prompts only.

    Attributes:
        box: How first boxes are made.
        point: How first points are made.
        point_share: Share of the objects that begin with a point, in training and in evaluation.
        rounds: Rounds of training, the first prompt's included.
        mask_prob: How often a later round of an object has the logits of the round before as mask prompt.
        last_without_click: Whether the last round adds no click, and always has the mask prompt: the model learns to
            refine its own masks.
    """

    box: BoxPrompt
    point: PointPrompt
    point_share: Annotated[float, Field(ge=0, le=1)]
    rounds: Annotated[int, Field(ge=1, le=64)]
    mask_prob: Annotated[float, Field(ge=0, le=1)]
    last_without_click: bool

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Prompts of the first round, which depend on (seed, epoch, sample.id)."""
        with_point = generator_for(seed, "first", epoch, sample.id).random(len(sample.masks)) < self.point_share
        return side_by_side(
            ~with_point,
            with_point,
            lambda: self.box.training_prompts(sample, seed, epoch),
            lambda: self.point.training_prompts(sample, seed, epoch),
        )

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Prompts that depend on (seed, sample.id)."""
        with_point = generator_for(seed, "first", "evaluation", sample.id).random(len(sample.masks)) < self.point_share
        return side_by_side(
            ~with_point,
            with_point,
            lambda: self.box.evaluation_prompts(sample, seed),
            lambda: self.point.evaluation_prompts(sample, seed),
        )

    def corrections(self, sample: Sample, seed: int, epoch: int) -> Corrections:
        """The draws for the rounds after the first, which depend on (seed, epoch, sample.id)."""
        draws = generator_for(seed, "corrections", epoch, sample.id)
        shape = len(sample.masks), self.rounds - 1
        places, masks = draws.random(shape), draws.random(shape) < self.mask_prob
        if self.last_without_click:
            places[:, -1:] = np.nan
            masks[:, -1:] = True
        return Corrections(places, masks)
