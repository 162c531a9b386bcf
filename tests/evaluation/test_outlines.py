"""Hausdorff 95 against MONAI, brute force and cases computed by hand; the boundary F1 is in `test_metrics`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lora_sam.evaluation.outlines import hausdorff95, window_of_both

Mask = NDArray[np.bool_]


def square(height: int, width: int, top: int, left: int, size: int) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + size, left : left + size] = True
    return mask


def blocky(seed: int, height: int, width: int) -> Mask:
    """Random blocks of 3 x 3 pixels, one of them at least."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-height // 3), -(-width // 3))) < rng.uniform(0.05, 0.9)
    coarse[tuple(rng.integers(0, coarse.shape))] = True
    return coarse.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]


def by_monai(predicted: Mask, true: Mask) -> float:
    import torch
    from monai.metrics import compute_hausdorff_distance

    pair = (torch.from_numpy(mask[None, None]).float() for mask in (predicted, true))
    return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95))


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_monai(seed: int) -> None:
    height, width = np.random.default_rng(seed).integers(9, 60, 2).tolist()
    predicted, true = blocky(seed, height, width), blocky(seed + 100, height, width)
    assert hausdorff95(predicted, true) == pytest.approx(by_monai(predicted, true), rel=1e-6, abs=1e-6)
    moved = np.roll(true, 2, axis=1)
    assert hausdorff95(moved, true) == pytest.approx(by_monai(moved, true), rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 13), st.integers(1, 13))
def test_agrees_with_brute_force(seed: int, height: int, width: int) -> None:
    masks = blocky(seed, height, width), blocky(seed + 1, height, width)
    contours = []
    for mask in masks:
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        contours.append(np.argwhere(mask & ~inner))
    expected = max(
        float(np.percentile([min(math.dist(pixel, other) for other in others) for pixel in own], 95))
        for own, others in (contours, contours[::-1])
    )
    assert hausdorff95(*masks) == pytest.approx(expected, abs=1e-9)


def test_moved_square_by_hand() -> None:
    """20 x 20 moved by 4 columns: of the ring of 76 pixels, 18 of one side are 4 away, 10 more 1 to 4."""
    true = square(60, 60, 10, 10, 20)
    assert hausdorff95(np.roll(true, 4, axis=1), true) == 4
    assert hausdorff95(true, np.roll(true, 4, axis=1)) == 4
    assert hausdorff95(true, true) == 0


def test_a_single_far_pixel_is_beyond_the_95_percent() -> None:
    true = square(100, 100, 10, 10, 20)
    spot = true.copy()
    spot[90, 90] = True
    assert hausdorff95(spot, true) == 0


def test_empty_masks() -> None:
    empty, true = np.zeros((30, 40), np.bool_), square(30, 40, 5, 5, 4)
    assert hausdorff95(empty, empty) == 0
    assert hausdorff95(empty, true) == 50  # the diagonal
    assert hausdorff95(true, empty) == 50


def test_window_is_the_smallest_around_both() -> None:
    one, other = square(30, 40, 3, 7, 2), square(30, 40, 20, 1, 5)
    assert window_of_both(one, other) == (slice(3, 25), slice(1, 9))
    assert window_of_both(one & other, one & other) is None
