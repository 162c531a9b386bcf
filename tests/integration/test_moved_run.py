"""A run that has moved, whose data has moved, and that may only be read: every command finds what it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lora_sam import load
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError
from lora_sam.core.files import sha256_of
from lora_sam.core.run_directory import RunDirectory
from lora_sam.deployment import comparing
from lora_sam.runs.elsewhere import working_copy
from lora_sam.runs.resuming import resumed_config
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", list(overrides)))


def files_of(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): sha256_of(path) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def moved(tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A run made with relative paths, moved away; its data, moved elsewhere; the working directory is a third place."""
    monkeypatch.setattr(comparing, "peak_memory_of", lambda *_, **__: None)
    project = tmp_path / "project"
    shutil.copytree(blobs, project / "data")
    monkeypatch.chdir(project)
    config = composed(
        "model=tiny_random", "data.root=data", "trainer.max_steps=1", "trainer.device=cpu", "trainer.overlays=1"
    )  # fmt: skip
    run(settings_from(config), config=config, output_dir=project / "run")
    shutil.move(project / "run", tmp_path / "archive" / "run")
    shutil.move(project / "data", tmp_path / "store" / "data")
    (tmp_path / "third").mkdir()
    monkeypatch.chdir(tmp_path / "third")
    return tmp_path / "archive" / "run", tmp_path / "store" / "data"


def test_every_command_finds_a_moved_run_and_writes_nothing_into_it(
    moved: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, data = moved
    before = files_of(directory)
    place = tmp_path / "results"

    def step(name: str, root: Path = directory, **changes: Any) -> int:
        return int(from_conf(name, run=str(root), **changes).perform())

    assert step("deploy", int8=False, data_root=str(data), output=str(place)) == 0
    assert step("quantize", mode="int8_weights", max_drop=100.0, data_root=str(data), output=str(place)) == 0
    assert step("merge", output=str(place)) == 0
    assert "already there" in capsys.readouterr().out
    figures = tmp_path / "figures.json"
    chosen = {"data_root": str(data), "output": str(figures)}
    assert step("evaluate", backends=["base", "tuned"], **chosen) == 0
    assert json.loads(figures.read_text())["backends"].keys() == {"base", "tuned"}
    assert step("robustness", sections=["calibration"], max_images=1, **chosen) == 0
    assert load(directory).image_size == load(place).image_size
    assert files_of(directory) == before
    wanted = {"merged", "openvino", "adapter", "config.json", "splits.json", "report.html", "backends.json"}
    assert {path.name for path in place.iterdir()} == wanted
    assert {path.name for path in (place / "openvino").iterdir()} == {"fp32", "fp16", "int8_weights"}
    assert files_of(place / "adapter") == files_of(directory / "adapter")
    # training goes on with the data where they are now
    typed = ["resume=" + str(directory), f"data.root={data}", "trainer.max_steps=2"]
    config = resumed_config(composed("model=tiny_random", *typed), typed)
    run(settings_from(config), config=config, output_dir=tmp_path / "resumed")
    assert (tmp_path / "resumed" / "adapter" / "adapter_model.safetensors").is_file()
    assert files_of(directory) == before


def test_a_place_that_is_something_else_is_left_alone(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    finished_run(tmp_path / "one")
    finished_run(tmp_path / "two", seed=2)
    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    assert working_copy(one, None) is one
    assert working_copy(one, str(tmp_path / "one")) is one
    copy = working_copy(one, str(tmp_path / "copy"))
    assert files_of(copy.root) == {
        name: found for name, found in files_of(one.root).items() if "/checkpoints" not in name
    }
    assert working_copy(one, str(tmp_path / "copy")) == copy
    before = files_of(copy.root)
    with pytest.raises(AdapterError, match=r"copy/adapter/\S+ is there and is not that of .*two; give a directory"):
        working_copy(two, str(copy.root))
    assert files_of(copy.root) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("mine")
    with pytest.raises(AdapterError, match=r"mine/config.json is there and is not that of"):
        working_copy(one, str(tmp_path / "mine"))
    assert files_of(tmp_path / "mine").keys() == {"config.json"}
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match=r"^output = \S+file: cannot be written: .*; give another directory$"):
        working_copy(one, str(tmp_path / "file"))
