"""The generated COCO set that is opened for a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.questions import index_coco as question
from benchmarks.questions.index_coco import measure
from benchmarks.sides.index_coco import main


def test_what_is_written_is_opened_whole(tmp_path: Path) -> None:
    written = main(["write", str(tmp_path / "set"), "--images", "30", "--objects", "200"])
    opened = main(["open", str(tmp_path / "set")])
    assert (opened["images"], opened["objects"], opened["classes"]) == (written["labelled_images"], 200, 80)
    assert opened["peak_bytes"] > 2**20
    assert written["bytes"] == (tmp_path / "set/annotations/instances_train.json").stat().st_size
    indexed = main(["pycocotools", str(tmp_path / "set")])
    assert (indexed["images"], indexed["objects"]) == (30, 200)


def test_the_rehearsal_compares_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {
        "write": {"bytes": 9, "vertices": 4400, "labelled_images": 39},
        "pycocotools": {"objects": 300, "seconds": 1},
    }
    sides["open"] = {"images": 39, "objects": 300, "classes": 80, "seconds": 30, "peak_bytes": 2**31}
    sides["pycocotools"] |= {"peak_bytes": 2**30}
    monkeypatch.setattr(question, "run_side", lambda name, arguments, threads: sides[arguments[0]])
    outcome = measure(rehearse=True)
    assert {figure.id: figure.value for figure in outcome.figures}["memory"] == 2
    assert outcome.settings["vertices_per_object"] == 14.7
    sides["open"]["objects"] = 299
    with pytest.raises(question.BenchmarkError, match="300 objects were written, 299 opened, 300 indexed"):
        measure(rehearse=True)
    sides["open"] |= {"objects": 300, "images": 40}
    with pytest.raises(question.BenchmarkError, match="39 images have objects, 40 were opened"):
        measure(rehearse=True)
