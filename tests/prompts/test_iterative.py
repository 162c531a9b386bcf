"""The draws of iterative prompting; what the rounds do is tested where they run, in tests/training/test_step.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_sam.core.structures import Sample

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
