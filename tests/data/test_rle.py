"""Run lengths of masks: the part inside a box, and what is kept of masks that were decoded before."""

from __future__ import annotations

import numpy as np
import pytest

from lora_sam.core.errors import DataError
from lora_sam.data.reading.coco_masks import encode
from lora_sam.data.reading.rle import KeptWindows, decompressed, decompressed_together, window_of


def masks_of(seed: int, size: tuple[int, int], count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        mask = np.zeros(size, np.bool_)
        top, left = rng.integers(0, size[0] - 3), rng.integers(0, size[1] - 3)
        part = mask[top : top + rng.integers(3, 9), left : left + rng.integers(3, 9)]
        part[:] = rng.random(part.shape) < 0.6
        part[0, 0] = True
        found.append(mask)
    found[0][:, 4:6] = True  # a run over the edge of columns
    return found


def rle(mask: np.ndarray) -> bytes:
    flat = np.concatenate(([False], mask.ravel(order="F")))
    runs = np.diff(np.concatenate(([0], np.flatnonzero(np.diff(flat.astype(np.int8))), [mask.size]))).tolist()
    return encode({"size": list(mask.shape), "counts": runs}, (mask.shape[0], mask.shape[1]))[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_part_in_a_box_is_that_of_the_mask(seed: int) -> None:
    for mask in masks_of(seed, (23, 31), 6):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
        found = window_of(decompressed(rle(mask)), mask.shape[0], (left, top, width, height))
        np.testing.assert_array_equal(found, mask[top : top + height, left : left + width])


@pytest.mark.parametrize("seed", range(2))
def test_masks_that_were_decoded_before_are_the_same_again(seed: int) -> None:
    masks = masks_of(seed, (23, 31), 6)
    encoded, kept = [rle(mask) for mask in masks], KeptWindows(1 << 20)
    for _ in range(2):
        windows = kept.of(encoded, (23, 31))
        np.testing.assert_array_equal(windows.masks(), np.stack(masks))
    assert len(kept) == len(masks)
    # another order, and some of them
    np.testing.assert_array_equal(kept.of(encoded[:2:-1], (23, 31)).masks(), np.stack(masks[:2:-1]))


def test_a_value_has_seven_characters_at_most() -> None:
    # bit 5 says that a value goes on: six such groups of zeros, and the last one
    seven = b"P" * 6 + b"0"
    assert [one.tolist() for one in decompressed_together([seven])] == [[0]]
    with pytest.raises(DataError, match="damaged compressed RLE"):
        decompressed_together([b"P" * 7 + b"0"])


def test_masks_that_are_kept_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = masks_of(0, (23, 31), 4)
    encoded, kept = [rle(mask) for mask in masks], KeptWindows(1 << 20)
    kept.of(encoded[:2], (23, 31))
    np.testing.assert_array_equal(kept.of(encoded, (23, 31)).masks(), np.stack(masks))  # of which two are known

    def decode(_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("lora_sam.data.reading.rle.decompressed_together", decode)
    again = kept.of(encoded, (23, 31))
    np.testing.assert_array_equal(again.masks(), np.stack(masks))
    assert again.boxes.dtype == np.float32
    assert (len(kept.of([], (23, 31))), len(kept)) == (0, 4)


def test_the_same_code_is_another_mask_in_an_image_of_another_height() -> None:
    upright = np.zeros((6, 4), np.bool_)
    upright[1:4, 1] = True
    lying = upright.ravel(order="F").reshape((4, 6), order="F")
    assert rle(upright) == rle(lying)
    kept = KeptWindows(1 << 20)
    for _ in range(2):
        for mask in (upright, lying):
            np.testing.assert_array_equal(kept.of([rle(mask)], mask.shape).masks()[0], mask)


def test_what_is_kept_has_a_limit_and_counts_once() -> None:
    first, second = masks_of(1, (23, 31), 2)[0], np.ones((40, 50), np.bool_)
    needed = 40 * 50 // 8 + 500
    kept = KeptWindows(needed)
    for _ in range(3):
        kept.of([rle(second)], second.shape)
    assert len(kept) == 1
    np.testing.assert_array_equal(kept.of([rle(first)], first.shape).masks()[0], first)
    assert len(kept) == 1  # full
    small = KeptWindows(needed - 1)
    np.testing.assert_array_equal(small.of([rle(second)], second.shape).masks()[0], second)
    assert len(small) == 0
    twice = KeptWindows(2 * needed - 1)
    twice.of([rle(second), rle(second)], second.shape)  # one mask, which takes memory once
    assert len(twice) == 1


@pytest.mark.parametrize("encoded", [b"/", b"0p0", b"", b"0\xff0"])
def test_characters_that_no_run_length_has_are_damage(encoded: bytes) -> None:
    with pytest.raises(DataError, match="damaged compressed RLE"):
        decompressed(encoded)


def test_several_strings_are_decoded_as_each_alone() -> None:
    encoded = [rle(mask) for mask in (*masks_of(5, (23, 31), 5), *masks_of(6, (9, 11), 5))]
    for one, together in zip(encoded, decompressed_together(encoded), strict=True):
        assert decompressed(one).tolist() == together.tolist()
    with pytest.raises(DataError, match="damaged"):
        decompressed_together([encoded[0], b"P", encoded[1]])  # says that it goes on, and ends
    with pytest.raises(DataError, match="damaged"):
        decompressed_together([encoded[0], b""])


def test_a_run_of_no_pixels_at_the_edge_of_a_column_is_none() -> None:
    runs = np.array([1, 1, 6, 0, 1, 2, 1])  # of columns of four pixels
    found = window_of(runs, 4, (0, 1, 3, 2))
    assert found.tolist() == [[True, False, True], [False, False, True]]
