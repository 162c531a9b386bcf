"""Several points per object: where they lie, how far apart, and what takes their place where there is no room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts import PointsPrompt
from lora_sam.prompts.geometry import (
    _squared_distances,
    central_pixel,
    chessboard_distances,
    farthest_pixels,
    spaced,
)

Squares = Callable[..., Sample]
SQUARE = np.ones((3, 3), np.bool_)


@pytest.fixture
def points(option: Callable[..., Any]) -> Callable[..., PointsPrompt]:
    """Makes a source of points; random, one positive and no negative unless told otherwise."""
    plain = {"placement": "random", "positive": 1, "negative": 0, "min_distance": None}
    return lambda **changes: option("prompt/points", **{**plain, **changes})


def pixels(prompts: Prompts, row: int, label: int) -> np.ndarray:
    """(row, column) of the points of an object with a label."""
    assert prompts.points is not None
    assert prompts.labels is not None
    chosen = prompts.points[row][prompts.labels[row] == label]
    assert (chosen % 1 == 0.5).all()
    return np.asarray(np.floor(chosen[:, ::-1]).astype(int))


def gaps(places: np.ndarray) -> np.ndarray:
    between = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    return np.asarray(between[np.triu_indices(len(places), 1)])


def test_shapes_and_labels(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    prompts = points(positive=3, negative=2).training_prompts(sample, 0, 0)
    assert prompts.boxes is None
    assert prompts.points is not None
    assert prompts.labels is not None
    assert prompts.points.shape == (2, 5, 2)
    assert prompts.points.dtype == np.float32
    assert prompts.labels.tolist() == [[1, 1, 1, 0, 0]] * 2
    assert prompts.labels.dtype == np.int64
    for row, mask in enumerate(sample.masks):
        assert mask[tuple(pixels(prompts, row, 1).T)].all()
        assert not mask[tuple(pixels(prompts, row, 0).T)].any()


@pytest.mark.parametrize("placement", ["random", "center", "farthest", "eroded"])
def test_points_depend_on_seed_epoch_and_id(
    points: Callable[..., PointsPrompt], squares: Squares, placement: str
) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    source = points(positive=3, negative=2, placement=placement)
    first = source.training_prompts(sample, 0, 1).points
    np.testing.assert_array_equal(first, source.training_prompts(sample, 0, 1).points)
    for other in (
        source.training_prompts(sample, 0, 2),
        source.training_prompts(sample, 1, 1),
        source.training_prompts(replace(sample, id="b.png"), 0, 1),
        source.evaluation_prompts(sample, 0),
    ):
        assert (first != other.points).any()
    fixed = source.evaluation_prompts(sample, 0).points
    np.testing.assert_array_equal(fixed, source.evaluation_prompts(sample, 0).points)
    assert (fixed != source.evaluation_prompts(sample, 1).points).any()


def test_random_points_are_uniform(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((30, 40), (10, 10, 14, 13))
    drawn = [tuple(pixels(points().training_prompts(sample, 0, epoch), 0, 1)[0]) for epoch in range(600)]
    counts = np.unique(np.array(drawn), axis=0, return_counts=True)[1]
    assert len(counts) == 12
    assert 20 <= counts.min() <= counts.max() <= 84  # 50 expected, five standard deviations are 34


@pytest.mark.parametrize(("area", "passes"), [(1999, 0), (2000, 1), (3999, 1), (4000, 2), (100_000, 50)])
def test_one_erosion_for_every_2000_pixels(points: Callable[..., PointsPrompt], area: int, passes: int) -> None:
    assert points(placement="eroded").passes(area) == passes
    assert points().passes(area) == 0


def test_eroded_points_keep_away_from_the_rim(points: Callable[..., PointsPrompt]) -> None:
    rows, columns = np.mgrid[:200, :240]
    mask = (np.abs(rows - 100) / 50) ** 4 + (np.abs(columns - 90) / 70) ** 4 < 1
    sample = Sample("a.png", np.zeros((200, 240, 3), np.uint8), mask[None], ("1",))
    passes = mask.sum() // 2000
    assert passes == 6
    core = binary_erosion(mask, SQUARE, iterations=passes)
    rim = binary_dilation(mask, SQUARE, iterations=passes)
    source = points(placement="eroded", positive=4, negative=4)
    inside, outside = (
        np.concatenate([pixels(source.training_prompts(sample, 0, epoch), 0, label) for epoch in range(150)])
        for label in (1, 0)
    )
    assert core[tuple(inside.T)].all()
    assert not rim[tuple(outside.T)].any()
    # up to the limit: the pixels next to the rim are drawn too
    assert (~binary_erosion(core, SQUARE, iterations=3)[tuple(inside.T)]).any()
    assert binary_dilation(rim, SQUARE, iterations=5)[tuple(outside.T)].any()


def test_distances_count_erosions() -> None:
    mask = np.random.default_rng(0).random((40, 50)) < 0.97
    distance = chessboard_distances(mask)
    for passes in range(4):
        expected = binary_erosion(mask, SQUARE, iterations=passes) if passes else mask
        np.testing.assert_array_equal(distance > passes, expected)
    within = chessboard_distances(mask, 5)[5:-5, 5:-5]
    np.testing.assert_array_equal(within > 3, binary_erosion(mask, SQUARE, iterations=3, border_value=1))


def test_an_object_that_would_vanish_is_eroded_less(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    """4 x 1000 pixels: one pass leaves two rows, and two would leave nothing."""
    sample = squares((20, 1010), (5, 8, 1005, 12))
    source = points(placement="eroded", area_per_pass=1000.0, positive=3, negative=2)
    assert source.passes(4000) == 4
    prompts = source.training_prompts(sample, 0, 0)
    assert set(pixels(prompts, 0, 1)[:, 0]) <= {9, 10}
    assert len(pixels(prompts, 0, 0)) == 2


def test_dynamic_distances(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    """A square of 64 x 64 and 11 points: 2.75 * 64 / 11 = 16 pixels, for which there is room."""
    sample = squares((64, 64), (0, 0, 64, 64))
    source = points(positive=11, min_distance="dynamic", placement="random")
    closest = [gaps(pixels(source.training_prompts(sample, 0, epoch), 0, 1)).min() for epoch in range(40)]
    assert len(pixels(source.training_prompts(sample, 0, 0), 0, 1)) == 11
    assert min(closest) >= 8  # relaxed once at most
    assert np.mean(np.array(closest) >= 16) > 0.3
    without = points(positive=11)
    assert np.mean([gaps(pixels(without.training_prompts(sample, 0, epoch), 0, 1)).min() for epoch in range(40)]) < 6


def test_a_distance_in_pixels_holds_for_both_labels(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((90, 90), (10, 10, 50, 50))
    for epoch in range(20):
        prompts = points(positive=3, negative=4, min_distance=10.0).training_prompts(sample, 0, epoch)
        assert gaps(pixels(prompts, 0, 1)).min() >= 10
        assert gaps(pixels(prompts, 0, 0)).min() >= 10


def test_where_there_is_no_room_distances_shrink_and_padding_comes_last(
    points: Callable[..., PointsPrompt], squares: Squares
) -> None:
    sample = squares((20, 20), (5, 5, 8, 7), (0, 0, 20, 20), (3, 3, 4, 4))
    prompts = points(positive=8, negative=2, min_distance=100.0).training_prompts(sample, 0, 0)
    assert prompts.labels is not None
    assert prompts.points is not None
    assert prompts.labels[0].tolist() == [1] * 6 + [-1] * 2 + [0] * 2  # six pixels, each once
    assert len(np.unique(pixels(prompts, 0, 1), axis=0)) == 6
    assert prompts.labels[1].tolist() == [1] * 8 + [-1] * 2  # no background
    assert len(np.unique(pixels(prompts, 1, 1), axis=0)) == 8
    assert prompts.labels[2].tolist() == [1] + [-1] * 7 + [0] * 2
    assert not prompts.points[prompts.labels == -1].any()


def test_an_object_of_two_pixels_gets_two_points(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((20, 20), (5, 5, 7, 6))
    for placement in ("center", "farthest", "random"):
        for epoch in range(10):
            prompts = points(positive=2, placement=placement).training_prompts(sample, 0, epoch)
            assert {tuple(place) for place in pixels(prompts, 0, 1)} == {(5, 5), (5, 6)}


def test_the_little_background_there_is_is_found(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((100, 100), (0, 0, 100, 100))
    sample.masks[0, 42, 17] = sample.masks[0, 99, 0] = False
    prompts = points(negative=2).training_prompts(sample, 0, 0)
    assert {tuple(place) for place in pixels(prompts, 0, 0)} == {(42, 17), (99, 0)}
    # five erosions of the background would leave neither
    prompts = points(negative=2, placement="eroded").training_prompts(sample, 0, 0)
    assert {tuple(place) for place in pixels(prompts, 0, 0)} == {(42, 17), (99, 0)}


def test_negative_points_near_the_object(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((100, 200), (40, 30, 60, 40), (0, 95, 4, 100))
    source = points(negative=6, negative_margin=0.5)
    near: list[list[list[int]]] = [[], []]
    for epoch in range(60):
        prompts = source.training_prompts(sample, 0, epoch)
        for row in (0, 1):
            near[row].extend(pixels(prompts, row, 0).tolist())
    for row, (top, left, bottom, right) in enumerate([(25, 30, 45, 70), (92, 0, 100, 6)]):
        places = np.array(near[row])
        assert places.min(axis=0).tolist() == [top, left]
        assert places.max(axis=0).tolist() == [bottom - 1, right - 1]
    anywhere = np.concatenate(
        [pixels(points(negative=6).training_prompts(sample, 0, epoch), 0, 0) for epoch in range(60)]
    )
    assert (anywhere[:, 1] > 150).any()


def test_the_first_point_is_in_the_middle(points: Callable[..., PointsPrompt], squares: Squares) -> None:
    sample = squares((60, 60), (10, 20, 31, 27))
    for placement in ("center", "farthest"):
        prompts = points(positive=3, placement=placement).training_prompts(sample, 0, 0)
        first = pixels(prompts, 0, 1)[0].tolist()
        assert first[0] == 23
        assert first == [23, 20] or placement == "farthest"


def test_the_centre_of_a_ring_lies_on_it() -> None:
    rows, columns = np.mgrid[:41, :41] - 20
    ring = (np.hypot(rows, columns) < 18) & (np.hypot(rows, columns) > 12)
    row, column = central_pixel(ring)
    assert ring[row, column]
    assert np.hypot(row - 20, column - 20) == pytest.approx(np.hypot(rows, columns)[ring].min())


def test_spaced_takes_the_first_that_are_far_enough() -> None:
    line = np.array([[0, 0], [0, 3], [0, 5], [0, 9], [0, 10]], np.float32)
    usable = np.ones((2, 5), np.bool_)
    usable[1, 2] = False
    chosen = spaced(np.stack([line, line]), usable, 4, np.array([5.0, 5.0]))
    assert chosen.tolist() == [[0, 2, 4, 1], [0, 3, 1, 4]]
    few = spaced(np.stack([line, line]), np.array([[False] * 5, [True] + [False] * 4]), 2, np.array([5.0, 0.0]))
    assert few.tolist() == [[-1, -1], [0, -1]]


@pytest.mark.parametrize("shelf", [1, 400, 1 << 16])
def test_farthest_pixels_are_those_of_each_mask_alone(shelf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    windows = []
    for _ in range(40):
        height, width = draws.integers(1, 30, 2)
        window = draws.random((height, width)) < draws.uniform(0.3, 1.2)
        window[height // 2, width // 2] = True
        windows.append(window)
    monkeypatch.setattr("lora_sam.prompts.geometry._SHELF", shelf)
    places = farthest_pixels(windows)
    for window, (row, column) in zip(windows, places, strict=True):
        distance = distance_transform_edt(np.pad(window, 1))[1:-1, 1:-1]
        assert divmod(int(distance.argmax()), window.shape[1]) == (row, column)
    assert farthest_pixels([]) == []


@pytest.mark.parametrize(("height", "width"), [(3, 60), (40, 400), (128, 600), (129, 600), (60, 70)])
def test_squared_distances_are_those_of_scipy(height: int, width: int) -> None:
    draws = np.random.default_rng(height)
    canvas = np.zeros((height, width), np.bool_)
    canvas[1:-1, 1:-1] = draws.random((height - 2, width - 2)) < 0.999
    canvas[1:-1, width // 3] = False
    expected = np.rint(distance_transform_edt(canvas) ** 2).astype(int)
    np.testing.assert_array_equal(_squared_distances(canvas), expected)
    canvas[1:-1, 1:-1] = True  # as far from the edge as it gets
    assert _squared_distances(canvas).max() == ((height - 1) // 2) ** 2


def test_low_and_wide_canvases_need_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [np.ones((side, side), np.bool_) for side in range(3, 40)]
    monkeypatch.setattr("scipy.ndimage.distance_transform_edt", None)
    assert farthest_pixels(windows) == [((side - 1) // 2, (side - 1) // 2) for side in range(3, 40)]
