"""Scenes that look like the world: labels agree with what is seen, parts with their wholes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lora_sam.core.seeds import generator_for
from lora_sam.data.drawn import layers, lens, spectra, staging
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.scenes import STYLES
from lora_sam.data.drawn.scenes.animals import bird, fish, insect, quadruped
from lora_sam.data.drawn.scenes.city import bicycle, boat, car, house, lamp, truck
from lora_sam.data.drawn.scenes.fabric import bag, cable, cloth, garment
from lora_sam.data.drawn.scenes.figures import person
from lora_sam.data.drawn.scenes.foliage import conifer, flower, pot_plant, tree
from lora_sam.data.drawn.scenes.print import page, sign
from lora_sam.data.drawn.scenes.solids import chair, crate, globe, stack, table, turned_body
from lora_sam.data.drawn.shapes import filled

FIRST = 13
NEW = tuple(STYLES)[FIRST:]
MAKERS = (
    *(person, quadruped, bird, fish, insect, tree, conifer, flower, pot_plant, house, car, truck, bicycle, boat, lamp),
    *(crate, turned_body, globe, stack, chair, table, page, sign, garment, cloth, bag, cable),
)
SQUARE = np.array([(0.0, 0.0), (20.0, 0.0), (20.0, 20.0), (0.0, 20.0)])


def dice(*key: int) -> Dice:
    return Dice(generator_for(0, "scenes", *key))


@pytest.fixture
def drawn(option):
    def make(style, count, side=160, labelled=100):
        train = (
            option("data/world", train=1000, val=9, test=9, side=side, styles=[style], labelled=labelled).open(3).train
        )
        return [train[index] for index in range(count)]

    return make


def painted(*outlines, tones=((200, 40, 40), (40, 200, 40))):
    painter = layers.Painter(60, 60)
    for outline, tone in zip(outlines, tones, strict=False):
        painter.fill(outline, tone)
    return painter


@pytest.mark.parametrize("style", NEW)
def test_labels_differ_from_what_is_around_them(drawn, style):
    """Inside and just outside of an object differ in light, colour or texture, in most cases."""
    differs = []
    for sample in drawn(style, 10):
        values = ndimage.gaussian_filter(sample.image.astype(float), (0.7, 0.7, 0))
        for mask in sample.masks[:12]:
            inside = mask & ~ndimage.binary_erosion(mask, iterations=5)
            around = ndimage.binary_dilation(mask, iterations=4) & ~ndimage.binary_dilation(mask)
            if around.sum() > 20:
                first, second = values[inside], values[around]
                means = np.abs(first.mean(0) - second.mean(0)).max()
                spreads = np.abs(first.std(0) - second.std(0)).max()
                differs.append(max(means, spreads) > 4)
    assert len(differs) > 15
    assert np.mean(differs) > 0.75


@pytest.mark.parametrize("style", NEW)
def test_labels_are_seen_and_each_is_another(drawn, style):
    pieces, alike = [], 0
    for sample in drawn(style, 6):
        assert (sample.masks.sum((1, 2)) >= 20).all()
        alike += len(sample.masks) - len({mask.tobytes() for mask in sample.masks})
        for mask in sample.masks:
            parts, _ = ndimage.label(mask, np.ones((3, 3)))
            pieces.append(np.bincount(parts.ravel())[1:].max() / mask.sum())
    assert np.mean(np.array(pieces) > 0.6) > 0.85, "most are in one piece, or have one that is by far the largest"
    assert alike <= 0.15 * len(pieces)


@pytest.mark.parametrize("style", ["figures", "city", "solids", "tissue", "electron", "medley"])
def test_wholes_contain_their_parts(drawn, style):
    depth = [sample.masks.sum(0).max() for sample in drawn(style, 12, side=256)]
    assert np.mean(np.array(depth) >= 2) >= 0.7


@pytest.mark.parametrize("style", ["leaves", "glass", "foliage", "aerial", "smear"])
def test_new_scenes_are_the_same_for_the_same_seed(drawn, style):
    first, again = (
        hashlib.sha256(b"".join(sample.image.tobytes() + sample.masks.tobytes() for sample in drawn(style, 3))).digest()
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("height", [14.0, 120.0])
def test_a_thing_covers_what_its_parts_own(maker, height):
    for key in range(6):
        layer = maker(dice(key), height)
        assert layer.picture.size == layer.cover.size == layer.parts.size
        parts, cover = np.asarray(layer.parts), np.asarray(layer.cover)
        known = {number for label in layer.labels for number in label}
        assert parts.max() > 0
        assert set(np.unique(parts[parts > 0]).tolist()) <= known
        least = 0.95 if height > 100 else 0.9  # thin lines of small things cover pixels by half
        assert np.mean(cover[parts > 0] >= 100) > least, "what a part owns is seen"
        assert np.mean((cover >= 160) <= (parts > 0)) > least, "what is seen belongs to a part"
        seen = np.asarray(layer.picture).max(2)
        assert (seen <= cover.astype(int) + 2).all(), "colours are multiplied by coverage"


def test_a_stamp_owns_its_parts_and_later_ones_do_not_share_its_numbers():
    canvas = Canvas(100)
    painter = painted(SQUARE + 5, SQUARE + 30)
    painter.label(1)
    hidden = painter.fill(SQUARE + 2, (1, 2, 3))
    painter.fill(SQUARE * 1.3, (9, 9, 9))  # wholly covers the part before
    painter.label(hidden)
    layer = painter.layer()
    canvas.stamp(layer, (0, 0))
    canvas.stamp(layer, (45, 45))
    masks = canvas.visible(50, np.random.default_rng(0))
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    first = np.zeros((100, 100), bool)
    first[: layer.size[1], : layer.size[0]] = np.asarray(layer.parts) > 0
    whole = max((mask for mask in masks if mask[2, 2]), key=lambda mask: mask.sum())
    assert (whole == first & ~np.pad(first, ((45, 0), (45, 0)))[:100, :100]).all()


def test_a_stamp_over_the_edge_is_cut_and_one_outside_is_nothing():
    canvas = Canvas(64)
    layer = painted(SQUARE + 5).layer()
    canvas.stamp(layer, (200, 0))
    assert not canvas.objects
    canvas.stamp(layer, (-10, 50))
    mask = canvas.visible(5, np.random.default_rng(0))[0]
    assert mask.sum() == pytest.approx(11 * 14, abs=30)
    assert np.asarray(canvas.picture)[55, 2].tolist() == [200, 40, 40]


def test_a_hole_shows_the_ground_and_belongs_to_nobody():
    painter = painted(SQUARE * 2)
    painter.erase(filled([SQUARE * 0.5 + 10]))
    canvas = Canvas(64)
    canvas.picture.paste((7, 8, 9), (0, 0, 64, 64))
    layer = painter.layer()
    canvas.stamp(layer, (0, 0))
    mask = canvas.visible(5, np.random.default_rng(0))[0]
    assert not mask[15, 15]
    assert mask[5, 5]
    assert np.asarray(canvas.picture)[15, 15].tolist() == [7, 8, 9]


def test_sheer_things_let_the_ground_through_and_own_their_pixels():
    layer = layers.sheer(painted(SQUARE).layer(), 0.75)
    canvas = Canvas(64)
    canvas.picture.paste((100, 100, 100), (0, 0, 64, 64))
    canvas.stamp(layer, (0, 0))
    assert np.asarray(canvas.picture)[10, 10].tolist() == pytest.approx([125, 85, 85], abs=3)
    assert canvas.visible(5, np.random.default_rng(0))[0][10, 10]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layers.lit(layer, 1.0, 1.0),
        lambda layer: layers.hazed(layer, (90, 120, 150), 0.5),
        lambda layer: layers.defocused(layer, 2.0),
        lambda layer: layers.moved(layer, 4.0),
        lambda layer: layers.mirrored(layers.mirrored(layer)),
        lambda layer: layers.textured(layer, Image.new("L", layer.size, 90), 1.0),
    ],
)
def test_light_air_and_focus_leave_labels_where_they_are(change):
    layer = painted(SQUARE + 10, SQUARE * 0.5 + 12).layer()
    changed = change(layer)
    stamped = []
    for one in (layer, changed):
        canvas = Canvas(64)
        canvas.stamp(one, one.at((32, 50)))
        stamped.append(canvas.visible(9, np.random.default_rng(0)))
    assert np.array_equal(*stamped)
    assert (np.asarray(changed.picture).max(2) <= np.asarray(changed.cover).astype(int) + 2).all()


def test_turned_and_warped_things_keep_picture_and_labels_together():
    layer = painted(SQUARE * 2).layer()
    for changed in (layers.turned(layer, 0.6), layers.warped(dice(1), layer, 0.1)):
        cover, parts = np.asarray(changed.cover) >= 128, np.asarray(changed.parts) > 0
        assert (cover & parts).sum() / (cover | parts).sum() > 0.93


def test_spectra_of_photographs_fall_with_frequency():
    values = np.asarray(spectra.field(dice(0), (512, 512), ("pink",))).astype(float)
    power = np.abs(np.fft.fft2(values - values.mean())) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512)))
    bands = [power[(radius >= low) & (radius < 2 * low)].mean() for low in (0.01, 0.02, 0.04, 0.08, 0.16)]
    slopes = np.diff(np.log2(bands))
    assert (slopes < -0.8).all()
    assert (slopes > -4).all()


def test_a_coloured_texture_has_the_mean_that_was_asked_for():
    means = [np.asarray(spectra.photo(dice(key), (64, 64), (120, 90, 140), 0.2, 1.0)).mean((0, 1)) for key in range(12)]
    assert np.mean(means, axis=0).tolist() == pytest.approx([120, 90, 140], abs=12)


def test_the_lens_keeps_things_in_their_place():
    picture = Image.new("RGB", (128, 128), (60, 60, 60))
    picture.paste((200, 200, 200), (40, 30, 90, 80))
    mask = np.zeros((128, 128), bool)
    mask[30:80, 40:90] = True
    for key in range(20):
        taken = np.asarray(lens.taken(dice(key), picture))
        assert taken.shape == (128, 128, 3)
        grey = taken.astype(float).mean(2)
        assert abs(np.median(grey[mask]) - np.median(grey[~mask])) > 8
    for change in (lens.shaken, lens.fringed):
        change_at = [np.asarray(change(dice(key), picture)).astype(float)[..., 1] > 130 for key in range(5)]
        assert all((found & mask).sum() / (found | mask).sum() > 0.85 for found in change_at)


def test_noise_of_a_sensor_grows_with_light():
    dark, bright = (Image.new("RGB", (128, 128), (level,) * 3) for level in (15, 200))
    spread = [np.mean([np.asarray(lens.sensed(dice(key), one)).std() for key in range(12)]) for one in (dark, bright)]
    assert spread[1] > 1.3 * spread[0] > 0


def test_farther_things_are_smaller_and_stand_higher():
    canvas = Canvas(256)
    place = staging.place(dice(4), canvas, outdoors=True)
    found = []

    def maker(_, height):
        found.append(height)
        return painted(SQUARE).layer()

    for key in range(12):
        staging.populate(dice(key, 1), canvas, place, (maker,), 12)
    assert min(found) >= 14
    assert max(found) > 2 * min(found)
