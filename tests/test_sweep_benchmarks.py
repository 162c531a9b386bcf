"""The benchmarks of sweeps: that what goes wrong is counted and shown."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.questions import engines, select, sweep_overhead
from benchmarks.record import BenchmarkError
from benchmarks.reliability.jobs import Tally
from benchmarks.sides.sweep_overhead import Meter
from benchmarks.sweeps import kills


def test_a_cell_that_is_not_as_documented_misses_the_limit() -> None:
    cells = [
        {"engine": engine, "fate": fate, "as_documented": (engine, fate) != ("basic", "killed"), "steps_done_twice": 0}
        for engine in ("basic", "joblib")
        for fate in engines.FATES
    ]
    found = {one.id: one for one in engines.figures(cells, {"kills": 20, "points": 380, "run twice": 2})}
    assert (found["cells"].value, found["cells"].limit, found["cells"].ok) == (5, 6, False)
    assert (found["run_twice"].value, found["run_twice"].ok, found["mixed"].ok) == (2, False, True)
    heading, rows = engines.rows({"cells": cells})
    assert heading == ("engine", "all good", "one job fails", "killed")
    assert rows == [
        ("`basic`", "as documented", "as documented", "**not as documented**"),
        ("`joblib`", "as documented", "as documented", "as documented"),
    ]


def test_a_job_that_is_touched_after_a_kill_counts_as_run_twice(tmp_path: Path) -> None:
    job = tmp_path / "0"
    job.mkdir()
    (job / "evaluation.json").write_text("{}")
    (job / "status.json").write_text(json.dumps({"status": "completed", "job": 0, "overrides": [], "started": 1.0}))
    assert kills._is_done(job)
    before = kills._files(job)
    assert kills._files(job) == before
    (job / "evaluation.json").unlink()
    (job / "evaluation.json").write_text("{}")
    assert kills._files(job) != before


def test_a_sweep_that_cannot_be_run_is_not_counted_as_sound(tmp_path: Path) -> None:
    def broken(place: Path, words: object) -> object:
        return lambda: 2

    original, kills._command = kills._command, broken  # type: ignore[assignment]
    try:
        tally = kills.measure(tmp_path, 3)
    finally:
        kills._command = original
    assert isinstance(tally, Tally)
    assert tally.counts == {"broken": 1}


def test_the_overhead_of_a_job_is_what_is_neither_training_nor_evaluation() -> None:
    times = {"wall": 9.0, "cpu": 5.0, "training": 3.0, "training_cpu": 2.0, "evaluation": 2.0, "evaluation_cpu": 1.5}
    jobs = [times | {"cpu": 50.0}, times, times | {"cpu": 5.5}, times | {"cpu": 4.5}]
    found = {one.id: one for one in sweep_overhead.figures(jobs)}
    assert (found["overhead"].value, found["overhead"].samples, found["overhead"].ok) == (1.5, 3, True)
    assert (found["overhead_wall"].value, found["first"].value) == (4.0, 46.5)


def test_the_parts_of_a_job_are_told_apart() -> None:
    meter = Meter()
    train, over = meter.within("training", lambda: time.sleep(0.02)), meter.job_is_over(lambda: "noted")
    meter.begin()
    train()
    train()
    assert over() == "noted"
    over()
    assert 0.04 <= meter.jobs[0]["training"] <= meter.jobs[0]["wall"]
    assert "training" not in meter.jobs[1]


def test_what_selecting_adds_is_paired_by_draw_and_image() -> None:
    runs = [
        {"draw": draw, "how": how, "places": [draw, other], "base_iou": 0.7, "per_image": [[2, gain], [4, gain + 0.01]]}
        for draw in range(3)
        for how, other, gain in (("selected", 8, 0.03 + 0.1 * draw), ("random", 9, 0.02 + 0.1 * draw))
    ]
    found = {one.id: one for one in select.figures(runs)}
    assert (round(found["more"].value, 6), found["more"].ok, found["draws"].value) == (1.0, True, 3)
    assert round(found["more"].low or 0.0, 6) == round(found["more"].high or 0.0, 6) == 1.0
    assert select.check_base(runs) == "test IoU 0.7000 on 2 images in all trainings"
    runs[0]["places"] = [5, 8]
    with pytest.raises(BenchmarkError, match="not comparable"):
        select.check_base(runs)


def test_trainings_that_kept_the_base_are_no_comparison() -> None:
    """All had, and 0 of 0 points met its limit."""
    select.check_trained([{"gain": 0.0}, {"gain": -0.1}])
    with pytest.raises(BenchmarkError, match="2 of 3 trainings kept the base"):
        select.check_trained([{"gain": 0.0}, {"gain": 0.0}, {"gain": 0.1}])
