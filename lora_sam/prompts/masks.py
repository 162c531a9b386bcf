"""Rough masks as prompts: the true mask as an earlier, imperfect prediction might have been."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts.boxes import BoxPrompt
from lora_sam.prompts.interface import Kind, by_share
from lora_sam.prompts.mixed import side_by_side
from lora_sam.prompts.points import PointPrompt

_FULL = 255
_CELL = 4


@dataclass(frozen=True, kw_only=True)
class MaskPrompt:
    """A box or a point per object, and for some a rough mask beside it, as logits at low resolution.

    The mask is the true one, averaged over cells of the low resolution, blurred, its contour shifted inwards or
    outwards, and with noise on its logits around the object.

    Attributes:
        box: How boxes are made.
        point: How points are made.
        point_share: Share of the objects that have a point instead of a box, in training and in evaluation.
        mask_prob: Share of the objects that have a mask too, in training and in evaluation.
        side: Cells along the longer side of the image: 256 is what SAM's prompt encoder takes at 1024 pixels; other
            models get the mask scaled.
        blur: Standard deviation of the blur in cells; it also limits how far contours can shift.
        shift: Largest shift of the contour, a uniform draw for every object, in standard deviations of the blur; where
            it is positive, half of the contours move outwards.
        gain: Logit inside the object; outside it is the negative.
        noise: Standard deviation of noise on the logits, one draw for 4 x 4 cells.
    """

    box: BoxPrompt
    point: PointPrompt
    point_share: Annotated[float, Field(ge=0, le=1)]
    mask_prob: Annotated[float, Field(ge=0, le=1)]
    side: Annotated[int, Field(ge=16, le=1024)]
    blur: Annotated[float, Field(ge=0, le=32)]
    shift: Annotated[float, Field(ge=0, le=2)]
    gain: Annotated[float, Field(gt=0, le=100)]
    noise: Annotated[float, Field(ge=0, le=100)]

    @property
    def trained_kinds(self) -> tuple[Kind, ...]:
        """See `lora_sam.prompts.interface.trained_kinds`."""
        return by_share(self.point_share)

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """Prompts that depend on (seed, epoch, sample.id)."""
        return self._with_masks(
            sample,
            generator_for(seed, "masks", epoch, sample.id),
            lambda: self.box.training_prompts(sample, seed, epoch),
            lambda: self.point.training_prompts(sample, seed, epoch),
        )

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """Prompts that depend on (seed, sample.id)."""
        return self._with_masks(
            sample,
            generator_for(seed, "masks", "evaluation", sample.id),
            lambda: self.box.evaluation_prompts(sample, seed),
            lambda: self.point.evaluation_prompts(sample, seed),
        )

    def _with_masks(
        self,
        sample: Sample,
        draws: np.random.Generator,
        boxes: Callable[[], Prompts],
        points: Callable[[], Prompts],
    ) -> Prompts:
        count = len(sample.object_ids)
        with_point, with_mask = draws.random(count) < self.point_share, draws.random(count) < self.mask_prob
        prompts = side_by_side(~with_point, with_point, boxes, points)
        if not with_mask.any():
            return prompts
        return replace(prompts, mask_inputs=self._rough(sample, with_mask, draws), masks_padded=True)

    def _rough(self, sample: Sample, wanted: NDArray[np.bool_], draws: np.random.Generator) -> NDArray[np.float32]:
        """Logits [N, side, side] in a frame with padding for the objects that are wanted."""
        masks = sample.masks
        cell = max(masks.shape[1:]) / self.side  # pixels
        rough = np.zeros((len(masks), self.side, self.side), np.float32)
        rough[~wanted, 0, 0] = np.nan
        # far enough around the object that what the blur leaves of it is less than a thousandth
        border = int(3 * self.blur) + 1
        boxes = np.floor(sample.boxes / cell).astype(np.intp)
        starts = np.maximum(boxes[:, :2] - border, 0)
        stops = np.minimum(boxes[:, 2:] + 1 + border, self.side)
        levels = 0.5 + 0.5 * _share_below(draws.uniform(-self.shift, self.shift, len(masks)))
        for row in np.flatnonzero(wanted):
            (left, top), (right, bottom) = starts[row].tolist(), stops[row].tolist()
            soft = _averaged(masks[row], (left, top, right, bottom), cell, self.blur)
            # a level other than one half moves the contour, and rough masks stay masks: 1 and 0 are kept
            logits = self.gain * np.interp(soft, (0.0, 1 - levels[row], 1.0), (-1.0, 0.0, 1.0))
            if self.noise:
                blocks = draws.standard_normal((-(-(bottom - top) // _CELL), -(-(right - left) // _CELL)))
                noise = blocks.repeat(_CELL, axis=0).repeat(_CELL, axis=1)[: bottom - top, : right - left]
                logits += self.noise * noise
            rough[row] = -self.gain
            rough[row, top:bottom, left:right] = logits
        return rough


def _share_below(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a blurred straight edge is crossed so many standard deviations from the middle, -1 to 1."""
    share: NDArray[np.float64] = np.tanh(deviations * np.sqrt(2 / np.pi))  # close to the error function
    return share


def _averaged(
    mask: NDArray[np.bool_], window: tuple[int, int, int, int], cell: float, blur: float
) -> NDArray[np.float64]:
    """The share of each cell in a window (left, top, right, bottom, in cells) that is mask, blurred; 1 at most."""
    left, top, right, bottom = window
    first_row, first_column = int(top * cell), int(left * cell)
    part = mask[first_row : math.ceil(bottom * cell), first_column : math.ceil(right * cell)]
    # the frame goes on where the image ends
    missing = (
        math.ceil(bottom * cell) - first_row - part.shape[0],
        math.ceil(right * cell) - first_column - part.shape[1],
    )
    if any(missing):
        part = np.pad(part, ((0, missing[0]), (0, missing[1])))
    place = left * cell - first_column, top * cell - first_row, right * cell - first_column, bottom * cell - first_row
    whole = Image.fromarray(part.view(np.uint8) * np.uint8(_FULL))
    small = whole.resize((right - left, bottom - top), Image.Resampling.BOX, place)
    # an object thinner than a cell, or than the blur, is whole where it is most
    if 0 < (peak := int(np.asarray(small).max())) < _FULL:
        small = Image.fromarray((np.asarray(small) * (_FULL / peak)).astype(np.uint8))
    soft = np.array(small.filter(ImageFilter.GaussianBlur(blur)), np.float64)
    soft /= max(1.0, float(soft.max()))
    return soft
