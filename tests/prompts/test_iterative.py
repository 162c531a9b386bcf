"""The draws of iterative prompting; what the rounds do is tested where they run, in tests/training/test_step.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lora_sam.core.structures import Sample
from lora_sam.prompts.iterative import most_rounds

Squares = Callable[..., Sample]


def test_corrections_depend_on_seed_epoch_and_id(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    source = option("prompt/iterative", rounds=5)
    first = source.corrections(sample, 0, 1)
    assert first.places.shape == first.masks.shape == (2, 4)
    assert first.masks.dtype == np.bool_
    np.testing.assert_array_equal(first.places, source.corrections(sample, 0, 1).places)
    for other in (
        source.corrections(sample, 0, 2),
        source.corrections(sample, 1, 1),
        source.corrections(replace(sample, id="b.png"), 0, 1),
    ):
        assert not np.array_equal(first.places, other.places)


def test_probabilities(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    source = option("prompt/iterative", mask_prob=0.3, point_share=0.7)
    made = [source.corrections(sample, 0, epoch) for epoch in range(100)]
    assert np.mean([one.masks for one in made]) == pytest.approx(0.3, abs=0.04)
    places = np.concatenate([one.places for one in made])
    assert (places.min(), places.max()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert places.max() < 1
    points = 0
    for epoch in range(300):
        points += sum(
            len(rows) for rows, part in source.training_prompts(sample, 0, epoch).kinds() if part.boxes is None
        )
    assert points / 600 == pytest.approx(0.7, abs=0.06)


def test_the_last_round_may_have_no_click(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((60, 80), (5, 5, 30, 30))
    made = option("prompt/iterative", rounds=4, last_without_click=True, mask_prob=0.0).corrections(sample, 0, 0)
    assert np.isnan(made.places).tolist() == [[False, False, True]]
    assert made.masks.tolist() == [[False, False, True]]
    one = option("prompt/iterative", rounds=1, last_without_click=True).corrections(sample, 0, 0)
    assert one.places.shape == (1, 0)


def test_each_image_draws_its_rounds(option: Callable[..., Any], squares: Squares) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    source = option("prompt/iterative", rounds=[1, 1, 4])
    shapes = [source.corrections(replace(sample, id=f"{n}.png"), 0, 0).places.shape for n in range(300)]
    assert {shape[0] for shape in shapes} == {2}
    assert np.mean([shape[1] == 0 for shape in shapes]) == pytest.approx(2 / 3, abs=0.08)
    assert {shape[1] for shape in shapes} == {0, 3}
    assert shapes == [source.corrections(replace(sample, id=f"{n}.png"), 0, 0).places.shape for n in range(300)]
    assert shapes != [source.corrections(replace(sample, id=f"{n}.png"), 0, 1).places.shape for n in range(300)]
    assert source.mean_rounds == 2.0
    assert option("prompt/iterative", rounds=3).mean_rounds == 3.0
    # the draws are those of a source with that number of rounds alone
    long = next(n for n in range(300) if shapes[n][1] == 3)
    one = replace(sample, id=f"{long}.png")
    np.testing.assert_array_equal(
        source.corrections(one, 0, 0).places, option("prompt/iterative", rounds=4).corrections(one, 0, 0).places
    )


def test_most_rounds_of_saved_settings() -> None:
    assert [most_rounds(one) for one in ({}, {"rounds": 8}, {"rounds": [1, 4, 2]})] == [1, 8, 4]


def test_rounds_without_a_click(option: Callable[..., Any], squares: Squares) -> None:
    """All objects of an image or none, always with the mask prompt, as often as asked for."""
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    source = option("prompt/iterative", rounds=5, idle_prob=0.25, mask_prob=0.0)
    made = [source.corrections(sample, 0, epoch) for epoch in range(200)]
    idle = np.array([np.isnan(one.places) for one in made])
    assert (idle == idle[:, :1]).all()
    assert idle.mean() == pytest.approx(0.25, abs=0.04)
    np.testing.assert_array_equal(idle, np.array([one.masks for one in made]))
    # what is drawn beside it stays what it was
    plain = option("prompt/iterative", rounds=5, mask_prob=0.0).corrections(sample, 0, 7).places
    np.testing.assert_array_equal(np.where(idle[7], np.nan, plain), made[7].places)


def test_points_on_the_background(option: Callable[..., Any]) -> None:
    source = option("prompt/iterative", background_points=3)
    occupied = np.ones((20, 30), np.bool_)
    occupied[4, 7] = occupied[18, 29] = False
    points = np.concatenate([source.background(occupied, 0, epoch, "a.png") for epoch in range(100)])
    assert points.dtype == np.float32
    assert {tuple(point) for point in points.tolist()} == {(7.5, 4.5), (29.5, 18.5)}
    assert np.mean(points[:, 0] == 7.5) == pytest.approx(0.5, abs=0.1)
    free = np.zeros((20, 30), np.bool_)
    first = source.background(free, 0, 0, "a.png")
    np.testing.assert_array_equal(first, source.background(free, 0, 0, "a.png"))
    for other in (
        source.background(free, 1, 0, "a.png"),
        source.background(free, 0, 1, "a.png"),
        source.background(free, 0, 0, "b.png"),
    ):
        assert not np.array_equal(first, other)
    assert source.background(np.ones((20, 30), np.bool_), 0, 0, "a.png").shape == (0, 2)
    assert option("prompt/iterative").background(free, 0, 0, "a.png").shape == (0, 2)


@pytest.mark.parametrize("rounds", [0, [], [1, 0], [65]])
def test_rounds_that_cannot_be(option: Callable[..., Any], rounds: Any) -> None:
    with pytest.raises(ValidationError, match="rounds"):
        option("prompt/iterative", rounds=rounds)
