"""What a model's scores mean, measured on labelled images: thresholds for its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.predictor import Predictor
from lora_sam.core.scores import MaskChoice, Ranking, Scores
from lora_sam.core.structures import Prompts, Sample
from lora_sam.evaluation.average_precision import EncodedMask, encode_masks, overlaps_of, share_inside
from lora_sam.predictors.automatic import looked_at, masks_of, score_of
from lora_sam.predictors.grid import grid_points
from lora_sam.predictors.suppression import boxes_within, different, stabilities_of, suppress

if TYPE_CHECKING:
    from lora_sam.data.sources import SampleSource

OFFSETS = (0.1, 0.25, 0.5, 1.0)
"""Stability offsets that are tried; 1 is that of Meta's weights."""

LEAST_IOU = tuple(np.round(np.arange(0.05, 0.951, 0.05), 2).tolist())
LEAST_STABILITY = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
GOOD = 0.5
BOX_OVERLAP = 0.7
OVERLAPS = (0.1, 0.3, 0.5, BOX_OVERLAP, 0.9)
"""Overlaps of boxes that are tried, and, with 1, those of masks."""
_AT_ONCE = 8
_IGNORED = 0.5  # a mask with more than this share of it on ignored pixels is neither right nor wrong


@dataclass(frozen=True)
class Candidates:
    """The masks that a grid of points gives on one image, and how they overlap its objects.

    Attributes:
        scores: Predicted IoU, float32 [N].
        stability: At each of `OFFSETS`, float32 [len(OFFSETS), N].
        boxes: XYXY of the masks, float32 [N, 4].
        overlaps: IoU with each of the M true masks, float64 [N, M].
        ignored: Masks that lie mostly on ignored pixels, bool [N]; None for none.
        encoded: The N masks as RLE; empty where no overlap of masks is tried.
    """

    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    boxes: NDArray[np.float32]
    overlaps: NDArray[np.float64]
    ignored: NDArray[np.bool_] | None = None
    encoded: tuple[EncodedMask, ...] = ()


def candidates(
    predictor: Predictor, sample: Sample, points_per_side: int = 16, masks: MaskChoice = "three"
) -> Candidates:
    """The masks of each point of a grid; see `all_candidates`."""
    return all_candidates(predictor, sample, points_per_side, (masks,))[masks]


def all_candidates(
    predictor: Predictor, sample: Sample, points_per_side: int, choices: Sequence[MaskChoice]
) -> dict[MaskChoice, Candidates]:
    """The masks of each point of a grid that some threshold keeps, by which of a point's masks they are.

    Those with a predicted IoU of at most the lowest of `LEAST_IOU` are left out: no setting that is tried shows them.

    Args:
        predictor: The model.
        sample: The image and its objects.
        points_per_side: Points along each side of the image.
        choices: Which masks of a point.
    """
    parts: dict[MaskChoice, list[tuple[NDArray[Any], ...]]] = {choice: [] for choice in choices}
    every: dict[MaskChoice, list[EncodedMask]] = {choice: [] for choice in choices}
    points, truth = grid_points(points_per_side, sample.size), encode_masks(sample.masks)
    crowd = None if sample.ignored is None else encode_masks(sample.ignored[None])[0]

    worth = partial(looked_at, choices=choices, least=LEAST_IOU[0])
    for first in range(0, len(points), _AT_ONCE):
        some = points[first : first + _AT_ONCE, None]
        prompts = Prompts(points=some, labels=np.ones(some.shape[:2], np.int64))
        found = predictor.predict_all(sample.image, prompts, worth=worth)
        good = worth(found.scores)
        for choice in choices:
            kept = masks_of(found.scores.shape[1], choice)
            rows, columns = np.nonzero(good[:, kept])
            logits, scores = found.logits[:, kept][rows, columns], found.scores[:, kept][rows, columns]
            masks = logits > 0
            encoded = encode_masks(masks)
            inside = np.zeros(len(masks)) if crowd is None else share_inside(encoded, crowd)
            overlaps = overlaps_of(encoded, truth)
            stability = stabilities_of(logits, OFFSETS).T
            parts[choice].append((scores, stability, boxes_within(masks), overlaps, inside > _IGNORED))
            every[choice].extend(encoded)
    made: dict[MaskChoice, Candidates] = {}
    for choice, columns_ in parts.items():
        scores, stability, boxes, overlaps, ignored = (np.concatenate(column) for column in zip(*columns_, strict=True))
        stability = np.ascontiguousarray(stability.T)
        made[choice] = Candidates(scores, stability, boxes, overlaps, ignored, tuple(every[choice]))
    return made


def fit_thresholds(images: Sequence[Candidates], masks: MaskChoice = "three") -> tuple[Scores, float]:
    """The thresholds with the best TP / (TP + FP + FN) at IoU 0.5, and that figure, with what else is as it was.

    Of thresholds that are as good, the first: the smallest offset, then the lowest stability and score.

    Args:
        images: Labelled images that were not trained on, at least one.
        masks: Which masks of a point they are.
    """
    # without stability all offsets are the same
    tried = [(number, least) for number, least in product(range(len(OFFSETS)), LEAST_STABILITY) if least or not number]
    settings = [_Setting(number, least, BOX_OVERLAP, "iou") for number, least in tried]
    return _best(images, masks, settings)


def fit_scores(images: Sequence[dict[MaskChoice, Candidates]]) -> tuple[Scores, float]:
    """All that `Scores` has, chosen for the best TP / (TP + FP + FN) at IoU 0.5, and that figure.

    First which masks of a point, offset and stability; then, with these masks and this offset, ranking and overlap of
    boxes; last, with this ranking and stability, how far boxes and masks of two objects overlap.

    Args:
        images: `all_candidates` of labelled images that were not trained on, at least one.
    """
    first = [(choice, *fit_thresholds([image[choice] for image in images], choice)) for choice in images[0]]
    choice, scores, figure = max(first, key=lambda one: one[2])
    number = OFFSETS.index(scores.stability_offset)
    rankings: tuple[Ranking, ...] = ("iou", "iou_stability")
    settings = [
        _Setting(number, least, overlap, ranking)
        for ranking, overlap, least in product(rankings, OVERLAPS, LEAST_STABILITY)
    ]
    chosen = [image[choice] for image in images]
    second = _best(chosen, choice, settings)
    scores, figure = second if second[1] > figure else (scores, figure)
    if any(len(image.encoded) < len(image.scores) for image in chosen):
        return scores, figure
    both = product(OVERLAPS, OVERLAPS)
    settings = [_Setting(number, scores.stability, boxes, scores.ranking, masks) for masks, boxes in both]
    third = _best(chosen, choice, settings)
    return third if third[1] > figure else (scores, figure)


def fitted(
    predictor: Predictor,
    source: SampleSource,
    places: Sequence[int],
    choices: Sequence[MaskChoice],
    *,
    points_per_side: int = 16,
    on_image: Callable[[int, int], None] | None = None,
) -> tuple[Scores, float]:
    """`fit_scores` of a predictor on some samples of a source.

    Args:
        predictor: The model.
        source: Labelled images that were not trained on.
        places: Which of them, at least one.
        choices: Which masks of a point may be chosen.
        points_per_side: Points along each side of the image, kept with the thresholds.
        on_image: Called with (images done, all images) after each image.
    """
    found = []
    for place in places:
        found.append(all_candidates(predictor, source[place], points_per_side, choices))
        if on_image is not None:
            on_image(len(found), len(places))
    scores, figure = fit_scores(found)
    return replace(scores, points_per_side=points_per_side), figure


def found_iou(image: Candidates, scores: Scores) -> NDArray[np.float64]:
    """IoU of each object that is found with these thresholds, 0 for each that is missed and each mask that is none."""
    offset = OFFSETS.index(scores.stability_offset)
    setting = _Setting(offset, scores.stability, scores.box_overlap, scores.ranking, scores.mask_overlap)
    _, wrong, missed = _counts(image, setting)[LEAST_IOU.index(scores.predicted_iou)].tolist()
    kept = _kept(image, setting)
    ranked = score_of(image.scores, image.stability[setting.offset], setting.ranking)
    overlaps = _matched(image.overlaps[kept[ranked[kept] > scores.predicted_iou]])
    return np.concatenate([overlaps[overlaps > 0], np.zeros(wrong + missed)])


@dataclass(frozen=True)
class _Setting:
    """What is tried beside the least score: place of the offset, least stability, overlaps, ranking."""

    offset: int
    stability: float
    overlap: float
    ranking: Ranking
    mask_overlap: float = 1.0


def _best(images: Sequence[Candidates], masks: MaskChoice, settings: Iterable[_Setting]) -> tuple[Scores, float]:
    best, chosen = -1.0, None
    for setting in settings:
        counts = sum((_counts(image, setting) for image in images), np.zeros((len(LEAST_IOU), 3), np.int64))
        figures = counts[:, 0] / np.maximum(1, counts.sum(axis=1))
        place = int(figures.argmax())
        if figures[place] > best:
            best = float(figures[place])
            chosen = Scores(
                predicted_iou=LEAST_IOU[place],
                stability=setting.stability,
                stability_offset=OFFSETS[setting.offset],
                box_overlap=setting.overlap,
                mask_overlap=setting.mask_overlap,
                masks=masks,
                ranking=setting.ranking,
            )
    assert chosen is not None
    return chosen, best


def _counts(image: Candidates, setting: _Setting) -> NDArray[np.int64]:
    """Right, wrong and missed masks at each of `LEAST_IOU`, [thresholds, 3].

    Suppression and matching go by falling score: what a threshold leaves out comes after all that it keeps, and changes
    nothing of it. So one pass serves all thresholds.
    """
    scores = score_of(image.scores, image.stability[setting.offset], setting.ranking)
    kept = _kept(image, setting)
    right = _matched(image.overlaps[kept]) > 0
    counted = right | (True if image.ignored is None else ~image.ignored[kept])
    above = scores[kept][None] > np.array(LEAST_IOU, np.float32)[:, None]
    found = np.count_nonzero(above & right, axis=1)
    shown = np.count_nonzero(above & counted, axis=1)
    return np.stack([found, shown - found, image.overlaps.shape[1] - found], axis=1)


def _kept(image: Candidates, setting: _Setting) -> NDArray[np.intp]:
    """Masks that are left at the lowest score, by falling score."""
    stability = image.stability[setting.offset]
    scores = score_of(image.scores, stability, setting.ranking)
    good = np.flatnonzero((scores > LEAST_IOU[0]) & (stability >= setting.stability))
    kept = good[suppress(image.boxes[good], scores[good], setting.overlap)]
    if setting.mask_overlap == 1:
        return kept
    masks = [image.encoded[place] for place in kept]
    overlaps = overlaps_of(masks, masks)
    return kept[different(lambda place: overlaps[place, place + 1 :], len(kept), setting.mask_overlap)]


def _matched(overlaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of each of N masks, the first first, with the one of M objects that it finds, 0 for none; overlaps [N, M]."""
    open_ = np.ones(overlaps.shape[1], np.bool_)
    right = np.zeros(len(overlaps))
    for row in np.flatnonzero((overlaps >= GOOD).any(axis=1)):
        place = int(np.where(open_, overlaps[row], -1).argmax())
        if overlaps[row, place] >= GOOD and open_[place]:
            open_[place] = False
            right[row] = overlaps[row, place]
    return right
