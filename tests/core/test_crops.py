"""Masks as crops: every answer is that of the whole mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from lora_sam.core.crops import Crop, rle_of, shared

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
masks = sizes.flatmap(lambda size: arrays(np.bool_, size, elements=st.booleans()))


@given(masks)
@settings(max_examples=150, deadline=None)
def test_a_crop_is_the_mask_and_its_runs_are_those_of_coco(mask: np.ndarray) -> None:
    crop = Crop.of(mask)
    if crop is None:
        assert not mask.any()
        return
    np.testing.assert_array_equal(crop.full(mask.shape), mask)
    assert crop.area == mask.sum()
    assert crop.mask.any(axis=0)[[0, -1]].all()
    assert crop.mask.any(axis=1)[[0, -1]].all()
    counts = crop.counts(mask.shape)
    assert sum(counts) == mask.size
    np.testing.assert_array_equal(
        coco.decode(coco.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)), mask
    )
    runs = np.flatnonzero(np.diff(np.concatenate([[False], mask.T.ravel()])))  # COCO's rule: no run of length 0 inside
    assert len(counts) == len(runs) + 1


larger = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda size: arrays(np.bool_, size, elements=st.booleans(), fill=st.just(False))  # small objects as well
)


@given(larger)
@settings(max_examples=150, deadline=None)
def test_runs_are_the_bytes_that_coco_writes(mask: np.ndarray) -> None:
    assert rle_of(mask) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))


@given(masks, masks, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_two_crops_join_to_both_masks(a: np.ndarray, b: np.ndarray, x: int, y: int) -> None:
    first, second = Crop.of(a), Crop.of(b, x, y)
    if first is None or second is None:
        return
    size = (20, 20)
    np.testing.assert_array_equal(first.joined(second).full(size), first.full(size) | second.full(size))
    part = shared((first.box, second.box))
    np.testing.assert_array_equal(first.within(part), first.full(size)[part[1] : part[3], part[0] : part[2]])


def test_a_part_that_reaches_beyond_the_crop_is_background() -> None:
    crop = Crop(2, 3, np.ones((2, 2), np.bool_))
    assert crop.within((0, 0, 3, 4)).sum() == 1
    assert crop.within((10, 10, 12, 12)).sum() == 0
    assert crop.within((4, 4, 2, 2)).shape == (0, 0)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3)])
def test_a_mask_that_fills_the_image(size: tuple[int, int]) -> None:
    crop = Crop.of(np.ones(size, np.bool_))
    assert crop is not None
    assert crop.counts(size) == [0, size[0] * size[1]]
