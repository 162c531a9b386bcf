"""Latency: what is timed, in which order, and what of it is reported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lora_sam.evaluation.backends.latency import QUANTITIES, Timing, measure_latency

from .conftest import Fading, Squares, boxes_of

TURN = ["forget", "predict 40 1", "predict 40 1", "set_image 64", "predict 64 1", "forget"]


def test_every_turn_begins_with_a_new_image(squares: Squares) -> None:
    predictors = {"a": Fading(), "b": Fading()}
    sample = squares[0]
    turns: list[tuple[int, int]] = []
    found = measure_latency(
        predictors, sample.image, boxes_of(sample), 3, on_turn=lambda done, total: turns.append((done, total))
    )
    assert turns == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for name, predictor in predictors.items():
        assert predictor.calls == TURN * 4
        assert predictor.encoded == 2 * 4  # both images, anew in every turn
        assert found[name].keys() == set(QUANTITIES)


def test_turns_are_interleaved(squares: Squares) -> None:
    order: list[str] = []

    class Named(Fading):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def set_image(self, image):  # type: ignore[no-untyped-def]
            order.append(self.name)
            super().set_image(image)

    sample = squares[0]
    measure_latency({"a": Named("a"), "b": Named("b")}, sample.image, boxes_of(sample), 2)
    assert order == ["a", "b"] * 3


def test_medians_and_ranges_without_the_first_turn(squares: Squares) -> None:
    # seconds of first prompt, next prompt, encoder, decoder in each turn; the first one is slow
    taken = np.array([[90, 90, 90, 90], [5, 1, 4, 0.5], [7, 3, 6, 1.5], [6, 2, 5, 1.0]])

    def moments() -> Iterator[float]:
        now = 0.0
        for row in taken:
            yield now
            for value in row:
                now += value
                yield now
            now += 1000  # between the turns

    clock = moments()
    sample = squares[0]
    found = measure_latency({"a": Fading()}, sample.image, boxes_of(sample), 3, clock=lambda: next(clock))["a"]
    assert found == {
        "first_prompt": Timing(*map(pytest.approx, (6000, 5000, 7000))),
        "next_prompt": Timing(*map(pytest.approx, (2000, 1000, 3000))),
        "encoder": Timing(*map(pytest.approx, (5000, 4000, 6000))),
        "decoder": Timing(*map(pytest.approx, (1000, 500, 1500))),
    }
