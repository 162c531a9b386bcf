"""Runs on so few images that none is held out to validate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.metrics_log import read_metrics
from lora_sam.runs.resuming import resumed_config
from lora_sam.training import cross_validation
from lora_sam.training.cross_validation import CrossValidated
from lora_sam.training.settings import settings_from
from lora_sam.training.state import read_progress

FEW = ("data.val=absent", "trainer.max_steps=2", "trainer.overlays=0", "trainer.max_epochs=2", "model=tiny_random")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs in-process in an empty directory; returns the run directory."""
    monkeypatch.chdir(tmp_path)

    def go(name: str, *overrides: str) -> Path:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            config = resumed_config(plain(compose("train", [*overrides, "trainer.device=cpu"])), overrides)
        run(settings_from(config), config=config, output_dir=tmp_path / name)
        return tmp_path / name

    return go


@pytest.mark.usefixtures("rising_validation")
@pytest.mark.parametrize("after", [0.625, 0.375])
def test_the_run_says_that_nothing_was_held_out_and_keeps_the_base_where_nothing_was_gained(
    trained, blobs, capsys, monkeypatch, after
):
    monkeypatch.setattr(cross_validation, "cross_validated", lambda *_: CrossValidated(0.5, after))
    directory = trained("run", f"data.root={blobs}", *FEW)
    splits = json.loads((directory / "splits.json").read_text())
    assert len(splits["train"]) == 6
    assert splits["val"] == splits["train"]
    report = json.loads((directory / "evaluation.json").read_text())
    assert report["validation"]["trained_on"] == 6
    assert report["validation"]["cross_validation"] == {"base": 0.5, "trained": after}
    facts = json.loads((directory / "adapter" / "lora_sam.json").read_text())
    assert (facts["validation_held_out"], facts["better_than_base"]) == (False, after > 0.5)
    assert (report["validation"]["kept_step"] > 0) is (after > 0.5)
    told, page = capsys.readouterr().err, (directory / "report.html").read_text(encoding="utf-8")
    assert "no val split, and no more than 6 training images" in told
    said = "Nothing was held out to choose the weights: the 6 training images chose them too"
    steps = [line["step"] for line in read_metrics(directory / "metrics.jsonl") if "validation_iou" in line]
    if after > 0.5:
        assert steps == [0, 2]
        assert report["validation"]["trained"] > report["validation"]["base"]  # on what it was trained on
        said += ", after 0.500 -&gt; 0.625 in cross-validation over halves of them."
    else:
        assert steps == [0]  # what would be trained is not kept, so nothing is
        assert "training ends here, because cross-validation found no gain" in told
        assert report["validation"]["trained"] is None
        assert report["delta"]["iou"] == 0
        assert (
            "Training did not beat the base: IoU of each half of the images when the other half trained 0.500 before, "
            "0.375 after; the adapter that was kept is that of step 0 and changes nothing; label more images, or train "
            "on all of them all the same with trainer.cross_validate=0."
        ) in told
        assert "optim.lr=" not in page  # no other rate is proposed
    assert said.replace("-&gt;", "->") in told
    assert said.replace("-&gt;", "→") in page
    assert "measured on the very images that are trained on" in page
    if after > 0.5:
        return
    monkeypatch.setattr(cross_validation, "cross_validated", None)  # a resumed run does not ask again
    again = trained("again", f"resume={directory}", "trainer.max_steps=3", "trainer.max_epochs=2")
    assert json.loads((again / "adapter" / "lora_sam.json").read_text())["best_step"] == 0
    cross = json.loads((again / "evaluation.json").read_text())["validation"]["cross_validation"]
    assert cross == {"base": 0.5, "trained": 0.375}
    assert read_progress(again / "checkpoints" / "last" / "state.safetensors").step == 0


def test_cross_validation_leaves_no_trace_in_what_is_trained(trained, blobs, trained_weights, monkeypatch):
    without = trained("without", f"data.root={blobs}", *FEW, "trainer.cross_validate=5")
    assert CrossValidated.recorded(read_metrics(without / "metrics.jsonl")) is None
    asked = []
    original = cross_validation.folds_of
    monkeypatch.setattr(cross_validation, "folds_of", lambda source: asked.append(len(source)) or original(source))
    monkeypatch.setattr(CrossValidated, "gained", True)  # or nothing would be trained after it
    directory = trained("with", f"data.root={blobs}", *FEW, "trainer.cross_validate=6")
    assert asked == [6, 6]  # for the plan, and for itself
    log = read_metrics(directory / "metrics.jsonl")
    found = CrossValidated.recorded(log)
    assert found is not None
    # each image once, so the base has there what it has on all of them
    assert found.base == pytest.approx(log[0]["validation_iou"])
    assert found.trained != found.base
    assert [line["step"] for line in log] == [line["step"] for line in read_metrics(without / "metrics.jsonl")]
    weights, before = trained_weights(directory), trained_weights(without)
    assert weights
    assert all(torch.equal(value, before[name]) for name, value in weights.items())
    assert (directory.parent / "outputs" / "latest").resolve() == directory
