"""Points of a grid: which of them stand for an object, and which for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_sam.core.structures import Sample
from lora_sam.prompts import trained_kinds
from lora_sam.training.trained_on import points_per_side

Squares = Callable[..., Sample]


def test_points_are_those_of_the_grid_that_lie_on_the_object(option: Callable[..., Any], squares: Squares) -> None:
    """Without jitter the grid of 4 x 4 on 40 x 80 px has its points at x = 10, 30, 50, 70 and y = 5, 15, 25, 35."""
    sample = squares((40, 80), (0, 0, 41, 20), (72, 36, 76, 39))
    source = option("prompt/everything", points_per_side=4, jitter=0.0)
    seen = [source.training_prompts(sample, 0, epoch) for epoch in range(60)]
    assert {tuple(one.points[0, 0].tolist()) for one in seen} == {(10.5, 5.5), (30.5, 5.5), (10.5, 15.5), (30.5, 15.5)}
    missed = np.array([one.points[1, 0] for one in seen])  # no point of the grid is on it: any of its pixels
    assert missed.min(axis=0).tolist() == [72.5, 36.5]
    assert missed.max(axis=0).tolist() == [75.5, 38.5]
    assert {one.labels.tolist().__str__() for one in seen} == {"[[1], [1]]"}


def test_jitter_reaches_every_pixel_and_stays_in_the_cell(option: Callable[..., Any], squares: Squares) -> None:
    free = np.zeros((8, 8), np.bool_)
    source = option("prompt/everything", points_per_side=2, jitter=1.0, background_points=4)
    drawn = np.concatenate([source.background(free, 0, epoch, "a.png") for epoch in range(200)])
    assert {tuple(point) for point in drawn.tolist()} == {(x + 0.5, y + 0.5) for x in range(8) for y in range(8)}
    for points in (source.background(free, 0, epoch, "a.png") for epoch in range(20)):
        assert sorted((x >= 4, y >= 4) for x, y in points.tolist()) == [
            (a, b) for a in (False, True) for b in (False, True)
        ]
    half = option("prompt/everything", points_per_side=1, jitter=0.5, background_points=1)
    places = np.concatenate([half.background(free, 0, epoch, "a.png") for epoch in range(200)])
    assert (places.min(), places.max()) == (2.5, 5.5)


def test_background_is_what_nothing_occupies(option: Callable[..., Any]) -> None:
    occupied = np.ones((40, 80), np.bool_)
    occupied[20:, 40:] = False
    source = option("prompt/everything", points_per_side=8, background_points=5)
    for epoch in range(20):
        points = source.background(occupied, 0, epoch, "a.png")
        assert points.shape == (5, 2)
        assert len(np.unique(points, axis=0)) == 5
        assert not occupied[points[:, 1].astype(int), points[:, 0].astype(int)].any()
    many = option("prompt/everything", points_per_side=8, background_points=200)
    assert many.background(occupied, 0, 0, "a.png").shape == (16, 2)
    assert many.background(np.ones((40, 80), np.bool_), 0, 0, "a.png").shape == (0, 2)
    assert option("prompt/everything", background_points=0).background(occupied, 0, 0, "a.png").shape == (0, 2)


def test_draws_depend_on_seed_epoch_and_id(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((40, 80), (0, 0, 41, 20), (50, 10, 76, 39))
    source, free = option("prompt/everything"), np.zeros((40, 80), np.bool_)
    first, beside = source.training_prompts(sample, 0, 1), source.background(free, 0, 1, "a.png")
    np.testing.assert_array_equal(first.points, source.training_prompts(sample, 0, 1).points)
    np.testing.assert_array_equal(beside, source.background(free, 0, 1, "a.png"))
    for seed, epoch, name in ((1, 1, "a.png"), (0, 2, "a.png"), (0, 1, "b.png")):
        assert not np.array_equal(first.points, source.training_prompts(replace(sample, id=name), seed, epoch).points)
        assert not np.array_equal(beside, source.background(free, seed, epoch, name))
    fixed = source.evaluation_prompts(sample, 0)
    np.testing.assert_array_equal(fixed.points, source.evaluation_prompts(sample, 1).points)
    np.testing.assert_array_equal(fixed.points, option("prompt/point").evaluation_prompts(sample, 0).points)


def test_a_share_of_mixed_prompts(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((40, 80), *((x, y, x + 8, y + 8) for x in range(0, 80, 10) for y in range(0, 40, 10)))
    point = option("prompt/points", positive=2, negative=0)
    points = {name: getattr(point, name) for name in type(point).__dataclass_fields__}
    everything = {"points_per_side": 8, "jitter": 0.0, "background_points": 3}
    weights = {"box_weight": 1.0, "points_weight": 1.0, "everything_weight": 2.0}
    source = option("prompt/mixed", points=points, everything=everything, **weights)
    grid = option("prompt/everything", **everything)
    counts = np.zeros(3)
    for epoch in range(20):
        prompts, expected = source.training_prompts(sample, 0, epoch), grid.training_prompts(sample, 0, epoch)
        boxed = ~np.isnan(prompts.boxes[:, 0])
        alone = (prompts.labels == [1, -1]).all(axis=1) & ~boxed
        np.testing.assert_array_equal(prompts.points[alone, 0], expected.points[alone, 0])
        assert (prompts.labels[boxed] == -1).all()
        assert (prompts.labels[~boxed & ~alone] == 1).all()
        counts += [boxed.sum(), (~boxed & ~alone).sum(), alone.sum()]
    assert counts / counts.sum() == pytest.approx([0.25, 0.25, 0.5], abs=0.06)
    free = np.zeros((40, 80), np.bool_)
    np.testing.assert_array_equal(source.background(free, 0, 0, "a.png"), grid.background(free, 0, 0, "a.png"))
    assert source.background_points == 3
    assert option("prompt/mixed").background_points == 0
    only = option("prompt/mixed", everything=everything, box_weight=0.0, points_weight=0.0, everything_weight=1.0)
    np.testing.assert_array_equal(
        only.training_prompts(sample, 0, 3).points, grid.training_prompts(sample, 0, 3).points
    )
    assert only.evaluation_prompts(sample, 0).boxes is None


def test_what_a_run_is_trained_for(option: Callable[..., Any]) -> None:
    kinds = {
        name: trained_kinds(option(f"prompt/{name}"))
        for name in ("box", "point", "points", "mixed", "box_or_point", "mask", "iterative", "everything", "none")
    }
    assert kinds == {
        "box": ("box",),
        "point": ("point",),
        "points": ("point",),
        "mixed": ("box", "point"),
        "box_or_point": ("box", "point"),
        "mask": ("box",),
        "iterative": ("box", "point", "clicks"),
        "everything": ("point", "everything"),
        "none": (),
    }
    assert trained_kinds(option("prompt/mixed", everything_weight=1.0)) == ("box", "point", "everything")
    one = option("prompt/iterative", rounds=1, point_share=1.0, background_points=2)
    assert trained_kinds(one) == ("point",)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([6] * 10, 16),
        ([3] * 10, 24),
        ([1] * 10, 32),
        ([6] * 9 + [1], 16),
        ([6] * 8 + [3] * 2, 24),
        ([0] * 10, 32),
        ([], 16),
    ],
)
def test_as_many_points_as_find_the_objects_of_the_training(sides: list[int], expected: int, squares: Squares) -> None:
    """Along 96 px, 16 points lie at 3, 9, ...; 24 at 2, 6, ...; 32 at 1, 4, ...: squares from 16, 28, ... on."""
    corners = [(16 + 12 * number % 60, 16 + 12 * (number // 5)) for number in range(len(sides))]
    sample = squares((96, 96), *((x, y, x + side, y + side) for (x, y), side in zip(corners, sides, strict=True)))

    class Source:
        ids, sizes, object_counts = ("a.png",), ((96, 96),), None

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return sample

    assert points_per_side(Source(), seed=0) == expected
