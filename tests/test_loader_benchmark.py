"""The loader that is timed: what is written is loaded whole, and both sides make the same image tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.questions import loader as question
from benchmarks.record import BenchmarkError
from benchmarks.sides.loader import main

TINY = ["model=tiny_random"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("loader") / "set"
    return root, main(["write", str(root), "--images", "4", "--objects", "3", "--size", "48", "64"])


def test_both_sides_load_what_was_written(written: tuple[Path, dict[str, Any]]) -> None:
    root, about = written
    assert 0.1 < about["share"] < 0.4
    with Image.open(root / "images" / "train" / "0.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 48), "RGB")
    ours = main(["loader", str(root), *TINY, "prompt=points", "--passes", "2"])
    alone = main(["decode", str(root), *TINY, "prompt=box", "--passes", "2"])
    assert ours["pixels"] == alone["pixels"]
    assert ours["images"] == alone["images"] >= 2  # val and test are carved out of the set
    assert (ours["objects"], alone["objects"]) == (3 * ours["images"], 0)
    assert len(ours["seconds"]) == len(alone["seconds"]) == 2


def test_photographs_are_as_large_as_those_of_cameras(tmp_path: Path) -> None:
    about = main(["write", str(tmp_path), "--images", "1", "--objects", "4", "--size", "256", "341"])
    assert 1.5 < 8 * about["jpeg_bytes"] / (256 * 341) < 4  # bits per pixel


def _answers(**changes: Any) -> dict[str, list[dict[str, Any]]]:
    ours = {"seconds": [2.0, 1.0, 1.0], "images": 20, "objects": 160, "pixels": "a"}
    alone = {"seconds": [0.9, 0.9, 0.8], "images": 20, "objects": 0, "pixels": "a"}
    return {"loader": [ours | changes], "loader_points": [ours | {"seconds": [1.25]}], "decode": [alone]}


def test_the_share_is_that_of_the_round() -> None:
    answers = {name: [*one, *two] for (name, one), two in zip(_answers().items(), _answers().values(), strict=True)}
    answers["decode"][1] = answers["decode"][1] | {"seconds": [1.0]}
    by_name = {one.id: one for one in question.figures(answers)}
    assert (by_name["rate"].value, by_name["rate"].ok) == (20, True)
    assert by_name["rate_points"].value == 16
    assert by_name["share"].low == pytest.approx(0.9)
    assert (by_name["share"].high, by_name["share"].ok) == (1, True)
    assert by_name["decode"].limit is None


def test_sides_that_differ_are_refused() -> None:
    question.check_same(_answers(), 8)
    with pytest.raises(BenchmarkError, match="do not compute the same image tensors"):
        question.check_same(_answers(pixels="b"), 8)
    with pytest.raises(BenchmarkError, match="loader: 159 objects were loaded, 160 were written"):
        question.check_same(_answers(objects=159), 8)


def test_the_rehearsal_runs_both_sides_on_the_same_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "run_side", lambda name, arguments, threads: main(arguments))
    outcome = question.measure(rehearse=True)
    assert [one.id for one in outcome.figures] == ["rate", "share", "decode", "rate_points", "share_points"]
    assert outcome.settings["objects of an image"] == 2
    assert outcome.checks["image tensors of all sides"].startswith("equal, SHA-256 ")
