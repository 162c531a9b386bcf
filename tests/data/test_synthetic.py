"""Ellipses drawn on the fly: the same for the same seed, different between splits, masks as seen."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def splits(option):
    return option("data/ellipses", train=5, val=2, test=3, side=64).open(0)


def test_sizes_and_names(splits):
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [5, 2, 3]
    assert splits.train.ids[0] == "train/00000.png"
    assert splits.val.sizes == ((64, 64), (64, 64))
    assert splits.test.object_counts == tuple(len(splits.test[index].masks) for index in range(3))
    with pytest.raises(IndexError):
        splits.val[2]


def test_samples_depend_on_seed_split_and_index_only(splits, option):
    again = option("data/ellipses", train=5, val=2, test=3, side=64).open(0)
    other = option("data/ellipses", train=5, val=2, test=3, side=64).open(1)
    for index in range(5):
        assert np.array_equal(splits.train[index].image, again.train[index].image)
        assert np.array_equal(splits.train[index].masks, again.train[index].masks)
        assert not np.array_equal(splits.train[index].image, other.train[index].image)
    assert not np.array_equal(splits.train[0].image, splits.val[0].image)
    assert not np.array_equal(splits.train[0].image, splits.train[1].image)


def test_masks_do_not_overlap_and_are_brighter_than_the_background(splits):
    for index in range(5):
        sample = splits.train[index]
        assert sample.image.dtype == np.uint8
        assert sample.masks.any((1, 2)).all()
        assert sample.masks.sum(0).max() == 1
        assert sample.image[sample.masks.any(0)].mean() > sample.image[~sample.masks.any(0)].mean() + 30
