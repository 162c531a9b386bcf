"""Masks without prompts and clicks as a benchmark: its runs compose, its figures are held to limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.questions import clicks, one_image, without_prompts
from benchmarks.record import BenchmarkError
from benchmarks.settings import settings_for


def _paired(base: float, tuned: float) -> dict[str, Any]:
    middle = {"base": (base, 0.1), "tuned": (tuned, 0.1), "delta": (tuned - base, 0.02)}
    intervals = {f"{name}_interval": [value - by, value + by] for name, (value, by) in middle.items()}
    return {name: value for name, (value, _) in middle.items()} | intervals


def _run(base: float, tuned: float, seconds: float = 100.0, points: int = 32) -> dict[str, Any]:
    return {"automatic": {"ap_50": _paired(base, tuned), "points_per_side": points}, "seconds": seconds}


def test_every_run_is_what_the_question_says() -> None:
    jobs = [one for question in (without_prompts, clicks, one_image) for one in question.jobs(Path("nuclei")).items()]
    told = {name: settings_for(f"experiment={experiment}", *words) for name, (experiment, words) in jobs}
    assert list(told) == ["all", "nuclei", "demo", *(f"draw_{draw}" for draw in range(5))]
    assert [one.evaluate_images for one in told.values()] == [40, None, None, 20, 20, 20, 20, 20]
    assert {one.data.root for name, one in told.items() if name != "demo"} == {"nuclei"}
    assert [one.trainer.shots for one in told.values()] == [None, None, None, 1, 1, 1, 1, 1]
    assert [one.trainer.draw for one in told.values()][3:] == [0, 1, 2, 3, 4]
    for name in ("nuclei", "demo"):
        assert (told[name].prompt.rounds, told[name].prompt.point_share) == (4, 1)


def test_figures_are_held_to_their_limits() -> None:
    found = {one.id: one for one in without_prompts.figures({"all": _run(0.3, 0.52)})}
    assert (round(found["all_gain"].value, 6), found["all_gain"].ok, found["all_seconds"].ok) == (0.22, True, True)
    draws = {f"draw_{draw}": _run(0.3, 0.3 + gain) for draw, gain in enumerate((0.0, 0.3, 0.1, 0.2, 0.12))}
    found = {one.id: one for one in one_image.figures(draws)}
    assert (round(found["one_gain"].value, 6), found["one_gain"].ok) == (0.12, False)
    found = {one.id: one for one in clicks.figures("demo", {"clicks": {"iou_3": _paired(0.6, 0.615)}, "seconds": 9.0})}
    assert (found["demo_gain"].ok, found["demo_low"].ok) == (False, False)


def test_the_base_is_the_same_in_all_runs() -> None:
    runs = {"draw_0": _run(0.3, 0.4), "draw_1": _run(0.3, 0.5)}
    assert without_prompts.same_base(runs) == {"base": "AP at 0.5 0.300 with 32 points"}
    runs["draw_1"] = _run(0.31, 0.4)
    with pytest.raises(BenchmarkError, match="the base was measured differently"):
        without_prompts.same_base(runs)
    runs["draw_1"] = _run(0.31, 0.4, points=16)
    assert "0.310 with 16 points" in without_prompts.same_base(runs)["base"]


def test_an_answer_says_what_was_typed() -> None:
    wanted = without_prompts.jobs(Path("nuclei"))
    said = without_prompts.outcome_of(wanted, {"all": _run(0.3, 0.5)}, {}, ()).settings["jobs"]
    words = [*without_prompts.ON_NUCLEI, "evaluate_clicks=false", "evaluate_images=40"]
    assert said == {"all": ["nuclei_everything", *words]}
