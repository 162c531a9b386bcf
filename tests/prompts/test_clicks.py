"""Simulated clicks: in the middle of the largest error, or anywhere in it."""

from __future__ import annotations

import numpy as np
import pytest

from lora_sam.prompts.clicks import central_click, next_click, random_click


def mask(*windows: tuple[int, int, int, int], size: tuple[int, int] = (40, 60)) -> np.ndarray:
    made = np.zeros(size, np.bool_)
    for x0, y0, x1, y1 in windows:
        made[y0:y1, x0:x1] = True
    return made


TRUE = mask((10, 5, 31, 26))
NOTHING = np.zeros_like(TRUE)


def test_the_first_click_is_the_middle_of_the_object() -> None:
    assert next_click(NOTHING, TRUE) == (20.5, 15.5, 1)


def test_the_larger_error_is_clicked_with_its_label() -> None:
    missing_more = mask((10, 5, 31, 15), (40, 0, 45, 5))  # 11 rows are missing, 5 x 5 pixels too much
    assert next_click(missing_more, TRUE) == (15.5, 20.5, 1)  # the first of those that are six pixels deep
    surplus_more = TRUE | mask((40, 5, 60, 30))
    x, y, label = next_click(surplus_more, TRUE)
    assert label == 0
    assert (y, x) == (14.5, 49.5)


def test_as_large_errors_are_clicked_as_background() -> None:
    missing, surplus = mask((10, 5, 13, 8)), mask((40, 5, 43, 8))
    assert next_click((TRUE & ~missing) | surplus, TRUE) == (41.5, 6.5, 0)


def test_no_pixel_is_clicked_twice() -> None:
    first = central_click(NOTHING, mask((10, 5, 13, 8)))
    second = central_click(NOTHING, mask((10, 5, 13, 8)), np.array([first[:2]], np.float32))
    assert first[:2] == (11.5, 6.5)
    assert second[:2] == (10.5, 5.5)
    one = mask((3, 4, 4, 5))
    # clicks elsewhere, even out of the window of the error, take nothing
    assert central_click(NOTHING, one, np.array([[0.5, 0.5], [59.5, 39.5]], np.float32)) == (3.5, 4.5, 1)
    assert central_click(NOTHING, one, np.array([[3.5, 4.5]], np.float32)) == (3.5, 4.5, 1)


def test_a_perfect_prediction_gets_a_click_on_the_object() -> None:
    assert next_click(TRUE, TRUE) == (20.5, 15.5, 1)
    x, y, label = next_click(TRUE, TRUE, np.random.default_rng(0))
    assert TRUE[int(y), int(x)]
    assert label == 1


def test_the_border_of_the_image_is_an_edge() -> None:
    whole = np.ones((9, 9), np.bool_)
    assert next_click(np.zeros_like(whole), whole) == (4.5, 4.5, 1)


def test_random_clicks_cover_the_error_evenly() -> None:
    predicted = mask((10, 5, 31, 24), (50, 30, 52, 31))  # two rows of 21 are missing, two pixels too much
    error = predicted != TRUE
    assert error.sum() == 44
    places = (np.arange(44) + 0.5) / 44
    clicks = [random_click(predicted, TRUE, place) for place in places]
    assert len({(x, y) for x, y, _ in clicks}) == 44
    for x, y, label in clicks:
        assert error[int(y), int(x)]
        assert label == TRUE[int(y), int(x)]
        assert (x % 1, y % 1) == (0.5, 0.5)
    assert sum(label == 0 for _, _, label in clicks) == 2
    assert random_click(predicted, TRUE, np.nextafter(1, 0)) == (51.5, 30.5, 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_draws_decide(seed: int) -> None:
    clicks = [next_click(NOTHING, TRUE, np.random.default_rng(seed)) for _ in range(2)]
    assert clicks[0] == clicks[1]
    assert clicks[0] != next_click(NOTHING, TRUE, np.random.default_rng(seed + 7))


def test_clicks_mend_a_prediction() -> None:
    """Where each click mends the errors up to five pixels around, few clicks mend them all."""
    predicted, clicked = NOTHING.copy(), np.empty((0, 2), np.float32)
    rows, columns = np.mgrid[: TRUE.shape[0], : TRUE.shape[1]]
    while (predicted != TRUE).any() and len(clicked) < 40:
        x, y, _ = next_click(predicted, TRUE, clicked=clicked)
        near = (np.abs(rows + 0.5 - y) <= 5) & (np.abs(columns + 0.5 - x) <= 5)
        predicted = np.where(near, TRUE, predicted)
        clicked = np.append(clicked, np.array([[x, y]], np.float32), axis=0)
    assert (predicted == TRUE).all()
    assert 4 <= len(clicked) <= 20
