from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from lora_sam.core.errors import ConfigError
from lora_sam.core.structures import Sample

Make = Callable[..., Any]


def test_nothing_is_done_when_all_is_off(augmentation: Make, sample: Sample) -> None:
    assert augmentation("none").apply(sample, 0, 0, sample.id) is sample


@pytest.mark.parametrize("option", ["flips", "strong"])
def test_the_same_seeds_give_the_same_sample_and_global_state_stays(
    augmentation: Make, sample: Sample, option: str
) -> None:
    augment = augmentation(option).apply
    before = sample.image.copy(), sample.masks.copy()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, again = augment(sample, 1, 2, "a"), augment(sample, 1, 2, "a")
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    np.testing.assert_array_equal(before[0], sample.image)
    np.testing.assert_array_equal(before[1], sample.masks)
    different = {augment(sample, 1, epoch, "a").image.tobytes() for epoch in range(12)}
    assert len(different) > 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"horizontal_flip": 1.0}, lambda array: array[:, ::-1]),
        ({"vertical_flip": 1.0}, lambda array: array[::-1]),
        ({"horizontal_flip": 1.0, "vertical_flip": 1.0}, lambda array: array[::-1, ::-1]),
    ],
)
def test_flips_are_exact(augmentation: Make, sample: Sample, changes: dict[str, float], expected: Any) -> None:
    flipped = augmentation(**changes).apply(sample, 0)
    np.testing.assert_array_equal(flipped.image, expected(sample.image))
    for mask, original in zip(flipped.masks, sample.masks, strict=True):
        np.testing.assert_array_equal(mask, expected(original))
    assert flipped.object_ids == sample.object_ids


def test_quarter_turns_are_exact_and_all_occur(augmentation: Make, sample: Sample) -> None:
    turns = augmentation(rotate90=1.0)
    seen = set()
    for epoch in range(20):
        turned = turns.apply(sample, epoch)
        (quarters,) = [k for k in (1, 2, 3) if np.array_equal(turned.image, np.rot90(sample.image, k))]
        np.testing.assert_array_equal(turned.masks, np.rot90(sample.masks, quarters, axes=(1, 2)))
        seen.add((quarters, turned.size))
    assert seen == {(1, (60, 40)), (2, (40, 60)), (3, (60, 40))}


@pytest.mark.parametrize("scale", [(0.5, 0.5), (0.7, 1.4), (1.5, 3.0)])
def test_image_and_masks_stay_in_step_under_zoom(
    augmentation: Make, sample: Sample, scale: tuple[float, float]
) -> None:
    augment = augmentation(scale=scale, rotate90=0.5, horizontal_flip=0.5).apply
    for row in range(3):
        white = np.repeat(sample.masks[row][..., None] * np.uint8(255), 3, axis=2)
        alone = replace(sample, image=white, masks=sample.masks[row][None], object_ids=("1",))
        for epoch in range(15):
            zoomed = augment(alone, epoch)
            assert set(zoomed.size) == {40, 60}
            seen = zoomed.image[..., 0] > 127  # the padding is darker
            (mask,) = zoomed.masks
            np.testing.assert_array_equal(mask & ~ndimage.binary_dilation(seen), False)
            np.testing.assert_array_equal(seen & ~ndimage.binary_dilation(mask), False)
            assert mask.sum() == pytest.approx(seen.sum(), rel=0.3, abs=3)


def test_zoom_changes_areas_by_its_square(augmentation: Make, sample: Sample) -> None:
    small = augmentation(scale=(0.5, 0.5)).apply(sample, 0)
    assert small.masks.sum() == pytest.approx(sample.masks.sum() / 4, rel=0.1)
    assert (small.image == (124, 116, 104)).all(axis=2).sum() == 40 * 60 * 3 // 4
    whole = replace(sample, masks=np.ones((1, 40, 60), np.bool_), object_ids=("all",))
    assert augmentation(scale=(2.0, 2.0)).apply(whole, 0).masks.all()


def test_objects_that_leave_are_dropped_and_never_all(augmentation: Make, sample: Sample) -> None:
    zoom = augmentation(scale=(4.0, 4.0))
    counts = []
    for epoch in range(40):
        zoomed = zoom.apply(sample, epoch)
        assert len(zoomed.masks) == len(zoomed.object_ids) >= 1
        assert zoomed.masks.any(axis=(1, 2)).all()
        counts.append(len(zoomed.masks))
        if len(zoomed.masks) == 3:  # unchanged, because nothing would be left
            assert zoomed is sample
    assert {1, 3} <= set(counts)


def test_colour_changes_the_image_alone(augmentation: Make, sample: Sample) -> None:
    coloured = augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2).apply(sample, 3)
    assert (coloured.image != sample.image).any()
    assert coloured.image.dtype == np.uint8
    np.testing.assert_array_equal(coloured.masks, sample.masks)


def test_dark_and_bright_follow_the_factor(augmentation: Make, sample: Sample) -> None:
    factors = {round(float(augmentation(brightness=0.5).apply(sample, k).image[3, 4, 0]) / 80, 2) for k in range(30)}
    assert 0.5 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.5


def test_zoom_range_in_the_wrong_order(augmentation: Make) -> None:
    with pytest.raises(ConfigError, match=r"augmentation\.scale=\[2, 1\]: the lowest zoom comes first"):
        augmentation(scale=(2, 1))
