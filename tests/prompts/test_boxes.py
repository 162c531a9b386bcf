"""Box jitter of the recipes, and the box around the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from lora_sam.core.structures import Sample
from lora_sam.prompts import BoxPrompt

Squares = Callable[..., Sample]


def moves(sample: Sample, count: int, **options: Any) -> np.ndarray:
    """How far the sides of the first box moved in `count` epochs, [count, 4]."""
    source = BoxPrompt(**{"jitter_pixels": 0.0, "jitter_fraction": 0.0, "jitter_evaluation": False, **options})
    boxes = [source.training_prompts(sample, 0, epoch).boxes[0] for epoch in range(count)]  # type: ignore[index]
    return np.asarray(np.stack(boxes) - sample.boxes[0])


@pytest.mark.parametrize(("size", "sideways", "upright"), [((300, 400), 20, 20), ((80, 150), 15, 8)])
def test_normal_jitter_of_otx(squares: Squares, size: tuple[int, int], sideways: float, upright: float) -> None:
    """Standard deviation min(0.1 * side of the image, 20), whatever the size of the box."""
    height, width = size
    sample = squares(size, (width // 2 - 1, height // 2 - 1, width // 2 + 1, height // 2 + 1))
    sample = squares(size, (width // 3, height // 3, 2 * width // 3, 2 * height // 3))
    drawn = moves(sample, 1500, jitter="normal", jitter_pixels=20.0, jitter_fraction=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), [sideways, upright] * 2, rtol=0.08)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.12
    beyond = (np.abs(drawn) > 2 * np.array([sideways, upright] * 2)).mean()
    assert beyond == pytest.approx(0.0455, abs=0.01)


def test_whole_pixels_of_todoran(squares: Squares) -> None:
    sample = squares((100, 200), (40, 30, 80, 70))
    drawn = moves(sample, 1000, jitter="integer", jitter_pixels=10.0)
    assert (drawn % 1 == 0).all()
    for side in drawn.T:
        values, counts = np.unique(side, return_counts=True)
        assert values.tolist() == list(range(-10, 11))
        assert counts.min() > 20


def test_the_factor_of_micro_sam(squares: Squares) -> None:
    sample = squares((300, 300), (40, 30, 240, 110))
    drawn = moves(sample, 300, jitter="uniform", jitter_fraction=0.025)
    assert (np.abs(drawn).max(axis=0) <= [5.0001, 2.0001] * 2).all()
    assert (np.abs(drawn).max(axis=0) > [4.9, 1.95] * 2).all()
    # to both sides alike
    assert (drawn.max(axis=0) > [4.5, 1.8] * 2).all()
    assert (drawn.min(axis=0) < [-4.5, -1.8] * 2).all()
    assert (np.abs(drawn.mean(axis=0)) < [0.7, 0.3] * 2).all()


@pytest.mark.parametrize("jitter", ["normal", "integer", "uniform"])
def test_boxes_stay_in_the_image_and_a_pixel_wide(squares: Squares, jitter: str) -> None:
    sample = squares((50, 60), (0, 0, 60, 50), (59, 49, 60, 50), (10, 10, 12, 12))
    source = BoxPrompt(jitter=jitter, jitter_pixels=30.0, jitter_fraction=1.0, jitter_evaluation=True)  # type: ignore[arg-type]
    for epoch in range(100):
        boxes = source.training_prompts(sample, 0, epoch).boxes
        assert boxes is not None
        assert (boxes >= 0).all()
        assert (boxes <= (60, 50, 60, 50)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1 - 1e-4).all()
    fixed = source.evaluation_prompts(sample, 0).boxes
    np.testing.assert_array_equal(fixed, source.evaluation_prompts(sample, 0).boxes)
    assert (fixed != sample.boxes).any()


def test_boxes_may_be_changed_without_changing_the_sample(squares: Squares, option: Callable[..., Any]) -> None:
    sample = squares((50, 60), (10, 10, 20, 20))
    boxes = option("prompt/box").evaluation_prompts(sample, 0).boxes
    boxes += 1
    assert sample.boxes.tolist() == [[10, 10, 20, 20]]
    with pytest.raises(ValueError, match="read-only"):
        sample.boxes[0] = 0


def test_no_prompt_is_a_box_around_the_image(squares: Squares, option: Callable[..., Any]) -> None:
    sample = squares((50, 60), (10, 10, 20, 20), (3, 4, 5, 6))
    source = option("prompt/none")
    for prompts in (source.training_prompts(sample, 0, 3), source.evaluation_prompts(sample, 0)):
        assert prompts.boxes.tolist() == [[0, 0, 60, 50]] * 2
        assert prompts.boxes.dtype == np.float32
        assert prompts.points is None


def test_sides_that_cross_leave_one_pixel_where_they_met(squares: Squares, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = squares((40, 50), (10, 12, 14, 20))
    # the left side goes to 18, the right one to 15: between them is 16.5
    monkeypatch.setattr(BoxPrompt, "_moves", lambda *_: np.array([[8.0, 0, 1, 0]]))
    source = BoxPrompt(jitter="uniform", jitter_pixels=9.0, jitter_fraction=0.0, jitter_evaluation=False)
    (box,) = np.asarray(source.training_prompts(sample, 0, 0).boxes)
    assert box.tolist() == [16, 12, 17, 20]
    # and within the image where they met at its edge
    monkeypatch.setattr(BoxPrompt, "_moves", lambda *_: np.array([[60.0, 0, 60, 0]]))
    (box,) = np.asarray(source.training_prompts(sample, 0, 0).boxes)
    assert box.tolist() == [49, 12, 50, 20]
    monkeypatch.setattr(BoxPrompt, "_moves", lambda *_: np.array([[-60.0, -60, -60, -60]]))
    (box,) = np.asarray(source.training_prompts(sample, 0, 0).boxes)
    assert box.tolist() == [0, 0, 1, 1]


def test_boxes_stay_as_they_are_where_nothing_moves_them(squares: Squares) -> None:
    sample = squares((50, 60), (10, 10, 20, 20))
    for jitter in ("normal", "integer", "uniform"):
        still = BoxPrompt(jitter=jitter, jitter_pixels=0.0, jitter_fraction=0.0, jitter_evaluation=True)  # type: ignore[arg-type]
        assert np.asarray(still.training_prompts(sample, 0, 1).boxes).tolist() == sample.boxes.tolist()
        assert np.asarray(still.evaluation_prompts(sample, 0).boxes).tolist() == sample.boxes.tolist()


def test_one_of_the_two_moves_is_enough(squares: Squares) -> None:
    sample = squares((100, 100), (40, 30, 60, 70))
    for options in ({"jitter_pixels": 6.0}, {"jitter_fraction": 0.3}):
        for jitter in ("integer", "uniform"):
            assert np.abs(moves(sample, 20, jitter=jitter, **options)).max() > 3


def test_whole_pixels_are_those_below_the_largest_move(squares: Squares) -> None:
    sample = squares((100, 200), (40, 30, 60, 70))  # 20 wide and 40 high
    drawn = moves(sample, 300, jitter="integer", jitter_pixels=1.5, jitter_fraction=0.1)
    assert drawn.min(axis=0).tolist() == [-3, -5, -3, -5]
    assert drawn.max(axis=0).tolist() == [3, 5, 3, 5]


def test_the_limits_of_the_options(option: Callable[..., Any]) -> None:
    for pixels, fraction in ((0.0, 0.0), (1e6, 1.0), (0.5, 0.5)):
        option("prompt/box", jitter_pixels=pixels, jitter_fraction=fraction)
    for change in ({"jitter_pixels": -0.1}, {"jitter_fraction": -0.1}, {"jitter_fraction": 1.01}, {"jitter": "much"}):
        with pytest.raises(ValueError, match="validation error"):
            option("prompt/box", **change)
    with pytest.raises(ValueError, match="finite"):
        TypeAdapter(BoxPrompt).validate_python(
            {"jitter": "uniform", "jitter_pixels": float("inf"), "jitter_fraction": 0.0, "jitter_evaluation": False}
        )
