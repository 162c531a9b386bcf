"""Simulated clicking: how many corrections an object takes until its mask is good enough (NoC)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Prompts, Sample
from lora_sam.evaluation.further_rows import MOST_CLICKS
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.prompts.clicks import next_click

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor


def iou_after_clicks(
    predictor: Predictor, sample: Sample, *, most: int = MOST_CLICKS, until: float = 0.9
) -> NDArray[np.float64]:
    """Click on every object until its mask reaches an IoU, as in Sofiiuk et al. (2021, RITM).

    The first click is the middle of the object, each further one the middle of the largest part of what is still
    wrong, foreground or background. The model gets all clicks so far and its last mask, as `mask_inputs`. An object
    that has reached `until` is clicked no more and keeps its IoU. Each object is clicked apart from the others.

    Args:
        predictor: What answers the clicks.
        sample: The image and its N objects.
        most: Clicks after which an object is given up.
        until: IoU at which an object is done.

    Returns:
        IoU after each click, [N, most].
    """
    count = len(sample.masks)
    history = np.zeros((count, most))
    points = np.zeros((count, most, 2), np.float32)
    labels = np.zeros((count, most), np.int64)
    masks = np.zeros_like(sample.masks)
    low_res: NDArray[np.float32] | None = None
    going = np.arange(count)
    for turn in range(most):
        for row in going:
            click = next_click(masks[row], sample.masks[row], clicked=points[row, :turn])
            points[row, turn], labels[row, turn] = (click.x, click.y), click.label
        known = slice(turn + 1)
        prompts = Prompts(points=points[going, known], labels=labels[going, known], mask_inputs=low_res)
        found = predictor.predict(sample.image, prompts)
        masks[going] = found.masks
        iou = mask_iou(found.masks, sample.masks[going])
        history[going, turn:] = iou[:, None]
        better = iou < until
        going, low_res = going[better], found.low_res_logits[better]
        if not len(going):
            break
    return history


def clicks_to_reach(iou: NDArray[np.floating[Any]], level: float) -> NDArray[np.int64]:
    """Number of clicks (NoC) after which each object first has an IoU of at least `level`.

    Args:
        iou: IoU after each click, [N, most].
        level: The IoU to reach.

    Returns:
        [N]; `most` for an object that never gets there, as is the custom.
    """
    reached: NDArray[np.bool_] = iou >= level
    first: NDArray[np.int64] = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, iou.shape[1])
    return first
