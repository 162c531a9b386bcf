"""Metrics against torchmetrics, MONAI, a brute-force reference and cases computed by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lora_sam.evaluation.comparison import summarize
from lora_sam.evaluation.metrics import ImageScores, default_boundary_tolerance, mask_iou, score_image, size_of

Mask = NDArray[np.bool_]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"object {n}" for n in range(count))


def random_masks(seed: int, count: int, height: int, width: int) -> Mask:
    """Blocky random masks of very different coverage."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, -(-height // 3), -(-width // 3))) < rng.uniform(0.1, 0.9, (count, 1, 1))
    return coarse.repeat(3, axis=1).repeat(3, axis=2)[:, :height, :width]


def square(height: int, width: int, top: int, left: int, size: int) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + size, left : left + size] = True
    return mask


def scores_from(rng: np.random.Generator, images: int, spread: float, shift: float = 0.0) -> list[ImageScores]:
    """Made-up scores whose objects share their image's luck."""
    scores = []
    for index in range(images):
        count = int(rng.integers(1, 12))
        iou = np.clip(0.6 + shift + spread * rng.normal() + 0.05 * rng.normal(size=count), 0, 1)
        area = np.full(count, 1000, np.int64)
        true_positive = (area * iou).astype(np.int64)
        scores.append(
            ImageScores(
                id=f"image {index}",
                object_ids=names(count),
                iou=iou,
                dice=2 * iou / (1 + iou),
                boundary_f1=iou**2,
                true_positive=true_positive,
                false_positive=np.full(count, 30, np.int64),
                false_negative=area - true_positive,
                area=area,
            )
        )
    return scores


def test_one_pixel_is_a_whole_object() -> None:
    pixel, other = np.zeros((2, 5, 6), np.bool_)
    pixel[2, 3] = other[1, 1] = True
    assert mask_iou(pixel, pixel) == 1
    assert mask_iou(pixel, other) == 0
    assert mask_iou(pixel, pixel | other) == 0.5


class TestOverlap:
    def test_agrees_with_torchmetrics(self) -> None:
        import torch
        from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

        prediction, truth = random_masks(0, 7, 37, 50), random_masks(1, 7, 37, 50)
        scores = score_image("a", names(7), prediction, truth)
        for n in range(7):
            pair = torch.from_numpy(prediction[n]).int(), torch.from_numpy(truth[n]).int()
            assert scores.iou[n] == pytest.approx(float(BinaryJaccardIndex()(*pair)), abs=1e-6)
            assert scores.dice[n] == pytest.approx(float(BinaryF1Score()(*pair)), abs=1e-6)
        pooled = float(BinaryF1Score()(torch.from_numpy(prediction).int(), torch.from_numpy(truth).int()))
        assert summarize([scores], 0)["f1"] == pytest.approx(pooled, abs=1e-6)

    def test_masks_alone_have_the_same_bits_as_an_image_and_two_empty_ones_are_equal(self) -> None:
        prediction, truth = random_masks(0, 7, 37, 50), random_masks(1, 7, 37, 50)
        prediction[2] = truth[2] = False
        prediction[3] = False
        alone = mask_iou(prediction, truth)
        assert alone.tolist() == score_image("a", names(7), prediction, truth).iou.tolist()
        assert (alone[2], alone[3]) == (1, 0)
        assert (
            mask_iou(prediction.reshape(7, 1, 37, 50), truth.reshape(7, 1, 37, 50)).tolist() == alone[:, None].tolist()
        )

    def test_pooled_f1_over_images_of_different_size_agrees_with_torchmetrics(self) -> None:
        import torch
        from torchmetrics.classification import BinaryF1Score

        metric, scores = BinaryF1Score(), []
        for index, (count, height, width) in enumerate([(3, 20, 31), (1, 64, 12), (5, 9, 9)]):
            prediction = random_masks(2 * index, count, height, width)
            truth = random_masks(2 * index + 1, count, height, width)
            metric.update(torch.from_numpy(prediction).int(), torch.from_numpy(truth).int())
            scores.append(score_image(str(index), names(count), prediction, truth))
        assert summarize(scores, 0)["f1"] == pytest.approx(float(metric.compute()), abs=1e-6)

    def test_pooled_iou_agrees_with_torchmetrics(self) -> None:
        import torch
        from torchmetrics.classification import BinaryJaccardIndex

        metric, scores = BinaryJaccardIndex(), []
        for index, (count, height, width) in enumerate([(3, 20, 31), (1, 64, 12), (5, 9, 9)]):
            prediction = random_masks(2 * index, count, height, width)
            truth = random_masks(2 * index + 1, count, height, width)
            metric.update(torch.from_numpy(prediction).int(), torch.from_numpy(truth).int())
            scores.append(score_image(str(index), names(count), prediction, truth))
        assert summarize(scores, 0)["iou_pooled"] == pytest.approx(float(metric.compute()), abs=1e-6)

    def test_agrees_with_monai(self) -> None:
        import torch
        from monai.metrics import DiceMetric, MeanIoU

        prediction, truth = random_masks(3, 6, 40, 33), random_masks(4, 6, 40, 33)
        pair = torch.from_numpy(prediction[:, None]).float(), torch.from_numpy(truth[:, None]).float()
        scores = score_image("a", names(6), prediction, truth)
        for values, metric in ((scores.dice, DiceMetric()), (scores.iou, MeanIoU())):
            expected = metric(*pair)
            assert isinstance(expected, torch.Tensor)
            np.testing.assert_allclose(values, expected.squeeze(1).numpy(), atol=1e-6)
        summary = summarize([scores], 0)
        assert summary["dice"] == pytest.approx(scores.dice.mean())
        assert summary["iou"] == pytest.approx(scores.iou.mean())

    def test_counts_by_hand(self) -> None:
        # 4x4 against 4x4 moved by (1, 2): they share 3x2 pixels
        scores = score_image("a", ["x"], square(20, 20, 5, 5, 4)[None], square(20, 20, 6, 7, 4)[None])
        assert (scores.true_positive[0], scores.false_positive[0], scores.false_negative[0]) == (6, 10, 10)
        assert scores.iou[0] == pytest.approx(6 / 26)
        assert scores.dice[0] == pytest.approx(12 / 32)
        assert scores.area[0] == 16
        assert scores.mean_iou == pytest.approx(6 / 26)

    @pytest.mark.parametrize(
        ("predicted", "true", "expected"),
        [(False, False, 1.0), (True, False, 0.0), (False, True, 0.0), (True, True, 1.0)],
    )
    def test_empty_masks(self, predicted: bool, true: bool, expected: float) -> None:
        shape = (1, 6, 8)
        scores = score_image("a", ["x"], np.full(shape, predicted), np.full(shape, true))
        assert (scores.iou[0], scores.dice[0], scores.boundary_f1[0]) == (expected,) * 3
        assert summarize([scores], 0)["f1"] == expected

    def test_masks_of_another_size_are_our_own_mistake(self) -> None:
        with pytest.raises(AssertionError, match=r"predicted \(1, 4, 4\), true \(1, 4, 5\)"):
            score_image("a", ["x"], np.ones((1, 4, 4), np.bool_), np.ones((1, 4, 5), np.bool_))


class TestBoundary:
    def test_default_tolerance(self) -> None:
        assert default_boundary_tolerance(520, 700) == 7  # 0.0075 * 872.0 = 6.54
        assert default_boundary_tolerance(256, 256) == 3  # 0.0075 * 362.04 = 2.72
        assert default_boundary_tolerance(240, 320) == 3  # 0.0075 * 400 = 3 exactly
        assert default_boundary_tolerance(8, 8) == 1

    def test_shifted_square_by_hand(self) -> None:
        """5x5 squares, one a column to the right; contours are rings of 16 pixels.

        Without tolerance 8 pixels coincide (4 in the top row, 4 in the bottom row); with one pixel all match.
        """
        prediction, truth = square(20, 20, 5, 5, 5)[None], square(20, 20, 5, 6, 5)[None]
        assert score_image("a", ["x"], prediction, truth, 0).boundary_f1[0] == pytest.approx(0.5)
        assert score_image("a", ["x"], prediction, truth, 1).boundary_f1[0] == 1.0

    def test_precision_and_recall_by_hand(self) -> None:
        """A 3x3 ring of 8 pixels inside a 7x7 ring of 24, two pixels apart, in the middle of each side.

        At tolerance 2: all 8 inner pixels have an outer one 2 away. Of the outer ones 3 per side lie within 2 of an
        inner one; those beside the corners are sqrt(5) away, and the corners sqrt(8).
        """
        inner, outer = square(30, 30, 12, 12, 3)[None], square(30, 30, 10, 10, 7)[None]
        precision, recall = 1.0, 12 / 24
        expected = 2 * precision * recall / (precision + recall)
        assert score_image("a", ["x"], inner, outer, 2).boundary_f1[0] == pytest.approx(expected)
        assert score_image("a", ["x"], inner, outer, math.sqrt(5)).boundary_f1[0] == pytest.approx(
            2 * 20 / 24 / (44 / 24)
        )
        assert score_image("a", ["x"], inner, outer, 1.99).boundary_f1[0] == 0.0
        assert score_image("a", ["x"], outer, inner, 2).boundary_f1[0] == pytest.approx(expected)

    def test_edge_of_the_image_is_contour(self) -> None:
        """A full 4x4 image has its 12 outer pixels as contour, and its left half (4x2) all 8 of its own."""
        full, half = np.ones((1, 4, 4), np.bool_), np.ones((1, 4, 4), np.bool_)
        half[:, :, 2:] = False
        # all but two (in the second column, inner rows) of 8 coincide with the 12, of which 6 are found
        assert score_image("a", ["x"], half, full, 0).boundary_f1[0] == pytest.approx(2 * 0.75 * 0.5 / 1.25)

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.integers(1, 14),
        st.integers(1, 14),
        st.sampled_from([0.0, 1.0, math.sqrt(2), 1.5, 2.0, 3.0, 30.0]),
    )
    def test_agrees_with_brute_force(self, seed: int, height: int, width: int, tolerance: float) -> None:
        prediction, truth = random_masks(seed, 2, height, width), random_masks(seed + 1, 2, height, width)
        scores = score_image("a", names(2), prediction, truth, tolerance)
        for n in range(2):
            assert scores.boundary_f1[n] == pytest.approx(brute_force(prediction[n], truth[n], tolerance), abs=1e-12)

    def test_three_hundred_objects_take_less_than_a_second(self) -> None:
        rows, columns = np.mgrid[:520, :700]
        rng = np.random.default_rng(0)
        truth = np.zeros((300, 520, 700), np.bool_)
        for mask, row, column in zip(truth, rng.integers(0, 520, 300), rng.integers(0, 700, 300), strict=True):
            window = np.s_[max(0, row - 20) : row + 20, max(0, column - 20) : column + 20]
            mask[window] = (rows[window] - row) ** 2 + (columns[window] - column) ** 2 <= 12**2
        prediction = np.roll(truth, 3, axis=2)
        start = time.process_time()
        scores = score_image("a", names(300), prediction, truth)
        assert time.process_time() - start < 1.0
        assert np.median(scores.boundary_f1) == 1.0  # 3 pixels off, 7 allowed; those at the edge wrap around


def brute_force(prediction: Mask, truth: Mask, tolerance: float) -> float:
    """Boundary F1 from its definition, pixel by pixel."""
    contours = [contour_of(prediction), contour_of(truth)]
    if not prediction.any() and not truth.any():
        return 1.0
    shares = []
    for one, other in (contours, contours[::-1]):
        near = [any(math.dist(pixel, candidate) <= tolerance for candidate in other) for pixel in one]
        shares.append(sum(near) / len(near) if near else 0.0)
    return 2 * shares[0] * shares[1] / sum(shares) if all(shares) else 0.0


def contour_of(mask: Mask) -> list[tuple[int, int]]:
    height, width = mask.shape

    def inside(row: int, column: int) -> bool:
        return 0 <= row < height and 0 <= column < width and bool(mask[row, column])

    return [
        (row, column)
        for row, column in itertools.product(range(height), range(width))
        if inside(row, column) and not all(inside(row + y, column + x) for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    ]


def test_sizes_have_cocos_limits() -> None:
    assert size_of(np.array([1, 1023, 1024, 9215, 9216])).tolist() == [0, 0, 1, 1, 2]


def test_what_has_no_tolerance_or_no_object_is_our_own_mistake() -> None:
    mask = np.ones((1, 4, 4), np.bool_)
    with pytest.raises(AssertionError, match="a tolerance is a distance"):
        score_image("a", ["x"], mask, mask, -0.5)
    for masks, ids in ((mask, ["x", "y"]), (mask[:0], [])):
        with pytest.raises(AssertionError, match="one name per object, and at least one object"):
            score_image("a", ids, masks, masks)
    with pytest.raises(AssertionError, match="masks are bool"):
        score_image("a", ["x"], mask.astype(np.uint8), mask)  # type: ignore[arg-type]


def test_columns_are_found_by_their_names() -> None:
    (image,) = scores_from(np.random.default_rng(0), 1, 0.1)
    image = dataclasses.replace(image, further={"own": image.iou + 1})
    assert image.column("own").tolist() == (image.iou + 1).tolist()
    assert image.column("area").tolist() == image.area.tolist()
