"""A run for masks without prompts: thresholds of its own, which app and library take up, and what it is compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lora_sam import load
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.scores import scores_of
from lora_sam.runs.backends import RunBackEnds
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["model=tiny_random", "trainer.max_epochs=1", "trainer.device=cpu", "tracker=none"]


def trained(directory: Path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("train", [*QUICK, *overrides]))
    run(settings_from(config), config=config, output_dir=directory)
    found: dict[str, Any] = json.loads((directory / "evaluation.json").read_text())
    return found


def test_a_run_keeps_the_thresholds_it_was_compared_by(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "run"
    report = trained(
        directory, f"data.root={blobs}", "prompt=everything", "prompt.points_per_side=4", "evaluate_images=2"
    )
    automatic, clicks = report["automatic"], report["clicks"]
    assert (automatic["images"], automatic["of_images"], automatic["fitted_on"]) == (2, 3, 2)
    assert automatic["points_per_side"] == 4
    assert (clicks["images"], clicks["objects"]) == (2, 6)
    assert [(kind["name"], kind["trained"]) for kind in report["kinds"]] == [
        ("box", False), ("clicks", False), ("everything", True),
    ]  # fmt: skip
    facts = json.loads((directory / "adapter" / "lora_sam.json").read_text())
    tuned, base = scores_of(facts["scores"]), scores_of(facts["base"]["scores"])
    assert (vars(tuned), vars(base)) == (automatic["scores"]["tuned"], automatic["scores"]["base"])
    assert tuned.masks == "single"  # the three were not trained
    assert load(directory).scores == tuned
    opened = RunBackEnds(RunDirectory(directory)).open(("base", "tuned"), threads=None)
    assert (opened["base"].scores, opened["tuned"].scores) == (base, tuned)
    printed = capsys.readouterr()
    assert "AP@0.5:0.95" in printed.out
    assert "Training did not beat the base: " in printed.err  # so AP has a line of its own
    assert "With no prompts: " in printed.err
    assert "2 of 3 images, 4 x 4 points" in (directory / "adapter" / "README.md").read_text()
    assert "AP@0.75" in (directory / "report.html").read_text()


def test_what_is_not_wanted_is_not_measured(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    off = ["evaluate_automatic=false", "evaluate_clicks=false"]
    report = trained(tmp_path / "off", f"data.root={blobs}", "prompt=point", *off)
    assert not {"automatic", "clicks"} & report.keys()
    assert [kind["name"] for kind in report["kinds"]] == ["box"]
    facts = json.loads((tmp_path / "off" / "adapter" / "lora_sam.json").read_text())
    assert "scores" not in facts["base"]
    report = trained(tmp_path / "boxes", f"data.root={blobs}")
    assert not {"automatic", "clicks"} & report.keys()
    assert [kind["name"] for kind in report["kinds"]] == ["point"]
