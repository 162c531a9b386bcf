"""All objects of an image without a prompt: a grid of points, and of their masks the good ones once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.console import note
from lora_sam.core.mask_files import coco_of, labels_of, save_masks
from lora_sam.core.predictor import Predictor
from lora_sam.core.scores import MOST_PER_SIDE, MaskChoice, Ranking, Scores
from lora_sam.core.structures import Prompts
from lora_sam.predictors.grid import grid_points, points_in_holes
from lora_sam.predictors.pictures import pixels_of
from lora_sam.predictors.prompting import size_of
from lora_sam.predictors.suppression import boxes_within, different, iou_of_bits, stability_of, suppress

if TYPE_CHECKING:
    from lora_sam.core.predictor import Picture

_LOGITS_AT_ONCE = 2**25  # of four masks per prompt at the image's size: 128 MiB
_SINGLE = (
    "note: this decoder gives single masks only, and the thresholds are for the three of each point: other masks are "
    "found than by torch; export it again with multimask=true"
)
_OF_FOUR = {"three": slice(1, None), "single": slice(0, 1)}  # places in `AllMasks`


@dataclass(frozen=True, kw_only=True)
class AutomaticMasks:
    """How masks are made of a grid of points.

    Segment Anything (Kirillov et al., 2023), section 4 and appendix B; there are no crops. What is None is that
    of the predictor's weights (`lora_sam.core.scores`): for Meta's weights, of `SamAutomaticMaskGenerator`.

    Attributes:
        points_per_side: Points along each side of the image; all of them are prompts of their own.
        predicted_iou: Masks whose score is not above this are left out; the score is the IoU as predicted by the
            model, or what `ranking` says.
        stability: Masks whose stability is below this are left out.
        stability_offset: Stability is the IoU of the mask at the logits +offset and -offset.
        box_overlap: Of two masks whose boxes have a higher IoU, that with the lower score is left out.
        mask_overlap: Of the masks that are left then, two with a higher IoU are one object: that with the lower score
            is left out. Segment Anything compares boxes alone, which specks beside an object pull apart.
        masks: Which masks of a point are looked at: the `three` for ambiguous prompts, or the `single` one.
        ranking: The score: predicted IoU (`iou`), or its product with stability (`iou_stability`).
        holes_per_side: Points along each side of a second grid, tried only where no mask of the first is left: objects
            that lie between points of a coarse grid are found for less than a fine one takes. None for no second grid.
    """

    points_per_side: Annotated[int, Field(ge=1, le=MOST_PER_SIDE)] | None = None
    predicted_iou: Annotated[float, Field(ge=0, le=1)] | None = None
    stability: Annotated[float, Field(ge=0, le=1)] | None = None
    stability_offset: Annotated[float, Field(ge=0)] | None = None
    box_overlap: Annotated[float, Field(ge=0, le=1)] | None = None
    mask_overlap: Annotated[float, Field(ge=0, le=1)] | None = None
    masks: MaskChoice | None = None
    ranking: Ranking | None = None
    holes_per_side: Annotated[int, Field(ge=1, le=MOST_PER_SIDE)] | None = None

    def generate(
        self, predictor: Predictor, image: Picture, *, on_points: Callable[[int, int], None] | None = None
    ) -> FoundMasks:
        """The masks that are left, by falling score.

        Args:
            predictor: Any predictor that offers four masks per prompt.
            image: As `pixels_of` takes it: RGB, uint8 [H, W, 3], a path, a picture of Pillow, or a tensor.
            on_points: Called with (points done, all points so far) after each part; a second grid comes on top.

        Raises:
            DataError: the image is not uint8 RGB, or cannot be read.
        """
        pixels = pixels_of(image)
        # all points of an image go through one adapter, whatever another thread chooses meanwhile
        predictor = getattr(predictor, "current", predictor)
        size, least = size_of(pixels), self.completed(predictor.scores)
        parts: list[_Part] = []

        def tried(points: NDArray[np.float32]) -> _Part:
            """What is left of all points so far."""
            count = len(points) + sum(part.tried for part in parts)
            for some in _parts(points, size):
                parts.append(self._filtered(predictor, pixels, some, least))
                if on_points is not None:
                    on_points(sum(part.tried for part in parts), count)
            return _joined(parts, least)

        best = tried(grid_points(least.points_per_side, size))
        if self.holes_per_side is not None:
            holes = points_in_holes(self.holes_per_side, best.masks(size), least.points_per_side)
            best = tried(holes) if len(holes) else best
        why = None if len(best.scores) else _why_nothing(best, least)
        return FoundMasks(best.masks(size), best.scores, best.stability, best.points, best.predicted, why)

    def completed(self, scores: Scores) -> Scores:
        """The thresholds that are set, and those of some weights for the others."""
        set_ = {name: value for name in vars(scores) if (value := getattr(self, name)) is not None}
        return replace(scores, **set_)

    def _filtered(
        self, predictor: Predictor, image: NDArray[np.uint8], points: NDArray[np.float32], least: Scores
    ) -> _Part:
        prompts = Prompts(points=points[:, None], labels=np.ones((len(points), 1), np.int64))

        def worth(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
            # stability is at most 1: what is left out here has no score above the threshold either
            return looked_at(scores, (least.masks,), least.predicted_iou)

        found = predictor.predict_all(image, prompts, worth=worth)
        if found.scores.shape[1] == 1 and least.masks == "three":
            note(_SINGLE)
        rows, columns = np.nonzero(worth(found.scores))
        logits, predicted, places = found.logits[rows, columns], found.scores[rows, columns], points[rows]
        best = float(found.scores[:, masks_of(found.scores.shape[1], least.masks)].max())
        stability = stability_of(logits, least.stability_offset)
        scores = score_of(predicted, stability, least.ranking)
        high = _above(scores, least.predicted_iou)
        stable = np.flatnonzero(high & (stability >= least.stability))
        masks = logits[stable] > 0
        return _Part(
            tried=len(points),
            best_score=float(scores.max()) if len(scores) else best,
            best_stability=float(stability[high].max(initial=-1)),
            packed=np.packbits(masks.reshape(len(masks), masks.shape[1] * masks.shape[2]), axis=1),
            scores=scores[stable],
            predicted=predicted[stable],
            stability=stability[stable],
            boxes=boxes_within(masks),
            points=places[stable],
        )


@dataclass(frozen=True)
class FoundMasks:
    """Masks that were found without a prompt.

    Attributes:
        masks: bool [N, H, W].
        scores: What ranks the masks, float32 [N], falling: predicted IoU, or what `AutomaticMasks.ranking` says.
        stability: See `AutomaticMasks`, float32 [N].
        points: The grid point (x, y) that gave each mask, float32 [N, 2].
        predicted_iou: IoU as predicted by the model, float32 [N].
        nothing: Where there is no mask: why, and what to change, in one line. None where there is one.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    points: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    nothing: str | None = None

    def save(self, path: str | PathLike[str], *, name: str = "image.png", classes: Sequence[str] | None = None) -> Path:
        """See `Masks.save`."""
        return save_masks(path, self.masks, self.scores, name, classes)

    def to_coco(self, *, name: str = "image.png", classes: Sequence[str] | None = None) -> dict[str, Any]:
        """See `Masks.to_coco`."""
        return coco_of(self.masks, self.scores, name, classes)

    def to_labels(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """See `Masks.to_labels`."""
        return labels_of(self.masks, self.scores)


@dataclass(frozen=True)
class _Part:
    """What is left of some points; masks as bits, since a whole grid of them would take gigabytes."""

    tried: int
    best_score: float
    best_stability: float
    packed: NDArray[np.uint8]
    scores: NDArray[np.float32]
    predicted: NDArray[np.float32]
    stability: NDArray[np.float32]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]

    def masks(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """bool [N, H, W]."""
        bits = np.unpackbits(self.packed, axis=1, count=size[0] * size[1])
        return bits.reshape(len(bits), *size).astype(np.bool_)


def _joined(parts: Sequence[_Part], least: Scores) -> _Part:
    """What is left of several parts together: each object once, by falling score."""
    every = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("packed", "scores", "predicted", "stability", "boxes", "points")
    }
    kept = suppress(every["boxes"], every["scores"], least.box_overlap)
    if least.mask_overlap < 1:
        iou_of = partial(iou_of_bits, every["packed"][kept], every["boxes"][kept])
        kept = kept[different(iou_of, len(kept), least.mask_overlap)]
    return _Part(
        tried=sum(part.tried for part in parts),
        best_score=max(part.best_score for part in parts),
        best_stability=max(part.best_stability for part in parts),
        **{name: values[kept] for name, values in every.items()},
    )


def masks_of(count: int, choice: MaskChoice) -> slice:
    """Places of the masks that a point gives, among `count` that a model offers; all of one."""
    return _OF_FOUR[choice] if count > 1 else slice(None)


def score_of(
    predicted_iou: NDArray[np.float32], stability: NDArray[np.float32], ranking: Ranking
) -> NDArray[np.float32]:
    """What ranks masks, [N]."""
    return predicted_iou if ranking == "iou" else predicted_iou * stability


def looked_at(scores: NDArray[np.float32], choices: Sequence[MaskChoice], least: float) -> NDArray[np.bool_]:
    """Which of N x M masks are among those that are chosen, and above a threshold of predicted IoU; bool [N, M]."""
    found = np.zeros(scores.shape, np.bool_)
    for choice in choices:
        places = masks_of(scores.shape[1], choice)
        found[:, places] = _above(scores[:, places], least)
    return found


def _above(scores: NDArray[np.float32], least: float) -> NDArray[np.bool_]:
    """Which scores are above a threshold; all are where it is 0."""
    return scores > least if least > 0 else np.ones(scores.shape, np.bool_)


def _why_nothing(best: _Part, least: Scores) -> str:
    """Why no mask is left of any point, and what to change."""
    points, score, stability = best.tried, best.best_score, best.best_stability
    what = "predicted IoU" if least.ranking == "iou" else "predicted IoU times stability"
    if stability < 0:
        return (
            f"no mask was found: the highest {what} from {points:,} points is {score:.2f}, and masks are kept above "
            f"{least.predicted_iou:.2f}. Set predicted_iou lower, give more points_per_side, or tune with "
            "prompt=everything on images like this one."
        )
    return (
        f"no mask was found: of those from {points:,} points with enough {what}, the highest stability is "
        f"{stability:.2f}, and {least.stability:.2f} is asked for. Set stability lower, or give more points_per_side."
    )


def _parts(points: NDArray[np.float32], size: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    step = max(1, min(64, _LOGITS_AT_ONCE // (4 * size[0] * size[1])))
    for start in range(0, len(points), step):
        yield points[start : start + step]
