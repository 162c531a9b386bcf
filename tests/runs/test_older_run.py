"""A run made before settings classes moved (`tests/fixtures/run_before_rooms`) is loaded, resumed, merged, measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from lora_sam import load
from lora_sam.app.runs import find_runs
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.config import class_of_step, from_conf
from lora_sam.core.moved import MOVED, with_new_names
from lora_sam.core.run_directory import RunDirectory
from lora_sam.models import device
from lora_sam.runs.exported import require_exported
from lora_sam.runs.merged import require_merged
from lora_sam.runs.resuming import resumed_config, settings_of
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "run_before_rooms"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "old"))


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", list(overrides)))


def test_the_fixture_is_from_before() -> None:
    saved = json.loads((FIXTURE / "config.json").read_text())
    moved = {value["_target_"] for value in saved.values() if isinstance(value, dict)} & MOVED.keys()
    assert moved == {
        "lora_sam.cache.options.CacheOptions",
        "lora_sam.data.synthetic.Ellipses",
        "lora_sam.losses.DiceCELoss",
        "lora_sam.optim.Adam",
        "lora_sam.tracking.NoTracker",
    }


@pytest.mark.parametrize(("before", "now"), MOVED.items())
def test_every_name_that_moved_is_that_of_a_settings_class(before: str, now: str) -> None:
    config, notes = with_new_names({"group": {"_target_": before, "inner": {"_target_": before}}, "seed": 1})
    assert config == {"group": {"_target_": now, "inner": {"_target_": now}}, "seed": 1}
    assert notes == (
        f"group._target_ = {before} has moved; write {now}",
        f"group.inner._target_ = {before} has moved; write {now}",
    )
    assert class_of_step(now).__name__ == before.rpartition(".")[2]


def test_a_file_of_the_user_s_own_is_read_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    config = composed("experiment=smoke", "optim._target_=lora_sam.optim.Adam")
    assert settings_from(config) == settings_from(composed("experiment=smoke"))
    assert capsys.readouterr().err == (
        "note: optim._target_ = lora_sam.optim.Adam has moved; write lora_sam.training.optim.Adam\n"
    )


def test_it_is_resumed_and_gives_the_bits_of_one_long_run(
    old: Path, tmp_path: Path, trained_weights: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # it was made in bf16 and does not say so: where precision=auto is fp32, it goes on with other bits
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: True)
    saved = json.loads((old / "config.json").read_text())
    words = [f"resume={old}", "trainer.max_epochs=3"]
    longer = resumed_config(composed(*words), words)
    assert longer["data"]["_target_"] == "lora_sam.data.drawn.synthetic.Ellipses"
    run(settings_from(longer), config=longer, output_dir=tmp_path / "longer")
    steps = [json.loads(line)["step"] for line in (tmp_path / "longer" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 6
    anew = {**longer, "resume": None}
    run(settings_from(anew), config=anew, output_dir=tmp_path / "anew")
    states = [trained_weights(tmp_path / name) for name in ("longer", "anew")]
    assert states[0].keys() == states[1].keys()
    # its steps were made on another processor, whose last bits may differ
    assert all((value - states[1][name]).abs().max() < 1e-2 for name, value in states[0].items())
    # those of a run of this processor as long as it is: all bits
    shorter = {**anew, "trainer": {**anew["trainer"], "max_epochs": saved["trainer"]["max_epochs"]}}
    run(settings_from(shorter), config=shorter, output_dir=tmp_path / "shorter")
    for name in ("best", "last"):
        shutil.copytree(tmp_path / "shorter" / "checkpoints" / name, old / "checkpoints" / name, dirs_exist_ok=True)
    run(settings_from(longer), config=longer, output_dir=tmp_path / "here")
    adapters = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("here", "anew")]
    assert adapters[0] == adapters[1]
    ends = [trained_weights(tmp_path / name) for name in ("here", "anew")]
    assert ends[0].keys() == ends[1].keys()
    assert all((value == ends[1][name]).all() for name, value in ends[0].items())


def test_what_was_made_from_it_is_current(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory(old)
    assert require_merged(directory) == old / "merged" / "sam.safetensors"
    assert require_exported(directory, "fp32") == old / "openvino" / "fp32"
    assert from_conf("merge", run=str(old)).perform() == 0
    assert "nothing to do" in capsys.readouterr().out


def test_it_is_merged_again_to_the_same_weights(old: Path) -> None:
    before = (old / "merged" / "sam.safetensors").read_bytes()
    shutil.rmtree(old / "merged")
    assert from_conf("merge", run=str(old)).perform() == 0
    assert (old / "merged" / "sam.safetensors").read_bytes() == before


@pytest.mark.usefixtures("memory_in_this_process")
def test_all_its_back_ends_are_measured(old: Path) -> None:
    assert from_conf("evaluate", run=str(old), repeats=1, backends=["base", "tuned", "merged", "fp32"]).perform() == 0
    measured = json.loads((old / "backends.json").read_text())["backends"]
    stored = json.loads((old / "evaluation.json").read_text())
    assert measured["base"]["iou"] == pytest.approx(stored["base"]["iou"], abs=1e-6)
    assert measured["tuned"]["iou"] == pytest.approx(stored["tuned"]["iou"], abs=1e-6)
    assert measured["fp32"]["iou"] == pytest.approx(stored["tuned"]["iou"], abs=1e-3)
    assert all(found["peak_memory_bytes"] > 100e6 for found in measured.values())


def test_the_app_and_the_library_find_it(old: Path) -> None:
    assert [found.directory.root.name for found in find_runs(old.parent)] == ["old"]
    sample = settings_of(RunDirectory(old)).open_data().test[0]
    masks = load(old, device="cpu").segment(sample.image, boxes=[[10, 10, 60, 60]])
    assert masks.masks.shape == (1, *sample.size)
    assert np.isfinite(masks.scores).all()
