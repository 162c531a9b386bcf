"""Scenes drawn on the fly: the same for the same seed, different between splits, masks as seen."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

from lora_sam.data.drawn.procedural import Style
from lora_sam.data.drawn.scenes import STYLES


@pytest.fixture
def opened(option):
    def make(seed=0, **changes):
        return option("data/synthetic", **({"train": 1000, "val": 9, "test": 9, "side": 128} | changes)).open(seed)

    return make


def test_the_styles_of_the_configuration_are_those_that_can_be_drawn(option):
    assert get_args(Style) == tuple(STYLES)
    first, world, held_out = (set(option(f"data/{name}").styles) for name in ("synthetic", "world", "world_held_out"))
    assert first < world
    assert not held_out & world, "what chooses weights is not trained on"
    assert world | held_out == set(STYLES)


def test_millions_of_images_are_described_without_drawing(opened):
    train = opened(train=10_000_000).train
    assert len(train) == len(train.ids) == len(train.sizes) == 10_000_000
    assert train.ids[0] == "train/0000000.png"
    assert train.ids[-1] == "train/9999999.png"
    assert list(train.ids[5:7]) == ["train/0000005.png", "train/0000006.png"]
    assert train.sizes[123] == (128, 128)
    assert train.object_counts is None
    assert train[9_999_999].id == train.ids[-1]
    for beyond in (10_000_000, -1):
        with pytest.raises(IndexError):
            train[beyond]
    with pytest.raises(IndexError):
        train.ids[10_000_000]


def test_samples_depend_on_seed_split_and_index_only(opened):
    first, again, other = opened(), opened(val=3), opened(seed=1)
    for index in (4, 0, 2):
        sample = first.train[index]
        assert np.array_equal(sample.image, again.train[index].image)
        assert np.array_equal(sample.masks, again.train[index].masks)
        assert not np.array_equal(sample.image, other.train[index].image)
        assert not np.array_equal(sample.image, first.val[index].image)
        assert not np.array_equal(sample.image, first.train[index + 1].image)


def test_samples_are_the_same_in_another_process(opened):
    code = (
        "import hashlib, pickle, sys\n"
        "source = pickle.load(sys.stdin.buffer)\n"
        "print(hashlib.sha256(b''.join(source[k].image.tobytes() for k in (7, 3))).hexdigest())\n"
        "print('torch' in sys.modules)\n"
    )
    source = opened().train
    answer = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(source), capture_output=True, check=True)
    here = hashlib.sha256(b"".join(source[k].image.tobytes() for k in (7, 3))).hexdigest()
    assert answer.stdout.decode().split() == [here, "False"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("side", [64, 200])
def test_every_style_draws(opened, style, side):
    train = opened(styles=[style], side=side, labelled=5).train
    several = 0
    for index in range(12):
        sample = train[index]
        assert sample.image.shape == (side, side, 3)
        assert sample.image.dtype == np.uint8
        assert sample.masks.dtype == np.bool_
        assert sample.masks.shape == (len(sample.object_ids), side, side)
        assert 1 <= len(sample.masks) <= 5
        assert (sample.masks.sum((1, 2)) >= 20).all()
        several += len(sample.masks) > 1
    assert several or side == 64


@pytest.mark.parametrize("style", ["natural", "fluorescence", "stained", "holed", "cluster", "mosaic", "subtle"])
def test_objects_do_not_overlap_where_none_is_part_of_another(opened, style):
    train = opened(styles=[style], labelled=100).train
    for index in range(8):
        assert train[index].masks.sum(0).max() == 1


def test_parts_lie_within_their_wholes(opened):
    train = opened(styles=["nested"], labelled=100).train
    assert sum(train[index].masks.sum(0).max() == 2 for index in range(8)) >= 6


def test_holed_things_have_holes(opened):
    train = opened(styles=["holed"], labelled=20, side=256).train
    masks = [mask for index in range(10) for mask in train[index].masks]
    holed = [ndimage.binary_fill_holes(mask).sum() > mask.sum() for mask in masks]
    assert np.mean(holed) > 0.4


def test_objects_can_be_seen(opened):
    """Inside and just outside of an object differ in most cases, compared with two halves of the outside."""
    train = opened(styles=["fluorescence", "stained", "natural", "cluster"], side=200).train
    differs = []
    for index in range(24):
        sample = train[index]
        values = sample.image.astype(float).mean(2)
        free = ~sample.masks.any(0)
        for mask in sample.masks:
            around = ndimage.binary_dilation(mask, iterations=4) & free
            if around.sum() > 20:
                differs.append(abs(values[mask].mean() - values[around].mean()) > 3)
    assert np.mean(differs) > 0.6


def test_sizes_are_pixels_whatever_the_side(opened):
    def median(side):
        train = opened(styles=["fluorescence", "stained", "brightfield"], side=side, labelled=200).train
        areas = [np.median(train[index].masks.sum((1, 2))) for index in range(60)]
        return float(np.median(np.sqrt(areas)))

    small, large = median(128), median(256)
    assert large == pytest.approx(small, rel=0.3)
    assert 12 < large < 40


def test_an_image_without_objects_gets_one(opened, monkeypatch):
    monkeypatch.setitem(STYLES, "natural", lambda dice, canvas: None)
    sample = opened(styles=["natural"]).train[0]
    assert len(sample.masks) == 1
    assert sample.masks[0].sum() > 1000
    assert np.array_equal(sample.masks, opened(styles=["natural"]).train[0].masks)


def test_tiled_images_are_four_scenes(opened):
    tiled, mixed, plain = (opened(side=129, tiled_share=share).train for share in (1.0, 0.5, 0.0))
    for index in range(6):
        sample = tiled[index]
        assert sample.image.shape == (129, 129, 3)
        assert np.array_equal(sample.image, tiled[index].image)
        quarters = [sample.masks[:, rows, columns].any((1, 2)) for rows in HALVES for columns in HALVES]
        assert (np.sum(quarters, axis=0) == 1).all(), "an object lies in one quarter"
        assert all(quarter.any() for quarter in quarters), "every quarter has an object"
        assert len(sample.masks) == len(sample.object_ids)
    alike = [np.array_equal(mixed[index].image, plain[index].image) for index in range(12)]
    assert not any(alike), "the draw itself moves the dice"
    assert len({mixed[index].masks.shape[0] for index in range(12)}) > 1


HALVES = (slice(0, 64), slice(65, 129))
