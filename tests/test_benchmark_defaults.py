"""The benchmark of the defaults: its cells, what is kept of them, and the figures made from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import before_and_after
from benchmarks.questions import defaults
from benchmarks.record import BenchmarkError, read_results
from benchmarks.sides.defaults import Cells, mean

TINY = [*defaults._TINY, "trainer.validation_objects=2", "trainer.class_head=false", "tracker=none"]


def cell(gain: float, first: float, **changes: Any) -> dict[str, Any]:
    return {
        "set": "thin", "method": "lora", "seed": 0, "defaults": "now", "base_sha256": "0123456789", "images": [2, 1, 1],
        "steps": 4, "best_step": 2, "validation_iou": [[0, 0.5], [2, 0.5 + first], [4, 0.5 + gain]],
        "base": [[1, 0.2], [3, 0.6]], "tuned": [[1, 0.2 + gain], [3, 0.6 + gain]], "seconds": 3.0,
    } | changes  # fmt: skip


def test_means_are_over_objects() -> None:
    assert mean([[1, 0.2], [3, 0.6]]) == pytest.approx(0.5)


def test_figures_take_the_worst_cell_and_the_mean_over_sets() -> None:
    cells = [
        cell(0.1, 0.01),
        cell(0.2, -0.05, seed=1),
        cell(-0.01, 0.02, set="holed"),
        cell(0.05, -0.3, defaults="before"),
        cell(-0.02, -0.1, set="holed", defaults="before"),
    ]
    table = defaults.rows(cells)
    found = {one.id: one for one in defaults.figures(table)}
    assert found["now_worst_end"].value == pytest.approx(-0.01)
    assert found["now_worst_end"].ok is False
    assert found["now_worst_first"].value == pytest.approx(-0.05)
    assert found["now_worst_first"].limit == -0.02
    assert found["now_lora"].value == pytest.approx((0.15 - 0.01) / 2)
    assert found["before_worst_first"].value == pytest.approx(-0.3)
    assert found["before_worst_first"].limit is None
    assert found["against_before"].value == pytest.approx(((0.15 - 0.05) + (-0.01 + 0.02)) / 2)
    assert found["against_before"].low == pytest.approx(0.01)
    assert found["against_before"].ok
    assert before_and_after.table(table) == [
        ("thin", "lora", "0.500", "+0.050", "+0.150 [+0.100]", "-0.300", "-0.020 [-0.050]"),
        ("holed", "lora", "0.500", "-0.020", "-0.010 [-0.010]", "-0.100", "+0.020 [+0.020]"),
    ]
    assert "before" not in {one["defaults"] for one in defaults.rows(cells[:1])}
    # ended by cross-validation before its first epoch
    ended = defaults.rows([cell(0.0, 0.0, validation_iou=[[0, 0.5]])])
    assert before_and_after.table(ended) == [("thin", "lora", "0.500", "–", "+0.000 [+0.000]", "–", "–")]


def test_cells_that_contradict_each_other_are_no_result() -> None:
    assert "thin 0.500" in defaults.same_base([cell(0.1, 0.1), cell(0.2, 0.2, seed=1)])["base"]
    with pytest.raises(BenchmarkError, match="the base was measured differently on thin"):
        defaults.same_base([cell(0.1, 0.1), cell(0.1, 0.1, base=[[1, 0.3]])])
    with pytest.raises(BenchmarkError, match="different weights: 01234567, abcdefab"):
        defaults.same_base([cell(0.1, 0.1), cell(0.1, 0.1, base_sha256="abcdefabcd")])


def test_sets_that_are_not_here_are_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rings").mkdir()
    monkeypatch.setenv("LORA_SAM_DATA", str(tmp_path))
    sets, skipped = defaults.available()
    assert list(sets) == [*defaults.DRAWN, "rings"]
    assert sets["rings"] == ("data=folder", f"data.root={tmp_path.resolve() / 'rings'}")
    assert skipped.keys() == {"nuclei"}
    assert "docs/data.md" in skipped["nuclei"]
    assert len(list(defaults.all_cells(sets, (0, 1)))) == 2 * 6 * 3 * 2
    monkeypatch.setenv("BENCHMARK_SETS", "rings,thin")
    sets, skipped = defaults.available()
    assert list(sets) == ["rings", "thin"]
    assert skipped["holed"] == "not in $BENCHMARK_SETS"
    monkeypatch.setenv("BENCHMARK_SETS", "rings,nuclei")
    with pytest.raises(BenchmarkError, match="BENCHMARK_SETS names nuclei; there are thin, holed"):
        defaults.available()


def test_a_finished_cell_is_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is kept counts for these settings only: of another default it says nothing."""
    (one, _, other, *_) = defaults.all_cells({"thin": ("data=drawn_thin",)}, (0,))
    place = tmp_path / f"{defaults._digest(one)}.json"
    place.write_text(json.dumps(cell(0.1, 0.1)))
    monkeypatch.setattr(defaults.subprocess, "Popen", None)  # starting a side would fail
    assert defaults.run_cells([one], tmp_path) == [cell(0.1, 0.1)]
    assert other["overrides"] != one["overrides"]
    assert defaults.run_cells([other, one], tmp_path, "0") == [cell(0.1, 0.1)], "nothing is begun when time is over"
    with pytest.raises(TypeError):
        defaults.run_cells([other], tmp_path)
    monkeypatch.setattr(defaults, "_composed", lambda overrides: "other defaults")
    with pytest.raises(TypeError):
        defaults.run_cells([one], tmp_path)


def test_a_cell_is_fitted_and_begins_at_the_base() -> None:
    """Two methods of one set: the base is measured once, and where nothing beats it, it is what is kept."""
    measured = Cells()
    told = {"train": 0, "val": 0, "test": 0}
    frozen = measured({**told, "overrides": ["data=drawn_thin", *TINY, "method=decoder", "optim.lr=1e-9"]})
    assert frozen["images"] == [2, 1, 1]
    assert frozen["steps"] == 2
    assert [step for step, _ in frozen["validation_iou"]] == [0, 2]
    assert frozen["best_step"] in (0, 2)
    assert mean(frozen["tuned"]) == pytest.approx(mean(frozen["base"]), abs=1e-3)
    other = measured({**told, "overrides": ["data=drawn_thin", *TINY, "method=lora", "optim.lr=1.0"]})
    assert other["base"] == frozen["base"]
    assert other["validation_iou"][0] == frozen["validation_iou"][0]
    if other["best_step"] == 0:
        assert other["tuned"] == other["base"]


def test_the_committed_figures_are_those_of_the_committed_cells() -> None:
    result = read_results()["defaults"]
    assert defaults.figures(result.details["rows"]) == [replace(one, note="") for one in result.figures]
    assert {name: tuple(words) for name, words in result.settings["defaults"].items()} == dict(defaults.DEFAULTS)
    cells = result.details["cells"]
    assert len(cells) == sum(row["seeds"] for row in result.details["rows"])
    gains = sorted(one["tuned_iou"] - one["base_iou"] for one in cells)
    assert gains == pytest.approx(sorted(gain for row in result.details["rows"] for gain in row["gains"]), abs=2e-5)
