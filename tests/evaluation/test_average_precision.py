"""Mask average precision against pycocotools, and by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lora_sam.evaluation.average_precision import (
    AveragePrecision,
    ImageDetections,
    PrecisionAndRecall,
    average_precision,
    decode_masks,
    encode_masks,
    matches,
    pairwise_iou,
    precision_and_recall,
)


def square(top: int, left: int, side: int, size: tuple[int, int] = (60, 80)) -> NDArray[np.bool_]:
    mask = np.zeros(size, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def detections(truth: list[Any], predicted: list[Any], scores: list[float]) -> ImageDetections:
    empty = np.zeros((0, 60, 80), np.bool_)
    return ImageDetections(
        truth=encode_masks(np.stack(truth) if truth else empty),
        predicted=encode_masks(np.stack(predicted) if predicted else empty),
        scores=np.array(scores, np.float32),
    )


def random_images(rng: np.random.Generator, images: int, objects: int, *, ties: bool) -> list[ImageDetections]:
    """Squares, and the same squares moved by a few pixels; some lost, some empty, some too many."""
    made = []
    for _ in range(images):
        places = rng.integers(0, [50, 70], (objects, 2))
        sides = rng.integers(3, 14, objects)
        truth = [square(top, left, side) for (top, left), side in zip(places, sides, strict=True)]
        moved = places + rng.integers(0, 3, places.shape)
        predicted = [square(top, left, side) for (top, left), side in zip(moved, sides, strict=True)]
        predicted[0] = np.zeros_like(predicted[0])
        scores = rng.uniform(0, 1, objects)
        made.append(detections(truth, predicted, list(np.round(scores, 1) if ties else scores)))
    return made


def evaluated_by_pycocotools(images: list[ImageDetections], size: tuple[int, int]) -> dict[str, NDArray[np.float64]]:
    """The reference implementation, through its own JSON-like interface: tables of precision and recall."""
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
    results = []
    for number, image in enumerate(images, 1):
        truth["images"].append({"id": number, "height": size[0], "width": size[1]})
        for mask in image.truth:
            entry = {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            area = float(coco_mask.area(mask))
            truth["annotations"].append({**entry, "segmentation": dict(mask), "area": area})
        for mask, score in zip(image.predicted, image.scores, strict=True):
            results.append({"image_id": number, "category_id": 1, "segmentation": dict(mask), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.params.maxDets = [1, 10, max(100, *(len(image.predicted) for image in images))]
        evaluation.evaluate()
        evaluation.accumulate()
    return {
        "precision": evaluation.eval["precision"][:, :, 0, :, -1],
        "recall": evaluation.eval["recall"][:, 0, :, -1],
    }


def by_pycocotools(images: list[ImageDetections]) -> AveragePrecision:
    precision = evaluated_by_pycocotools(images, (60, 80))["precision"][:, :, 0]
    return AveragePrecision(precision.mean(), precision[0].mean(), precision[5].mean())


@pytest.mark.parametrize(("images", "objects", "ties"), [(1, 5, False), (7, 12, False), (7, 12, True), (3, 130, True)])
def test_equal_to_pycocotools(images: int, objects: int, ties: bool) -> None:
    made = random_images(np.random.default_rng([images, objects, ties]), images, objects, ties=ties)
    ours, reference = average_precision(made), by_pycocotools(made)
    assert 0.02 < reference.map < reference.map_50 < 1
    assert ours.map == pytest.approx(reference.map, abs=1e-6)
    assert ours.map_50 == pytest.approx(reference.map_50, abs=1e-6)
    assert ours.map_75 == pytest.approx(reference.map_75, abs=1e-6)


def test_perfect_and_hopeless() -> None:
    truth = [square(5, 5, 10), square(30, 40, 12)]
    assert average_precision([detections(truth, truth, [0.3, 0.9])]) == AveragePrecision(1, 1, 1)
    elsewhere = [square(20, 20, 5), square(45, 5, 5)]
    assert average_precision([detections(truth, elsewhere, [0.3, 0.9])]) == AveragePrecision(0, 0, 0)
    assert average_precision([detections(truth, [], [])]) == AveragePrecision(0, 0, 0)


def test_thresholds_of_iou() -> None:
    # 10 x 8 of 10 x 10 pixels: IoU 0.8, right at 0.50 to 0.80, which are 7 of 10 thresholds
    truth, predicted = square(5, 5, 10), square(5, 5, 10)
    predicted[13:] = False
    result = average_precision([detections([truth], [predicted], [0.5])])
    assert result == AveragePrecision(pytest.approx(0.7), 1, 1)


def test_scores_decide_the_ranking() -> None:
    truth, wrong = square(5, 5, 10), square(40, 40, 10)
    first = average_precision([detections([truth], [truth, wrong], [0.9, 0.1])])
    last = average_precision([detections([truth], [truth, wrong], [0.1, 0.9])])
    assert (first.map, last.map) == (1, pytest.approx(0.5))


def test_more_objects_than_cocos_limit_all_count() -> None:
    truth = [square(2 * (index // 40) * 4, 2 * (index % 40), 2) for index in range(150)]
    image = detections(truth, truth, list(np.linspace(0.1, 0.9, 150)))
    assert average_precision([image]).map == 1


def test_encoding_keeps_every_pixel() -> None:
    masks = np.random.default_rng(0).random((4, 60, 80)) > 0.6
    encoded = encode_masks(masks)
    assert np.array_equal(np.moveaxis(coco_mask.decode([dict(mask) for mask in encoded]), 2, 0).astype(bool), masks)


def test_pairwise_iou() -> None:
    empty = np.zeros((60, 80), np.bool_)
    first = encode_masks(np.stack([square(0, 0, 10), square(0, 0, 10), empty, empty]))
    second = encode_masks(np.stack([square(0, 0, 10), square(5, 0, 10), empty, square(0, 0, 4)]))
    assert pairwise_iou(first, second) == pytest.approx([1, 50 / 150, 1, 0])


def images_of_all_sizes(rng: np.random.Generator, sides: list[int]) -> list[ImageDetections]:
    size = (300, 400)
    made = []
    for _ in range(4):
        truth, predicted = [], []
        for side in sides:
            top, left = int(rng.integers(0, size[0] - side)), int(rng.integers(0, size[1] - side))
            shift = int(rng.integers(0, 1 + side // 4))
            truth.append(square(top, left, side, size))
            predicted.append(square(top, left + shift, side, size))
        predicted[0][:] = False
        scores = rng.uniform(0, 1, len(sides)).astype(np.float32)
        made.append(ImageDetections(encode_masks(np.stack(truth)), encode_masks(np.stack(predicted)), scores))
    return made


@pytest.mark.parametrize(
    "sides", [[6, 10, 20, 31, 32, 33, 50, 90, 96, 97, 120], [20, 25, 28], [100, 130]], ids=["all", "small", "large"]
)
def test_figures_by_size_equal_pycocotools(sides: list[int]) -> None:
    """32 x 32 and 96 x 96 lie on limits, which belong to both sides."""
    made = images_of_all_sizes(np.random.default_rng(len(sides)), sides)
    found, reference = precision_and_recall(made), evaluated_by_pycocotools(made, (300, 400))
    assert list(found) == ["all", "small", "medium", "large"]
    measured = 0
    for index, figures in enumerate(found.values()):
        for ours, table in (
            (figures.precision, reference["precision"][..., index]),
            (figures.recall, reference["recall"][:, index]),
        ):
            # pycocotools marks sizes without a true mask with -1
            expected = table[table > -1].mean() if (table > -1).any() else None
            assert ours == (None if expected is None else pytest.approx(expected, abs=1e-6))
            measured += expected is not None and 0 < expected < 1
    assert measured >= 4
    assert found["all"].precision == pytest.approx(average_precision(made).map, abs=1e-12)


def test_recall_by_hand() -> None:
    """One of two found, at IoU 0.8: recall 1/2 at seven of ten thresholds."""
    truth, part, lost = square(5, 5, 10), square(5, 5, 10), square(30, 40, 12)
    part[13:] = False
    found = precision_and_recall([detections([truth, lost], [part], [0.9])])
    assert found["all"].recall == pytest.approx(0.35)
    assert found["small"] == found["all"]
    assert found["medium"] == found["large"] == PrecisionAndRecall(None, None)


def test_masks_are_matched_once_each_by_falling_score() -> None:
    """Two predictions of one object, one of none, one object missed; the better scored of the two counts."""
    truth = np.zeros((3, 20, 20), np.bool_)
    truth[0, 2:8, 2:8] = truth[1, 10:16, 10:16] = truth[2, 0:2, 15:20] = True
    predicted = np.zeros((4, 20, 20), np.bool_)
    predicted[0, 2:8, 2:8] = predicted[1, 3:8, 2:8] = predicted[2, 18:, 18:] = predicted[3, 10:16, 10:15] = True
    image = ImageDetections(encode_masks(truth), encode_masks(predicted), np.array([0.2, 0.9, 0.5, 0.4]))
    found = matches([image])
    assert (found.right, found.wrong, found.missed) == (2, 2, 1)
    assert (found.precision, found.recall, found.average_precision) == (0.5, 2 / 3, 0.4)
    strict = matches([image], 0.9)
    assert (strict.right, strict.wrong, strict.missed) == (1, 3, 2)
    nothing = matches(
        [ImageDetections(image.truth, (), np.empty(0)), ImageDetections((), image.predicted, image.scores)]
    )
    assert (nothing.right, nothing.wrong, nothing.missed, nothing.average_precision) == (0, 4, 3, 0.0)


def test_masks_come_back_as_they_were() -> None:
    masks = np.random.default_rng(0).random((3, 5, 7)) > 0.5
    masks[1] = False
    assert np.array_equal(decode_masks(encode_masks(masks), (5, 7)), masks)
    assert decode_masks((), (5, 7)).shape == (0, 5, 7)
