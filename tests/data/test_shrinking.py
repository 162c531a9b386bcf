"""Targets of shrunk masks are, bit for bit, those of plain means over rows and columns of every pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lora_sam.core.frame import Frame
from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.structures import tight_boxes
from lora_sam.data import shrinking
from lora_sam.data.transforms import masks_to_input_frame


def means(values: NDArray[np.float32], start: int, length: int, scaled: int) -> tuple[int, int, NDArray[np.float32]]:
    """First output pixel, one past the last, and the means of rows that begin at `start` of an axis of `length`."""
    ratio = length / scaled
    first, last = int(start / ratio), min(scaled, math.ceil((start + len(values)) / ratio))
    edges = np.clip(np.arange(first, last + 1) * ratio - start, 0, len(values))
    low, high = edges[:-1], edges[1:]
    pixel = low.astype(np.intp)
    found = np.zeros((last - first, values.shape[1]), np.float32)
    for _ in range(math.ceil(ratio) + 1):
        share = (np.minimum(pixel + 1, high) - np.maximum(pixel, low)).clip(0) / ratio
        found += values.take(pixel, axis=0, mode="clip") * share[:, None].astype(np.float32)
        pixel += 1
    return first, last, found


def plainly(masks: NDArray[np.bool_], frame: Frame) -> NDArray[np.bool_]:
    size = masks.shape[1], masks.shape[2]
    extent = frame.extent(size)
    targets = np.zeros((len(masks), frame.side, frame.side), np.bool_)
    for mask, target, box in zip(masks, targets, tight_boxes(masks).astype(int).tolist(), strict=True):
        left, top, right, bottom = box
        y0, y1, covered = means(mask[top:bottom, left:right].astype(np.float32), top, size[0], extent[0])
        x0, x1, covered = means(np.ascontiguousarray(covered.T), left, size[1], extent[1])
        most = float(covered.max())
        target[y0:y1, x0:x1] = (0.5 if most >= 0.5 else 0.5 * most) <= covered.T
    return targets


def drawn(draws: np.random.Generator, count: int, height: int, width: int) -> NDArray[np.bool_]:
    """Masks of noise, whole boxes and discs."""
    masks = np.zeros((count, height, width), np.bool_)
    for mask in masks:
        y, x = int(draws.integers(height)), int(draws.integers(width))
        window = mask[y : int(draws.integers(y, height)) + 1, x : int(draws.integers(x, width)) + 1]
        rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
        disc = np.hypot(rows / window.shape[0] - 0.5, columns / window.shape[1] - 0.5) < 0.5
        kind = int(draws.integers(3))
        window[...] = (disc, True, draws.random(window.shape) < draws.random())[kind]
        mask[y, x] = True
    return masks


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 160), st.integers(1, 160)),
    st.sampled_from([4, 16, 32, 48, 100]),
    st.booleans(),
)
def test_targets_have_the_bits_of_plain_means(seed: int, size: tuple[int, int], side: int, square: bool) -> None:
    draws, frame = np.random.default_rng(seed), Frame(side, square=square)
    extent = frame.extent(size)
    if extent[0] >= size[0] and extent[1] >= size[1]:
        return  # enlarged by the nearest pixel
    masks = drawn(draws, int(draws.integers(1, 5)), *size)
    assert np.array_equal(masks_to_input_frame(masks, frame).numpy(), plainly(masks, frame))


def test_photographs_and_many_pixels_under_one() -> None:
    draws = np.random.default_rng(0)
    for size, side in (((683, 1024), 768), ((800, 600), 16)):  # 50 x 50 pixels are more than a byte counts
        masks, frame = drawn(draws, 6, *size), Frame(side, square=False)
        assert np.array_equal(masks_to_input_frame(masks, frame).numpy(), plainly(masks, frame))


def test_windows_that_are_shrunk_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, frame = drawn(np.random.default_rng(1), 12, 90, 70), Frame(48, square=False)
    whole = masks_to_input_frame(MaskWindows.of(masks, tight_boxes(masks)), frame)
    for together in (1, 2000):
        monkeypatch.setattr(shrinking, "_TOGETHER", together)
        assert np.array_equal(masks_to_input_frame(masks, frame), whole)
