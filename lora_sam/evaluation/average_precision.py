"""COCO's mask average precision of predicted masks, and encoded masks that are small enough to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import rle_of

EncodedMask: TypeAlias = dict[str, Any]
"""A mask as compressed COCO RLE: `{"size": [H, W], "counts": bytes}`, some hundred bytes."""

# COCO's own limit. Images with more objects raise it: each object has its prompt, so none may be left out.
_DETECTIONS = 100

_CATEGORY = 1

_ANY_SIZE = (0.0, 1e10)
# true area in pixels of the original image; what lies on a limit belongs to both (Lin et al., 2014)
_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures for masks, 0 to 1.

    Attributes:
        map: Mean over the ten IoU thresholds 0.50, 0.55, ..., 0.95.
        map_50: At IoU 0.50.
        map_75: At IoU 0.75.
    """

    map: float
    map_50: float
    map_75: float


@dataclass(frozen=True)
class PrecisionAndRecall:
    """COCO's figures for masks of some sizes, 0 to 1; None where no true mask has such a size.

    Attributes:
        precision: Average precision, mean over IoU 0.50 to 0.95: AP.
        recall: Share of the true masks that are found, mean over IoU 0.50 to 0.95: AR.
    """

    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class ImageDetections:
    """What was predicted for one image, and the truth.

    Attributes:
        truth: The M true masks.
        predicted: The N predicted masks; none has to belong to a certain true one.
        scores: Confidence of each prediction, float [N].
        ignored: Pixels that are neither object nor background; None where there are none. A predicted mask that finds
            nothing and has more than half of it there is neither right nor wrong.
    """

    truth: Sequence[EncodedMask]
    predicted: Sequence[EncodedMask]
    scores: NDArray[np.floating[Any]]
    ignored: EncodedMask | None = None


@dataclass(frozen=True)
class Matches:
    """How many predicted masks are right at one IoU, over all images.

    Attributes:
        right: Predicted masks that are a true one.
        wrong: Those that are none, or one that a better one has taken.
        missed: True masks that none found.
    """

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of the predicted masks that are right; 0 where nothing was predicted."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of the true masks that were found."""
        return self.right / max(1, self.right + self.missed)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as StarDist and Cellpose report it: wrong masks count, whatever their score."""
        return self.right / max(1, self.right + self.wrong + self.missed)


def matches(images: Sequence[ImageDetections], level: float = 0.5) -> Matches:
    """Match predicted with true masks, each once, by falling score; a pair has an IoU of at least `level`."""
    right, wrong, missed = sum((match_counts(image, (level,)) for image in images), np.zeros((1, 3), np.int64))[0]
    return Matches(int(right), int(wrong), int(missed))


def match_counts(image: ImageDetections, levels: Sequence[float]) -> NDArray[np.int64]:
    """Right, wrong and missed masks of an image at each of several IoU, int64 [levels, 3]; see `matches`."""
    counts = np.zeros((len(levels), 3), np.int64)
    order = np.argsort(-image.scores, kind="stable")
    predicted = [image.predicted[row] for row in order]
    overlaps = overlaps_of(predicted, image.truth)
    beside = np.zeros(len(predicted), np.bool_)
    if image.ignored is not None:
        beside = share_inside(predicted, image.ignored) > 0.5
    for row, level in enumerate(levels):
        open_, right = np.ones(len(image.truth), np.bool_), np.zeros(len(predicted), np.bool_)
        for place in np.flatnonzero((overlaps >= level).any(axis=1)) if len(image.truth) else ():
            best = int(np.where(open_, overlaps[place], -1).argmax())
            if open_[best] and overlaps[place, best] >= level:
                open_[best], right[place] = False, True
        found = int(np.count_nonzero(right))
        counts[row] = found, int(np.count_nonzero(~right & ~beside)), len(image.truth) - found
    return counts


def overlaps_of(predicted: Sequence[EncodedMask], truth: Sequence[EncodedMask]) -> NDArray[np.float64]:
    """IoU of each of N masks with each of M others, float64 [N, M]."""
    from faster_coco_eval.core import mask as coco_mask

    if not len(predicted) or not len(truth):
        return np.zeros((len(predicted), len(truth)))
    found = np.asarray(coco_mask.iou(list(predicted), list(truth), [False] * len(truth)), np.float64)
    return found.reshape(len(predicted), len(truth))


def share_inside(masks: Sequence[EncodedMask], region: EncodedMask) -> NDArray[np.float64]:
    """Share of each of N masks that lies in a region, float64 [N]; 0 of an empty mask."""
    from faster_coco_eval.core import mask as coco_mask

    if not len(masks):
        return np.zeros(0)
    # of a crowd COCO's overlap is the share of the other mask
    return np.asarray(coco_mask.iou(list(masks), [region], [True]), np.float64).reshape(len(masks))


def encode_masks(masks: NDArray[np.bool_]) -> tuple[EncodedMask, ...]:
    """Masks bool [N, H, W] as COCO RLE."""
    return tuple(rle_of(mask) for mask in masks)


def decode_masks(masks: Sequence[EncodedMask], size: tuple[int, int]) -> NDArray[np.bool_]:
    """What `encode_masks` made of N masks of `size` (height, width): bool [N, H, W]."""
    from faster_coco_eval.core import mask as coco_mask

    found = np.zeros((len(masks), *size), np.bool_)
    for place, mask in enumerate(masks):
        found[place] = coco_mask.decode(mask)
    return found


def pairwise_iou(first: Sequence[EncodedMask], second: Sequence[EncodedMask]) -> NDArray[np.float64]:
    """IoU of each of N masks with the one at the same place of another list, float64 [N]; empty with empty is 1."""
    from faster_coco_eval.core import mask as coco_mask

    assert len(first) == len(second), f"{len(first)} masks and {len(second)}"
    values = np.ones(len(first))
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if int(coco_mask.area(one)) or int(coco_mask.area(other)):
            values[index] = coco_mask.iou([one], [other], [False])[0, 0]
    return values


def average_precision(images: Sequence[ImageDetections]) -> AveragePrecision:
    """Mask average precision of one category, as COCO defines it (Lin et al., 2014; cocodataset.org/#detection-eval).

    Predictions of all images are ranked by score; one is right if an unclaimed true mask overlaps it enough; precision
    is averaged over 101 levels of recall. COCO looks at the 100 predictions of an image with the highest scores; here
    at as many as the image with the most predictions has, if those are more.

    Args:
        images: At least one image with a true mask.
    """
    precision, _, thresholds = _accumulated(images, {"all": _ANY_SIZE})
    found = precision[:, :, 0]
    return AveragePrecision(
        map=float(found.mean()),
        map_50=float(found[np.isclose(thresholds, 0.5)].mean()),
        map_75=float(found[np.isclose(thresholds, 0.75)].mean()),
    )


def precision_and_recall(images: Sequence[ImageDetections]) -> Mapping[str, PrecisionAndRecall]:
    """COCO's average precision and recall for masks of `all` sizes, and `small`, `medium` and `large` ones.

    Sizes are those of the true masks, limits 32² and 96² pixels. As many predictions of an image count as in
    `average_precision`, so AR is that at 100 predictions, or more where an image has more.

    Args:
        images: At least one image with a true mask.
    """
    areas = {"all": _ANY_SIZE, **_SIZES}
    precision, recall, _ = _accumulated(images, areas)
    return {
        # COCO marks what cannot be measured with -1
        name: PrecisionAndRecall(
            *(None if (values == -1).all() else float(values.mean()) for values in (precision[..., k], recall[:, k]))
        )
        for k, name in enumerate(areas)
    }


def _accumulated(
    images: Sequence[ImageDetections], areas: Mapping[str, tuple[float, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision [thresholds of IoU, levels of recall, areas], recall [thresholds of IoU, areas], and the thresholds."""
    from faster_coco_eval import COCO, COCOeval_faster

    most = max(_DETECTIONS, *(len(image.predicted) for image in images))
    truth, predicted = COCO(_dataset(images)), COCO(_dataset(images, predicted=True))
    evaluation = COCOeval_faster(truth, predicted, iouType="segm", print_function=_silent)
    evaluation.params.maxDets = [most]
    evaluation.params.areaRng = [list(limits) for limits in areas.values()]
    evaluation.params.areaRngLbl = list(areas)
    evaluation.evaluate()
    evaluation.accumulate()
    # the axes left out are categories and limits of predictions, one of each
    return (
        np.asarray(evaluation.eval["precision"])[:, :, 0, :, 0],
        np.asarray(evaluation.eval["recall"])[:, 0, :, 0],
        np.asarray(evaluation.params.iouThrs),
    )


def _dataset(images: Sequence[ImageDetections], *, predicted: bool = False) -> dict[str, Any]:
    """A COCO data set in memory: the true masks, or the predicted ones with their scores."""
    from faster_coco_eval.core import mask as coco_mask

    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        masks = image.predicted if predicted else image.truth
        scores = image.scores if predicted else np.ones(len(masks))
        for mask, score in zip(masks, scores, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": _CATEGORY,
                    "iscrowd": 0,
                    "segmentation": mask,
                    "area": float(coco_mask.area(mask)),
                    "bbox": coco_mask.toBbox(mask).tolist(),
                    "score": float(score),
                }
            )
    sizes = [
        (image.truth or image.predicted)[0]["size"] if image.truth or image.predicted else (1, 1) for image in images
    ]
    return {
        "images": [
            {"id": number, "height": int(size[0]), "width": int(size[1])} for number, size in enumerate(sizes, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": _CATEGORY, "name": "object"}],
    }


def _silent(*_: object) -> None:
    """The evaluator reports its steps."""
