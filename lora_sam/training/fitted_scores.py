"""What a model's scores mean, measured on labelled images: lines for its predicted IoU, thresholds for its masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.predictor import Predictor
from lora_sam.core.scores import Scores
from lora_sam.core.structures import Prompts, Sample
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.predictors.automatic import boxes_within, grid_points, stability_of, suppress

OFFSETS = (0.1, 0.25, 0.5, 1.0)
"""Stability offsets that are tried; 1 is that of Meta's weights."""

LEAST_IOU = tuple(np.round(np.arange(0.05, 0.951, 0.05), 2).tolist())
LEAST_STABILITY = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
GOOD = 0.5
BOX_OVERLAP = 0.7
_AT_ONCE = 8
SLOPES = 0.25, 4.0
"""Least and largest slope of a line: beyond, the head knows nothing, and a line would only hide that."""


@dataclass(frozen=True)
class Candidates:
    """All masks that a grid of points gives on one image, and how they overlap its objects.

    Attributes:
        scores: Predicted IoU, float32 [N].
        stability: At each of `OFFSETS`, float32 [len(OFFSETS), N].
        boxes: XYXY of the masks, float32 [N, 4].
        overlaps: IoU with each of the M true masks, float64 [N, M].
    """

    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    boxes: NDArray[np.float32]
    overlaps: NDArray[np.float64]


def candidates(predictor: Predictor, sample: Sample, points_per_side: int = 16) -> Candidates:
    """The three masks for ambiguous prompts of each point of a grid, none left out."""
    parts: list[tuple[NDArray[Any], ...]] = []
    points = grid_points(points_per_side, sample.size)
    for first in range(0, len(points), _AT_ONCE):
        some = points[first : first + _AT_ONCE, None]
        found = predictor.predict_all(sample.image, Prompts(points=some, labels=np.ones(some.shape[:2], np.int64)))
        kept = slice(1, None) if found.scores.shape[1] > 1 else slice(None)
        logits, scores = found.logits[:, kept].reshape(-1, *sample.size), found.scores[:, kept].reshape(-1)
        masks = logits > 0
        overlaps = np.stack([mask_iou(masks, np.broadcast_to(true, masks.shape)) for true in sample.masks], axis=1)
        stability = np.stack([stability_of(logits, offset) for offset in OFFSETS])
        parts.append((scores, stability.T, boxes_within(masks), overlaps))
    scores, stability, boxes, overlaps = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Candidates(scores, np.ascontiguousarray(stability.T), boxes, overlaps)


def fit_thresholds(images: Sequence[Candidates]) -> tuple[Scores, float]:
    """The thresholds with the best TP / (TP + FP + FN) at IoU 0.5, and that figure.

    Of thresholds that are as good, the first: the smallest offset, then the lowest predicted IoU and stability.

    Args:
        images: Labelled images that were not trained on, at least one.
    """
    best, chosen = -1.0, None
    for (number, offset), iou, stability in product(enumerate(OFFSETS), LEAST_IOU, LEAST_STABILITY):
        if stability == 0 and number:  # without stability all offsets are the same
            continue
        right = wrong = missed = 0
        for image in images:
            good = np.flatnonzero((image.scores > iou) & (image.stability[number] >= stability))
            kept = good[suppress(image.boxes[good], image.scores[good], BOX_OVERLAP)]
            found = _matched(image.overlaps[kept])
            right, wrong = right + found, wrong + len(kept) - found
            missed += image.overlaps.shape[1] - found
        figure = right / max(1, right + wrong + missed)
        if figure > best:
            best = figure
            chosen = Scores(predicted_iou=iou, stability=stability, stability_offset=offset)
    assert chosen is not None
    return chosen, best


def _matched(overlaps: NDArray[np.float64]) -> int:
    """How many of M true masks are found by N predicted ones, overlaps [N, M], the first predicted ones first."""
    open_ = np.ones(overlaps.shape[1], np.bool_)
    for row in overlaps:
        place = int(np.where(open_, row, -1).argmax())
        if row[place] >= GOOD and open_[place]:
            open_[place] = False
    return int(np.count_nonzero(~open_))


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
    """`line_of` each of the four masks, from predicted and actual IoU [N, 4] of several images or kinds of prompts."""
    predicted, actual = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return [line_of(predicted[:, mask], actual[:, mask]) for mask in range(predicted.shape[1])]


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
