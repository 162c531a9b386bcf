from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lora_sam.core.structures import Sample, tight_boxes
from lora_sam.core.thin_arrays import thin_copy, thin_zeros, used_rows
from lora_sam.data.augmentation import Augmentation, View

SIZE = (600, 640)


def sample(objects: int = 40) -> Sample:
    """Small objects in an image that is large enough for thin memory."""
    draws = np.random.default_rng(0)
    masks = np.zeros((objects, *SIZE), np.bool_)
    for mask in masks:
        top, left = draws.integers(0, (SIZE[0] - 20, SIZE[1] - 20))
        mask[top : top + int(draws.integers(1, 20)), left : left + int(draws.integers(1, 20))] = True
    pixels = draws.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Sample("a", pixels, masks, tuple(map(str, range(objects))))


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured with Linux's /proc")
def test_what_is_not_written_takes_no_memory() -> None:
    before = resident()
    masks = thin_zeros((400, 1000, 1000), 0.01)
    masks[::7, 3, 5] = True
    assert not masks[1].any()
    assert int(masks.sum()) == 58
    assert resident() - before < 100 * 2**20  # of 381 MiB
    assert masks.flags.writeable


def test_little_and_much_used_arrays_are_like_any_other() -> None:
    for used in (0.0, 1.0):
        masks = thin_zeros((3, 1000, 1000), used)
        assert masks.shape == (3, 1000, 1000)
        assert masks.dtype == np.bool_
        assert not masks.any()
    assert thin_zeros((0, 5, 5), 0.0).shape == (0, 5, 5)


def test_copies_of_some_masks() -> None:
    one = sample()
    boxes, rows = tight_boxes(one.masks), np.array([7, 0, 3])
    assert np.array_equal(thin_copy(one.masks, boxes), one.masks)
    assert np.array_equal(thin_copy(one.masks, boxes, rows), one.masks[rows])
    assert 0 < used_rows(boxes, SIZE[0]) < 0.05
    known = one.with_boxes(boxes).only(rows)
    assert np.array_equal(known.masks, one.masks[rows])
    assert np.array_equal(known.boxes, boxes[rows])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_known_boxes_are_seen_as_their_masks_are(mirrored: bool, quarters: int) -> None:
    one, view = sample(), View(mirrored, quarters)
    seen, known = view.on(one), view.on(one.with_boxes(tight_boxes(one.masks)))
    assert np.array_equal(seen.masks, known.masks)
    assert np.array_equal(known.boxes, tight_boxes(seen.masks))
    assert np.array_equal(seen.image, known.image)


@pytest.mark.parametrize("scale", [(1.5, 1.5), (0.5, 0.5), (1.0, 1.0)])
def test_many_masks_move_as_each_alone_does(scale: tuple[float, float]) -> None:
    """They are moved in chunks, and those that leave the image are dropped."""
    augmentation = Augmentation(
        horizontal_flip=1, vertical_flip=0, rotate90=0, scale=scale, brightness=0.1, contrast=0, saturation=0, hue=0
    )
    one = sample()
    changed = augmentation.apply(one, 1, 2)
    left = [int(name) for name in changed.object_ids]
    for row in left:
        alone = augmentation.apply(one.only(np.array([row])), 1, 2)
        assert np.array_equal(alone.masks[0], changed.masks[left.index(row)])
    assert np.array_equal(changed.boxes, tight_boxes(changed.masks))
    if scale[0] > 1:
        assert 0 < len(left) < 40
