"""What a model's predicted IoU means: lines from it to the actual one, fitted on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.predictor import Predictor
from lora_sam.core.structures import Prompts, Sample
from lora_sam.evaluation.metrics import mask_iou

SLOPES = 0.25, 4.0
"""Least and largest slope of a line: beyond, the head knows nothing, and a line would only hide that."""


def line_of(predicted: NDArray[np.floating[Any]], actual: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """(slope, offset) of the line through predicted and actual IoU [N] with the least squared error.

    Where predicted IoU says nothing about the actual one, the slope stays within `SLOPES` and the means agree.
    """
    predicted, actual = predicted.astype(np.float64), actual.astype(np.float64)
    spread = float(predicted.var())
    slope = float(np.cov(predicted, actual, bias=True)[0, 1] / spread) if spread > 1e-12 else 1.0
    slope = float(np.clip(slope, *SLOPES))
    return slope, float(actual.mean() - slope * predicted.mean())


def fit_lines(
    pairs: Sequence[tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]],
) -> list[tuple[float, float]]:
    """Four lines (slope, offset), from predicted and actual IoU [N, 4] of several images or kinds of prompts.

    The single mask has its `line_of`. The three for ambiguous prompts share one: with a line each, another of the three
    could become the best, and the order is what the model learned.
    """
    predicted, actual = (np.concatenate(column) for column in zip(*pairs, strict=True))
    several = line_of(predicted[:, 1:].ravel(), actual[:, 1:].ravel())
    return [line_of(predicted[:, 0], actual[:, 0]), several, several, several]


def predicted_and_actual(
    predictor: Predictor, sample: Sample, prompts: Iterable[Prompts]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Predicted and actual IoU of all masks of several sets of prompts for the N objects of a sample, [sets * N, 4]."""
    predicted, actual = [], []
    for one in prompts:
        for row in range(len(one)):  # four masks of every object at once would take gigabytes
            found = predictor.predict_all(sample.image, one[row : row + 1])
            masks = found.logits[0] > 0
            predicted.append(found.scores[0])
            actual.append(mask_iou(masks, np.broadcast_to(sample.masks[row], masks.shape)))
    return np.stack(predicted), np.stack(actual)
