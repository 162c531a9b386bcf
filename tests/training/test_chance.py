"""A rise of the validation IoU that few images cannot tell from chance leaves the base as the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from lora_sam.training.chance import least_rise, sums_of
from lora_sam.training.state import Progress, read_progress
from lora_sam.training.stopping import update_best


def one_each(*values: float) -> tuple[tuple[int, float], ...]:
    return tuple((1, value) for value in values)


def test_images_of_one_group_are_one_part() -> None:
    scores = [np.array([0.5, 0.7]), np.array([0.1]), np.array([0.2, 0.2, 0.2])]
    assert sums_of(scores, np.array([0, 1, 0])) == ((5, pytest.approx(1.8)), (1, pytest.approx(0.1)))


def test_few_images_that_agree_are_not_believed_for_it() -> None:
    before, after = one_each(*[0.5] * 9), one_each(*[0.51] * 9)
    assert least_rise(0.005, before, after) == 0.005
    assert least_rise(0.0, before, after) == 0.0
    assert least_rise(0.005, (), ()) == 0.005  # a state that is older


def test_few_images_of_which_one_has_all_the_gain_need_more() -> None:
    before, after = one_each(*[0.5] * 6), one_each(*[0.5] * 5, 0.6)
    assert least_rise(0.005, before, after) == pytest.approx(1.5 * 0.1 / 6)  # the rise is 0.1 / 6
    assert least_rise(0.0, before, after) == 0.0


def test_many_images_that_agree_need_less_and_those_that_do_not_need_more() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(0.2, 0.9, 40)
    rises = generator.normal(0.002, 0.004, 40)
    found = least_rise(0.005, one_each(*before), one_each(*(before + rises)))
    assert found == pytest.approx(2 * rises.std(ddof=1) / math.sqrt(40))
    assert found < 0.005
    wild = generator.normal(0.002, 0.1, 40)
    wanted = 1.5 * wild.std(ddof=1) / math.sqrt(40)
    assert least_rise(0.005, one_each(*before), one_each(*(before + wild))) == pytest.approx(wanted)


def test_images_count_by_their_objects_even_where_those_change() -> None:
    """Of masks without a prompt the number of what is scored changes; the error is then that of resampled images."""
    generator = np.random.default_rng(1)
    counts, new_counts = generator.integers(1, 9, 200), generator.integers(1, 9, 200)
    before = [(int(n), float(n * value)) for n, value in zip(counts, generator.uniform(0.3, 0.9, 200), strict=True)]
    after = [(int(n), float(n * value)) for n, value in zip(new_counts, generator.uniform(0.3, 0.9, 200), strict=True)]
    old, new = np.array(before), np.array(after)
    drawn = generator.integers(0, 200, (4000, 200))
    differences = new[drawn, 1].sum(1) / new[drawn, 0].sum(1) - old[drawn, 1].sum(1) / old[drawn, 0].sum(1)
    assert least_rise(1e-3, tuple(before), tuple(after)) == pytest.approx(1.5 * differences.std(), rel=0.06)


@pytest.mark.parametrize(("value", "taken"), [(0.5, False), (0.504, False), (0.505, True), (0.6, True)])
def test_the_base_is_kept_until_something_is_clearly_above_it(
    value: float, taken: bool, option: Callable[..., Any]
) -> None:
    early = option("trainer/default").early_stopping
    progress = Progress(step=8, epoch=1, best=0.5, base=0.5)
    assert update_best(progress, value, early, 0.005) is taken
    assert (progress.best_step, progress.trained) == (8 if taken else 0, value)


def test_what_has_taken_its_place_yields_to_whatever_is_better(option: Callable[..., Any]) -> None:
    early = option("trainer/default").early_stopping
    progress = Progress(step=8, epoch=1, best=0.6, best_step=4, base=0.5)
    assert update_best(progress, 0.6001, early, 0.005)
    assert (progress.best, progress.best_step) == (0.6001, 8)


def test_a_fit_keeps_the_base_unless_its_images_agree_and_remembers_it_when_it_goes_on(
    make_fit: Callable[..., Any],
) -> None:
    """Eleven images that all rise by 0.002 say more than two that rise by as much."""

    def run(images: int, directory: str) -> Any:
        rises: Iterator[float] = iter([0.001, 0.002, 0.002, 0.003])
        now = [0.5]

        def validate(_: int) -> float:
            now[0] = 0.5 + next(rises)
            return now[0]

        fit = make_fit(directory)
        object.__setattr__(fit, "validate", validate)
        object.__setattr__(fit, "sums", lambda: one_each(*[now[0]] * images))
        object.__setattr__(fit, "base", 0.5)
        object.__setattr__(fit, "base_sums", one_each(*[0.5] * images))
        progress = fit.fit()
        assert read_progress(fit.run.last).base_sums == [[1, 0.5]] * images
        return progress

    few, many = run(2, "few"), run(11, "many")
    assert (few.best, few.best_step, few.trained) == (0.5, 0, 0.503)
    assert (many.best, many.best_step) == (0.503, many.step)
