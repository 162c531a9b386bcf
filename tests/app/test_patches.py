"""Masks as windows: the same numbers as on whole images."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_sam.app.patches import dice, iou, patch_of, pixels_shared


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_overlaps_are_those_of_whole_masks(seed: int, first: float, second: float) -> None:
    draws = np.random.default_rng(seed)
    one, other = draws.random((7, 9)) < first**3, draws.random((7, 9)) < second**3
    a, b = patch_of(one), patch_of(other)
    both, union = np.count_nonzero(one & other), np.count_nonzero(one | other)
    assert pixels_shared(a, b) == both
    assert iou(a, b) == pytest.approx(both / union if union else 1)
    assert dice(a, b) == pytest.approx(2 * both / (one.sum() + other.sum()) if union else 1)
    assert np.array_equal(a.full((7, 9)), one)


def test_bits_are_rows_one_after_the_other() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:4, 2:5] = [[1, 0, 1], [0, 1, 0], [1, 1, 1]]
    packed = patch_of(mask).packed()
    assert packed["box"] == [2, 1, 3, 3]
    assert base64.b64decode(packed["bits"]) == bytes([0b10101011, 0b10000000])
    empty = patch_of(np.zeros((3, 3), np.bool_))
    assert empty.packed() == {"id": empty.id, "box": [0, 0, 0, 0], "bits": ""}


def test_bits_that_are_known_stay_away() -> None:
    mask = np.eye(4, dtype=np.bool_)
    one, same, moved = patch_of(mask), patch_of(mask.copy()), patch_of(np.pad(mask, 1))
    assert one.id == same.id != moved.id
    assert same.packed({one.id}) == {"id": one.id}
    assert "bits" in moved.packed({one.id})
