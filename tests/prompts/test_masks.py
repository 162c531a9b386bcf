"""Rough masks: near the truth, in its place, and rough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Sample
from lora_sam.data.transforms import masks_to_input_frame

Squares = Callable[..., Sample]


def rough(source: Any, sample: Sample, epoch: int = 0) -> np.ndarray:
    masks = source.training_prompts(sample, 0, epoch).mask_inputs
    assert masks is not None
    assert masks.dtype == np.float32
    return np.asarray(masks)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", [(512, 512), (300, 410), (90, 64), (1100, 700)])
def test_masks_lie_where_the_objects_are(option: Callable[..., Any], squares: Squares, size: tuple[int, int]) -> None:
    height, width = size
    sample = squares(
        size,
        (width // 4, height // 4, width // 2, height // 2),
        (width // 2, height // 2, width, height),
        (0, 0, width // 3, height),
    )
    exact = option("prompt/mask", mask_prob=1.0, blur=0.0, shift=0.0, noise=0.0)
    truth = masks_to_input_frame(sample.masks, Frame(256, square=False)).numpy()
    for made, mask in zip(rough(exact, sample) > 0, truth, strict=True):
        assert iou(made, mask) > 0.97
    assert set(np.unique(np.abs(rough(exact, squares((512, 512), (128, 128, 256, 256)))))) == {np.float32(8)}


def test_contours_shift_both_ways(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((512, 512), (128, 128, 256, 256))
    source = option("prompt/mask", mask_prob=1.0, noise=0.0, blur=3.0, shift=1.0)
    areas = np.array([(rough(source, sample, epoch) > 0).sum() for epoch in range(60)])
    assert (areas > 64**2).mean() == pytest.approx(0.5, abs=0.2)
    # by one standard deviation of the blur, 3 cells, at each side
    assert 58**2 * 0.97 <= areas.min() < 61**2
    assert 67**2 < areas.max() <= 70**2 * 1.03


def test_blur_and_noise_make_masks_rough(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((512, 512), (128, 128, 256, 256))
    truth = masks_to_input_frame(sample.masks, Frame(256, square=False)).numpy()[0]
    values = [
        iou(rough(option("prompt/mask", mask_prob=1.0, shift=0.0, blur=2.0, noise=noise), sample)[0] > 0, truth)
        for noise in (0.0, 4.0, 20.0)
    ]
    assert values[0] > 0.97 > 0.95 > values[1] > values[2]
    noisy = rough(option("prompt/mask", mask_prob=1.0, noise=2.0, shift=0.0), sample)[0]
    assert (noisy[:50] == -8).all()  # far from the object nothing is rough
    assert noisy[70:120, 70:120].mean() == pytest.approx(8, abs=0.6)
    assert noisy[70:120, 70:120].std() == pytest.approx(2, rel=0.25)


def test_thin_objects_do_not_vanish(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((1024, 1024), (10, 500, 1000, 501), (3, 4, 4, 5))
    source = option("prompt/mask", mask_prob=1.0, noise=0.0)
    for epoch in range(10):
        made = rough(source, sample, epoch)
        assert (made > 0).any(axis=(1, 2)).all()
        row, column = np.unravel_index(made[1].argmax(), made[1].shape)
        assert abs(row - 1) + abs(column) <= 1


def test_some_objects_have_a_mask(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50), (1, 1, 9, 9))
    source = option("prompt/mask", mask_prob=0.4, point_share=0.5)
    kinds = [source.training_prompts(sample, 0, epoch).kinds() for epoch in range(150)]
    objects = {
        (with_box, with_mask): sum(
            len(rows)
            for made in kinds
            for rows, part in made
            if (part.boxes is not None, part.mask_inputs is not None) == (with_box, with_mask)
        )
        for with_box in (False, True)
        for with_mask in (False, True)
    }
    for (_, with_mask), number in objects.items():
        assert number / 450 == pytest.approx(0.2 if with_mask else 0.3, abs=0.06)
    for made in kinds:
        assert all(np.isfinite(part.mask_inputs).all() for _, part in made if part.mask_inputs is not None)
    never = option("prompt/mask", mask_prob=0.0).evaluation_prompts(sample, 0)
    assert never.mask_inputs is None
    np.testing.assert_array_equal(never.boxes, sample.boxes)
