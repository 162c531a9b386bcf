"""The benchmarks of sweeps: that what goes wrong is counted and shown."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.questions import engines
from benchmarks.reliability.jobs import Tally
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
