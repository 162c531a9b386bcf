"""What scenes are drawn with: dice, textures, shapes, colours, the canvas, the camera."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lora_sam.data.drawn import camera, layout, materials, noise, outlines, shapes
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.scenes import rings


@pytest.fixture
def dice():
    return Dice(np.random.default_rng(3))


def disc(centre, radius):
    return shapes.filled([outlines.place(outlines.ellipse(1, 1), centre, radius)])


def put(canvas, centre, radius, paint=(9, 9, 9), **options):
    shape = disc(centre, radius)
    return canvas.add(shape.mask, shape.at, paint, **options)


def visible(canvas, limit=99):
    return canvas.visible(limit, np.random.default_rng(0))


def test_dice_depend_on_the_generator_only():
    throws = [[d.uniform(0, 1), d.integer(0, 9), d.normal(1), d.sign()] for d in (Dice(np.random.default_rng(1)),) * 2]
    again = Dice(np.random.default_rng(1))
    assert [again.uniform(0, 1), again.integer(0, 9), again.normal(1), again.sign()] == throws[0]
    assert throws[1] != throws[0]


def test_dice_stay_within_their_limits(dice):
    assert {dice.integer(2, 4) for _ in range(100)} == {2, 3, 4}
    assert {dice.pick("ab") for _ in range(50)} == {"a", "b"}
    assert dice.integer(5, 2) == 5
    assert dice.log_uniform(5, 2) == 5
    values = [dice.log_uniform(1, 100) for _ in range(2000)]
    assert min(values) >= 1
    assert max(values) < 100
    assert np.median(values) == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize(("size", "zoom"), [((40, 25), 1.0), ((512, 512), 3.0), ((700, 30), 0.5)])
def test_textures_have_the_size_asked_for_and_contrast(dice, size, zoom):
    for kind in ("cloud", "fibre", "cell", "check"):
        picture = noise.texture(dice, size, (kind,), zoom)
        assert (picture.size, picture.mode) == (size, "L")
    assert np.std(noise.texture(dice, (300, 300))) > 25


def test_textures_are_the_same_for_the_same_dice():
    first, second = (noise.texture(Dice(np.random.default_rng(5)), (90, 90)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("size", [(20, 30), (noise.SHEET, 5), (noise.SHEET + 60, 40)])
def test_pieces_of_a_sheet_have_the_size_asked_for(dice, size):
    assert noise.Sheet(dice, ("cloud",), 1.0).piece(dice, size).size == size


def test_grain_is_centred_and_has_the_deviation_it_says(dice):
    for coarse in (False, True):
        values = np.asarray(noise.grain(dice, (200, 300), coloured=True, coarse=coarse)).astype(float)
        assert values.shape == (300, 200, 3)
        assert values.mean() == pytest.approx(128, abs=1.5)
        assert values.std() == pytest.approx(32, rel=0.1)
    grey = np.asarray(noise.grain(dice, (50, 50), coloured=False, coarse=False))
    assert (grey[..., 0] == grey[..., 1]).all()


@pytest.mark.parametrize("radius", [4.0, 30.0, 150.0, 250.0])
def test_a_filled_outline_covers_its_area_around_its_centre(radius):
    shape = disc((300.3, 310.7), radius)
    weight = np.asarray(shape.mask) / 255
    assert weight.sum() == pytest.approx(math.pi * (radius + 0.2) ** 2, rel=0.06)
    y, x = ndimage.center_of_mass(weight)
    assert (x + 0.5 + shape.at[0], y + 0.5 + shape.at[1]) == pytest.approx((300.3, 310.7), abs=0.3)


def test_holes_are_not_covered():
    shape = shapes.filled([outlines.ellipse(40, 30)], [outlines.ellipse(20, 15)])
    mask = np.asarray(shape.mask) > 127
    assert not mask[-shape.at[1], -shape.at[0]]
    assert mask[-shape.at[1], -shape.at[0] + 30]
    assert mask.sum() == pytest.approx(0.75 * math.pi * 40 * 30, rel=0.03)


def test_a_stroke_is_as_wide_as_it_says():
    shape = shapes.stroke(np.array([[10.0, 50.0], [110.0, 50.0]]), 8.0)
    column = np.asarray(shape.mask)[:, 60 - shape.at[0]] / 255
    assert column.sum() == pytest.approx(8, abs=0.6)


def test_a_shape_is_cut_at_the_edge_of_the_picture():
    shape = disc((0, 20), 10)
    inside = shape.within(64)
    assert inside.box == (0, shape.at[1], shape.box[2], shape.box[3])
    assert np.array_equal(np.asarray(inside.mask), np.asarray(shape.mask)[:, -shape.at[0] :])
    assert disc((-30, 20), 10).within(64) is None


def test_what_two_shapes_share_is_in_the_window_of_the_first():
    first, second = disc((30, 30), 10), disc((38, 30), 10)
    shared = first.common(second)
    assert shared.box == first.box
    pictures = [Image.new("L", (64, 64)) for _ in range(3)]
    for picture, shape in zip(pictures, (first, second, shared), strict=True):
        picture.paste(shape.mask, shape.at)
    one, other, both = (np.asarray(picture) for picture in pictures)
    assert np.array_equal(both, np.minimum(one, other))
    assert 0 < (both > 127).sum() < (one > 127).sum()


def test_every_family_of_outlines_is_about_as_large_as_asked_for():
    for seed in range(150):
        dice = Dice(np.random.default_rng(seed))
        outline = outlines.outline_kind(dice)(dice)
        assert outline.ndim == 2
        assert len(outline) >= 3
        assert 0.4 < np.hypot(*outline.T).max() < 1.5


def test_rings_have_a_hole_or_a_gap():
    for seed in range(60):
        dice = Dice(np.random.default_rng(seed))
        shape = rings.ring(dice, (60.0, 60.0), 50.0, dice.uniform(0.4, 1), 0.3)
        mask = np.asarray(shape.mask) > 127
        whole = Image.new("1", (120, 120))
        whole.paste(Image.fromarray(mask), shape.at)
        centre = whole.getpixel((60, 60))
        assert mask.any()
        assert not centre or ndimage.binary_fill_holes(mask).sum() > mask.sum() + 20, seed


def test_islands_stay_in_their_circle(dice):
    for _ in range(20):
        shape = shapes.island(dice, (50, 50), 40)
        y, x = np.nonzero(np.asarray(shape.mask) > 127)
        assert np.hypot(x + shape.at[0] - 50, y + shape.at[1] - 50).max(initial=0) < 42


def test_a_palette_runs_through_its_colours():
    colours = np.frombuffer(materials.palette([(0, 0, 0), (200, 100, 50), (255, 255, 255)], (0, 100, 255)), np.uint8)
    colours = colours.reshape(256, 3)
    assert colours[[0, 100, 255]].tolist() == [[0, 0, 0], [200, 100, 50], [255, 255, 255]]
    assert (np.diff(colours.astype(int), axis=0) >= 0).all()
    picture = materials.coloured(Image.new("L", (2, 2), 100), colours.tobytes())
    assert picture.getpixel((1, 1)) == (200, 100, 50)


def test_a_colour_apart_is_never_farther_than_asked_for(dice):
    for _ in range(200):
        base = materials.colour(dice)
        other = materials.apart(dice, base, 20, 60)
        assert max(abs(a - b) for a, b in zip(base, other, strict=True)) <= 61
        assert all(0 <= part <= 255 for part in other)


def test_what_is_in_front_covers_what_is_behind():
    canvas = Canvas(64)
    put(canvas, (25, 32), 12, (255, 0, 0))
    put(canvas, (37, 32), 12, (0, 255, 0))
    back, front = visible(canvas)
    assert not (back & front).any()
    assert front.sum() == pytest.approx(math.pi * 144, rel=0.03)
    assert 0.35 * front.sum() < back.sum() < 0.8 * front.sum()
    assert canvas.picture.getpixel((31, 32)) == (0, 255, 0)
    assert canvas.picture.getpixel((18, 32)) == (255, 0, 0)


def test_hardly_visible_and_tiny_objects_are_dropped():
    canvas = Canvas(64)
    put(canvas, (25, 32), 12)
    put(canvas, (28, 32), 12, label=False)  # clutter: covers, and is no object
    put(canvas, (55, 8), 2)
    assert len(visible(canvas)) == 0
    assert visible(canvas).shape == (0, 64, 64)


def test_the_part_outside_the_picture_does_not_count_as_covered():
    canvas = Canvas(64)
    put(canvas, (-6, 32), 14)
    put(canvas, (200, 200), 14)
    (mask,) = visible(canvas)
    assert mask[:, 0].any()


def test_a_random_choice_is_labelled_when_there_are_more():
    canvas = Canvas(128)
    for k in range(36):
        put(canvas, (10 + 20 * (k % 6), 10 + 20 * (k // 6)), 4 + k / 9)
    sizes = [np.sort(canvas.visible(6, np.random.default_rng(seed)).sum((1, 2))) for seed in range(60)]
    assert all(len(chosen) == 6 for chosen in sizes)
    assert np.mean(sizes) == pytest.approx(visible(canvas).sum((1, 2)).mean(), rel=0.1)


def test_a_whole_includes_its_part_and_a_group_its_members():
    canvas = Canvas(64)
    whole = put(canvas, (30, 30), 20)
    part = put(canvas, (30, 30), 8)
    canvas.include(whole, part)
    other = put(canvas, (58, 58), 5)
    canvas.group([part, other])
    masks = visible(canvas)
    assert len(masks) == 4
    assert masks[0].sum() == pytest.approx(math.pi * 400, rel=0.03)
    assert (masks[0] & masks[1]).sum() == masks[1].sum() > 0
    assert np.array_equal(masks[3], masks[1] | masks[2])


def test_scattered_discs_keep_their_distance(dice):
    radii = dice.array.uniform(5, 15, 60)
    found = layout.scatter(dice, 200, radii, gap=1.0)
    assert len(found) > 20
    for k, (index, (x, y), radius) in enumerate(found):
        assert radius == radii[index]
        for _, (u, v), other in found[:k]:
            assert math.hypot(x - u, y - v) >= radius + other


@pytest.mark.parametrize("least", [8.0, 24.0])
def test_diameters_stay_within_their_limits(dice, least):
    for _ in range(100):
        low, high = layout.diameters(dice, 128, least)
        radii = layout.radii_between(dice, low, high, 5)
        assert least <= low <= high <= 0.8 * 128
        assert low / 2 <= radii.min() <= radii.max() <= high / 2


def test_blur_moves_nothing():
    picture = Image.new("L", (128, 128))
    shape = disc((60.5, 70.5), 20)
    picture.paste(255, shape.box, shape.mask)
    for sigma in (0.8, 1.5, 4.0):
        y, x = ndimage.center_of_mass(np.asarray(camera.soft(picture, sigma)).astype(float))
        assert (x + 0.5, y + 0.5) == pytest.approx((60.5, 70.5), abs=0.2)


def test_the_camera_hides_faint_objects_less():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(np.full((96, 96, 3), 120, np.uint8))

    def roughness(faint):
        taken = [camera.photographed(Dice(rng), picture, faint=faint) for _ in range(80)]
        assert all((p.mode, p.size) == ("RGB", (96, 96)) for p in taken)
        return np.mean([np.abs(np.diff(np.asarray(p).astype(int), axis=1)).mean() for p in taken])

    assert roughness(True) < roughness(False) / 3
