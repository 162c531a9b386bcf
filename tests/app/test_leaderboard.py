"""The leaderboard of the app: runs beside each other, the best of those that can be compared first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sweeps.quick_run import evaluation
from lora_sam.app.leaderboard import LEADERBOARD, leaderboard, varied
from lora_sam.app.runs import Run
from lora_sam.core.run_directory import RunDirectory


def test_runs_that_validated_on_something_else_are_ranked_apart(
    finished_run: Callable[..., Any], tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    for name, value, asked in (
        ("one", 0.5, "box"),
        ("two", 0.9, "point"),
        ("three", 0.6, "box"),
        ("four", 0.8, "point"),
    ):
        finished_run(outputs / name)
        facts = outputs / name / "adapter" / "lora_sam.json"
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "validation_iou": value}))
        report = evaluation([value])
        report["validation"]["asked"] = asked
        (outputs / name / "evaluation.json").write_text(json.dumps(report))
    board = leaderboard([Run(name, RunDirectory(outputs / name)) for name in ("one", "two", "three", "four")])
    assert [row[0] for row in board] == ["three", "one", "two", "four"]
    assert [row[1] for row in board] == ["A 0.600", "A 0.500", "B 0.900", "B 0.800"]
    alone = leaderboard([Run(name, RunDirectory(outputs / name)) for name in ("one", "three")])
    assert [row[1] for row in alone] == ["0.600", "0.500"]


def test_figures_stand_before_what_differs_and_kinds_are_named(
    finished_run: Callable[..., Any], tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    for name, target, more in (("one", "boxes.BoxPrompt", {"jitter": 1}), ("two", "everything.EverythingPrompt", {})):
        finished_run(outputs / name)
        path = RunDirectory(outputs / name).saved_config
        config = json.loads(path.read_text()) if path.is_file() else {}
        config |= {"prompt": {"_target_": f"lora_sam.prompts.{target}", **more}, "optim": {"lr": 0.1}}
        path.write_text(json.dumps(config))
    runs = [Run(name, RunDirectory(outputs / name)) for name in ("one", "two")]
    assert varied(runs) == {"one": "prompt: BoxPrompt", "two": "prompt: EverythingPrompt"}
    config["prompt"]["_option_"] = "everything"
    path.write_text(json.dumps(config))
    assert varied(runs) == {"one": "prompt: BoxPrompt", "two": "prompt=everything"}
    assert all(len(row) == len(LEADERBOARD) for row in leaderboard(runs))
    assert LEADERBOARD.index("difference") < LEADERBOARD.index("what differs")
