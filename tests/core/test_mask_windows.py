"""Samples whose masks are what lies in their boxes are, in everything that is asked of them, like any other."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.structures import Sample, tight_boxes
from lora_sam.data.augmentation import View


def both() -> tuple[Sample, Sample]:
    """A sample with arrays, and the same with windows."""
    draws = np.random.default_rng(0)
    masks = np.zeros((5, 40, 30), np.bool_)
    for mask in masks:
        top, left = draws.integers(0, (30, 20))
        mask[top : top + 9, left : left + 7] = draws.random((9, 7)) < 0.5
        mask[top, left] = True
    image, ids = draws.integers(0, 256, (40, 30, 3), dtype=np.uint8), tuple("abcde")
    ignored = draws.random((40, 30)) < 0.1
    plain = Sample("one", image, masks, ids, tuple("uvwxy"), ignored, "group")
    windows = MaskWindows.of(masks, tight_boxes(masks))
    return plain, Sample.of_windows("one", image, windows, ids, plain.classes, ignored, "group")


def assert_same(one: Sample, other: Sample) -> None:
    assert (one.id, one.object_ids, one.classes, one.group) == (other.id, other.object_ids, other.classes, other.group)
    assert np.array_equal(one.boxes, other.boxes)
    assert np.array_equal(one.image, other.image)
    assert one.ignored is not None
    assert np.array_equal(one.ignored, other.ignored)
    for part, same in zip(one.windows.parts, other.windows.parts, strict=True):
        assert np.array_equal(part, same)
    assert np.array_equal(one.masks, other.masks)


def test_masks_are_made_when_they_are_asked_for() -> None:
    plain, windowed = both()
    assert not windowed.has_masks
    assert windowed.size == plain.size
    assert np.array_equal(windowed.known_boxes, plain.boxes)
    assert not windowed.has_masks
    assert np.array_equal(windowed.masks, plain.masks)
    assert windowed.has_masks
    assert windowed.masks is windowed.masks
    assert_same(windowed, plain)
    assert_same(copy.deepcopy(both()[1]), plain)
    with pytest.raises(AttributeError, match="mask_s"):
        windowed.mask_s  # noqa: B018


def test_some_objects() -> None:
    plain, windowed = both()
    rows = np.array([3, 0])
    some = windowed.only(rows)
    assert not some.has_masks
    assert_same(some, plain.only(rows))
    assert windowed.masks is not None
    assert_same(windowed.only(rows), plain.only(rows))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_views(mirrored: bool, quarters: int) -> None:
    plain, windowed = both()
    view = View(mirrored, quarters)
    seen = view.on(windowed)
    assert not seen.has_masks
    assert_same(seen, view.on(plain))


def test_boxes_are_not_changed_by_whoever_gets_them() -> None:
    _, windowed = both()
    with pytest.raises(ValueError, match="read-only"):
        windowed.boxes[0] = 0
