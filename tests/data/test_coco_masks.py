from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from lora_sam.core.errors import DataError
from lora_sam.data.reading.coco_masks import MAX_OUTLINE, MAX_VERTICES, EncodedMasks, encode
from lora_sam.data.reading.numbers import are_numbers, as_float, is_number
from lora_sam.data.reading.rle import windows_of

SIZE = (13, 17)


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = np.concatenate(([False], mask.ravel(order="F")))
    edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def test_long_runs_survive_compression() -> None:
    mask = np.zeros((1500, 2000), np.bool_)
    mask[700:, 900:1100] = True
    mask[3, 4] = True
    assert encode(compressed(mask), mask.shape) == encode(uncompressed(mask), mask.shape)


def test_polygons_are_rasterised_as_by_pycocotools_and_equal_their_rle_forms() -> None:
    polygons = [[2.5, 1.2, 9.9, 2.0, 8.1, 10.7, 3.3, 7.0], [11, 8, 16, 8, 16, 12]]
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE))
    expected = coco_mask.decode([rle])[..., 0].astype(bool)
    counts, area = encode(polygons, SIZE)
    assert area == expected.sum() == 54
    masks = EncodedMasks((counts, *(encode(form(expected), SIZE)[0] for form in (uncompressed, compressed)))).read(SIZE)
    assert masks.dtype == np.bool_
    assert masks.shape == (3, *SIZE)
    for mask in masks:
        np.testing.assert_array_equal(mask, expected)


def test_encoded_masks_have_the_bits_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for case in range(100):
        shape = (int(rng.integers(3, 9)), 2)
        # half of the corners on whole pixels, some outside the image
        corners = rng.uniform(-2, 1.2 * max(SIZE), shape) if case % 2 else rng.integers(0, 14, shape).astype(float)
        rle = coco_mask.frPyObjects([corners.ravel().tolist()], *SIZE)[0]
        if coco_mask.area(rle):
            assert encode([corners.ravel().tolist()], SIZE) == (rle["counts"], coco_mask.area(rle))
        mask = rng.random(SIZE) < rng.random()
        if mask.any():
            assert encode(uncompressed(mask), SIZE)[0] == coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]


def test_polygons_are_cut_at_the_image() -> None:
    counts, area = encode([[-5, -5, 4, -5, 4, 3, -5, 3]], SIZE)
    np.testing.assert_array_equal(np.argwhere(EncodedMasks((counts,)).read(SIZE)[0])[[0, -1]], [[0, 0], [2, 3]])
    assert area == 12


def lists_in_lists(levels: int) -> list[Any]:
    """As many as JSON may hold from Python 3.13 on."""
    outer: list[Any] = [1, 1, 5, 1, 5, 5]
    for _ in range(levels):
        outer = [outer]
    return outer


def test_polygons_that_a_tool_nested_too_deep_are_polygons() -> None:
    assert all(encode(lists_in_lists(levels), SIZE) == encode(lists_in_lists(1), SIZE) for levels in range(10))
    with pytest.raises(DataError, match="not a flat list of finite numbers"):  # no tool does that
        encode(lists_in_lists(10), SIZE)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "has no segmentation; boxes alone"),
        ("text", "has no segmentation"),
        ([], "has an empty segmentation"),
        ([[1, 1, 5, 1]], "polygon of 4 numbers; it takes an even count, and at least 3 points"),
        ([[1, 1, 5, 1, 5, 5, 2]], "polygon of 7 numbers"),
        ([1, 1, 5, 1, 5, "5"], "not a flat list of finite numbers"),
        ([[1, 1, 5, 1, 5, float("nan")]], "not a flat list of finite numbers"),
        ([[1, 1, 5, 1, 5, float("inf")]], "not a flat list of finite numbers"),
        ([[1, 1, 5, 1, 5, "5"]], "not a flat list of finite numbers"),
        ([[1, 1, 5, 1, 5, True]], "not a flat list of finite numbers"),
        ([[1, 1, 5, 1, 5, 10**400]], "far outside the image of 17x13 pixels"),
        ([[1, 1, 5, 1, 5, 1e9]], "far outside the image"),
        ([[-30, 1, 5, 1, 5, 5]], "far outside the image"),
        ([[1, 1] * (MAX_VERTICES + 1)], "more than 100000 polygon vertices"),
        (lists_in_lists(5000), "not a flat list of finite numbers"),
        ([[20, 1, 25, 1, 25, 5]], r"empty mask \(no pixel inside the image\)"),
        ({"size": [17, 13], "counts": [221]}, r"RLE of size \[17, 13\], but its image is \[13, 17\]"),
        ({"counts": [221]}, "RLE of size None"),
        ({"size": [13, 17]}, "neither a string nor whole numbers"),
        ({"size": [13, 17], "counts": [200, -1, 22]}, "neither a string nor whole numbers"),
        ({"size": [13, 17], "counts": [221.0]}, "neither a string nor whole numbers"),
        ({"size": [13, 17], "counts": [10**30]}, "neither a string nor whole numbers"),
        ({"size": [13, 17], "counts": [200, 20]}, "runs of 220 pixels; height \\* width is 221"),
        ({"size": [13, 17], "counts": [200, 22]}, "runs of 222 pixels"),
        ({"size": [13, 17], "counts": []}, "runs of 0 pixels"),
        ({"size": [13, 17], "counts": [221]}, "empty mask"),
        ({"size": [13, 17], "counts": ""}, "damaged compressed RLE"),
        ({"size": [13, 17], "counts": "P"}, "damaged compressed RLE"),  # says that it goes on, and ends
        ({"size": [13, 17], "counts": "!"}, "damaged compressed RLE"),
        ({"size": [13, 17], "counts": "\x7f"}, "damaged compressed RLE"),
        ({"size": [13, 17], "counts": "é"}, "damaged compressed RLE"),
        ({"size": [13, 17], "counts": "o" * 8 + "1"}, "damaged compressed RLE"),  # a value of 45 bits
        ({"size": [13, 17], "counts": "O"}, "a run of -1 pixels"),
        ({"size": [13, 17], "counts": "oooo0"}, "a run of 1048575 pixels"),
        ({"size": [13, 17], "counts": "ok1"}, "runs of 25 pixels|a run of"),
    ],
)
def test_bad_segmentations_are_refused_before_c_code_sees_them(segmentation: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(segmentation, SIZE)


@pytest.mark.parametrize(
    "runs", [[5, 3, 0, 2, 211], [0, 221], [3, 0, 2, 16, 200], [13, 26, 182], [30, 4, 5, 0, 4, 9, 169], [220, 1]]
)
def test_runs_of_no_pixels_and_over_columns(runs: list[int]) -> None:
    counts, area = encode({"size": list(SIZE), "counts": runs}, SIZE)
    expected = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(SIZE[::-1]).T
    np.testing.assert_array_equal(EncodedMasks((counts,)).read(SIZE)[0], expected)
    assert area == expected.sum()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), True, "1", None])
def test_what_is_no_number(value: object) -> None:
    assert not is_number(value)
    assert not are_numbers([1.0, value, 2])


@pytest.mark.parametrize("value", [0, -1.5, 10**400, 1e308])
def test_what_is_a_number(value: float) -> None:
    assert is_number(value)
    assert are_numbers([1.0, value, 2])


def test_no_mask_has_no_box() -> None:
    found = windows_of([], (4, 5))
    assert found.boxes.shape == (0, 4)
    assert (len(found), found.size) == (0, (4, 5))


def test_what_is_left_out_is_ignored_and_nothing_else() -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[2:5, 3:9] = True
    (counts, _), (other, _) = encode(compressed(mask), SIZE), encode(compressed(np.roll(mask, 5, axis=0)), SIZE)
    assert EncodedMasks((counts,)).ignored_pixels(SIZE) is None
    ignored = EncodedMasks((counts,), left_out=(other,)).ignored_pixels(SIZE)
    assert ignored is not None
    np.testing.assert_array_equal(ignored, np.roll(mask, 5, axis=0))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_hole_at_the_edge_of_its_outline_is_a_hole(first: int) -> None:
    """The first pixels of the mask, which its run lengths begin with, and boxes that share sides."""
    outer = [0, 0, 12, 0, 12, 10, 0, 10]
    hole = [0, first, 4, first, 4, first + 5, 0, first + 5]
    counts, area = encode([outer, hole], SIZE, "auto")
    mask = EncodedMasks((counts,)).read(SIZE)[0]
    expected = np.zeros(SIZE, np.bool_)
    expected[:10, :12] = True
    expected[first : first + 5, :4] = False
    np.testing.assert_array_equal(mask, expected)
    assert area == expected.sum()


def test_long_outlines_are_measured_exactly_before_they_are_refused() -> None:
    """A saw of small teeth has a bound far above its length."""
    size = (2000, 2000)
    teeth = MAX_VERTICES // 4
    x = np.linspace(0, 1999, teeth)
    saw = np.stack([x, 1000 + (np.arange(teeth) % 2)], axis=1)
    polygon = np.concatenate([saw, [[1999, 1990], [0, 1990]]]).ravel().tolist()
    assert 1999 * (len(polygon) // 2) > MAX_OUTLINE
    _, area = encode([polygon], size)
    assert 1_900_000 < area < 2_000_000
    far = np.stack([np.tile([0.0, 1999.0], teeth // 2), np.linspace(0, 1999, teeth)], axis=1).ravel().tolist()
    with pytest.raises(DataError, match="outlines of more than"):
        encode([far], size)


@pytest.mark.parametrize(("strokes", "refused"), [(1000, False), (1002, True)])
def test_outlines_of_two_million_pixels_are_the_longest(strokes: int, refused: bool) -> None:
    zigzag = np.stack([np.arange(strokes) % 2 * 2000, np.linspace(0, 2000, strokes)], axis=1).ravel().tolist()
    assert 2000 * strokes == MAX_OUTLINE + 4000 * refused
    if refused:
        with pytest.raises(DataError, match="has outlines of more than 2000000 pixels; simplify them or"):
            encode([zigzag], (2000, 2000))
        with pytest.raises(DataError, match="has outlines of more than 2000000 pixels"):
            encode([zigzag[: strokes // 2 * 2], zigzag[: strokes // 2 * 2 + 4]], (2000, 2000))
    else:
        assert encode([zigzag], (2000, 2000))[1] > 0


def test_polygons_whose_boxes_lie_inside_each_other_but_not_they_are_no_hole() -> None:
    triangle = [0, 0, 12, 0, 0, 12]
    corner = [4, 4, 11, 4, 11, 11, 4, 11]  # in the box of the triangle, and across its long side
    both = [encode([one], SIZE)[0] for one in (triangle, corner)]
    expected = EncodedMasks(tuple(both)).read(SIZE).any(axis=0)
    counts, _ = encode([triangle, corner], SIZE, "auto")
    np.testing.assert_array_equal(EncodedMasks((counts,)).read(SIZE)[0], expected)


def test_whole_numbers_beyond_floats_become_the_nearest_float() -> None:
    assert as_float(10**400) == sys.float_info.max
    assert as_float(-(10**400)) == -sys.float_info.max
    assert as_float(-3) == -3.0


def rectangle(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def filled(*rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """Pixels that an odd number of rectangles cover."""
    mask = np.zeros(SIZE, np.bool_)
    for left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] ^= True
    return mask


def read(segmentation: object, *how: Any) -> np.ndarray:
    counts, area = encode(segmentation, SIZE, *how)
    mask = EncodedMasks((counts,)).read(SIZE)[0]
    assert area == mask.sum()
    return np.asarray(mask)


OUTER, HOLE, ISLAND = (1, 1, 13, 12), (3, 3, 11, 10), (5, 5, 8, 7)


@pytest.mark.parametrize(
    ("rings", "stated", "holes"),
    [
        ("union", 76, False),
        ("even_odd", 132, True),
        ("auto", None, True),
        ("auto", "76", True),
        ("auto", 76, True),
        ("auto", 103, True),
        ("auto", 104, False),  # as far from the one as from the other
        ("auto", 105, False),
        ("auto", 132, False),
    ],
)
def test_a_ring_inside_another_is_what_was_asked_for_or_what_the_area_says(
    rings: str, stated: object, holes: bool
) -> None:
    mask = read([rectangle(*OUTER), rectangle(*HOLE)], rings, stated)
    np.testing.assert_array_equal(mask, filled(OUTER, HOLE) if holes else filled(OUTER))


def test_an_island_in_a_hole_is_part_of_the_object() -> None:
    polygons = [rectangle(*one) for one in (OUTER, HOLE, ISLAND)]
    for rings in ("auto", "even_odd"):
        np.testing.assert_array_equal(read(polygons, rings), filled(OUTER, HOLE, ISLAND))
    np.testing.assert_array_equal(read(polygons), filled(OUTER))
    corner = (5, 4, 13, 12)  # shares two sides with what it is cut out of
    np.testing.assert_array_equal(read([rectangle(*OUTER), rectangle(*corner)], "auto"), filled(OUTER, corner))
    upright = (12, 3, 14, 11)
    for rings in ("auto", "even_odd"):
        np.testing.assert_array_equal(read([rectangle(*OUTER[:2], 16, 12), rectangle(*upright)], rings), filled(
            (*OUTER[:2], 16, 12), upright
        ))  # fmt: skip
    # whichever comes first
    np.testing.assert_array_equal(read(polygons[::-1], "auto"), filled(OUTER, HOLE, ISLAND))


def test_parts_that_overlap_and_one_outside_of_the_image_are_one_object() -> None:
    """None lies inside another one, so nothing of it is a hole, whatever the area says."""
    beside = [(1, 1, 6, 6), (4, 4, 9, 9)]
    both = filled(beside[0]) | filled(beside[1])
    polygons = [rectangle(*one) for one in beside]
    np.testing.assert_array_equal(read(polygons, "auto", 42), both)
    np.testing.assert_array_equal(read(polygons, "even_odd"), filled(*beside))
    outside = rectangle(20, 1, 25, 5)
    np.testing.assert_array_equal(read([*polygons, outside, outside], "auto", 42), both)


def test_outlines_through_centres_are_part_of_the_object() -> None:
    outline = rectangle(2, 3, 8, 9)
    np.testing.assert_array_equal(read([outline], "union", None, "edges"), filled((2, 3, 8, 9)))
    np.testing.assert_array_equal(read([outline], "union", None, "centres"), filled((2, 3, 9, 10)))
    half = [value - 0.5 for value in outline]
    np.testing.assert_array_equal(read([half], "union", None, "between"), filled((2, 3, 8, 9)))


def test_polygons_of_points_are_polygons() -> None:
    flat = rectangle(2, 3, 8, 9)
    points = [flat[place : place + 2] for place in range(0, 8, 2)]
    for form in (points, [points], [[points]]):
        np.testing.assert_array_equal(read(form), filled((2, 3, 8, 9)))
    with pytest.raises(DataError, match="not a flat list of finite numbers"):
        encode([points, flat], SIZE)


def test_points_and_lines_beside_a_polygon_enclose_nothing() -> None:
    np.testing.assert_array_equal(read([[9, 9], rectangle(2, 3, 8, 9), [1, 1, 12, 12]]), filled((2, 3, 8, 9)))
    for alone in ([[9, 9]], [[1, 1, 12, 12], [9, 9]]):
        with pytest.raises(DataError, match=rf"polygon of {len(alone[0])} numbers"):
            encode(alone, SIZE)
    with pytest.raises(DataError, match="not a flat list of finite numbers"):
        encode([[9, "9"], rectangle(2, 3, 8, 9)], SIZE)


@pytest.mark.parametrize(
    ("polygon", "refused"),
    [
        ([-17, 1, 34, 1, 5, 5], False),
        ([-18, 1, 34, 1, 5, 5], True),
        ([-17, 1, 35, 1, 5, 5], True),
        ([1, -13, 5, 26, 5, 5], False),
        ([1, -14, 5, 26, 5, 5], True),
        ([1, -13, 5, 27, 5, 5], True),
    ],
)
def test_polygons_may_leave_the_image_by_its_own_size(polygon: list[int], refused: bool) -> None:
    if refused:
        with pytest.raises(DataError, match="far outside the image of 17x13 pixels; correct it"):
            encode([polygon], SIZE)
    else:
        assert encode([polygon], SIZE)[1] > 0


def test_the_most_vertices_are_read_and_one_more_is_refused() -> None:
    corners = [1, 1, 5, 1, 5, 5]
    resting = [1, 1] * (MAX_VERTICES - 3)
    assert encode([[*resting, *corners]], SIZE)[1] > 0
    # of all polygons of an annotation together
    with pytest.raises(DataError, match="more than 100000 polygon vertices"):
        encode([[*resting, *corners], corners], SIZE)


def test_windows_and_unions_are_those_of_the_masks() -> None:
    rng = np.random.default_rng(3)
    masks = np.zeros((130, *SIZE), np.bool_)  # more than are united at once
    for mask in masks:
        mask[rng.integers(SIZE[0]), rng.integers(SIZE[1])] = True
    counts = tuple(encode(uncompressed(mask), SIZE)[0] for mask in masks)
    encoded = EncodedMasks(counts, left_out=counts[:70])
    np.testing.assert_array_equal(encoded.union(SIZE), masks.any(axis=0))
    np.testing.assert_array_equal(encoded.ignored_pixels(SIZE), masks[:70].any(axis=0))
    np.testing.assert_array_equal(encoded.windows(SIZE).masks(), masks)
    np.testing.assert_array_equal(encoded.windows(SIZE, np.array([7, 0])).masks(), masks[[7, 0]])
    assert EncodedMasks(()).read(SIZE).shape == (0, *SIZE)
    assert not EncodedMasks(()).union(SIZE).any()


@pytest.mark.parametrize("form", [str, list])
def test_run_lengths_that_are_too_many_are_refused_before_they_are_read(form: type) -> None:
    most = 7 * (13 * 17 + 2)
    for count, message in ((most, "runs of|neither"), (most + 1, f"an RLE of {most + 1} values for 221 pixels")):
        with pytest.raises(DataError, match=message):
            encode({"size": [13, 17], "counts": "0" * count if form is str else [0] * count}, SIZE)


def test_a_run_beyond_the_image_is_named_and_not_the_sum() -> None:
    beyond = coco_mask.frPyObjects({"size": [13, 17], "counts": [3, 222, 0]}, 13, 17)["counts"].decode()
    with pytest.raises(DataError, match=r"RLE with a run of 222 pixels; height \* width is 221"):
        encode({"size": [13, 17], "counts": beyond}, SIZE)
    whole = coco_mask.frPyObjects({"size": [13, 17], "counts": [0, 221]}, 13, 17)["counts"].decode()
    assert encode({"size": [13, 17], "counts": whole}, SIZE)[1] == 221


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.floats(0.02, 1))
def test_rle_forms_agree_with_the_mask(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    mask[0, 0] |= not mask.any()
    for form in (uncompressed(mask), compressed(mask)):
        counts, area = encode(form, mask.shape)
        assert area == mask.sum()
        np.testing.assert_array_equal(EncodedMasks((counts,)).read(mask.shape)[0], mask)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40))
def test_any_string_is_refused_or_understood_as_by_pycocotools(text: str) -> None:
    try:
        counts, area = encode({"size": list(SIZE), "counts": text}, SIZE)
    except DataError:
        return
    rle = {"size": list(SIZE), "counts": text.encode()}
    assert area == coco_mask.area(rle)
    np.testing.assert_array_equal(EncodedMasks((counts,)).read(SIZE)[0], coco_mask.decode([rle])[..., 0])
