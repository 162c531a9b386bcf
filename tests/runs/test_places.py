"""A run that is used from another directory, or after it or its data has moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_sam.core.errors import ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.places import check_contents, placed, write_splits


@pytest.fixture
def project(tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, option) -> tuple[Path, dict[str, Any]]:
    """A directory with data, weights and a run that names both by relative paths; and the run's configuration."""
    root = tmp_path / "project"
    shutil.copytree(blobs, root / "data")
    (root / "base.pth").touch()
    config = {"data": {"root": "data"}, "model": {"checkpoint": "base.pth"}}
    monkeypatch.chdir(root)
    (root / "run").mkdir()
    write_splits(RunDirectory(root / "run"), option("data/coco", root="data").open(0), config)
    return root, config


def paths(config: dict[str, Any]) -> tuple[str, str]:
    return config["data"]["root"], config["model"]["checkpoint"]


def test_paths_hold_from_another_directory(project, tmp_path, monkeypatch) -> None:
    root, config = project
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)  # not that of the run
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.move(root / "run", "run")
    assert paths(placed(config, RunDirectory(Path("run")))) == (str(root / "data"), str(root / "base.pth"))
    assert paths(config) == ("data", "base.pth")


def test_a_project_that_has_moved_as_a_whole(project, tmp_path, monkeypatch) -> None:
    root, config = project
    shutil.move(root, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert paths(placed(config, RunDirectory(Path("run")))) == ("data", "base.pth")


def test_what_is_nowhere_is_named_by_the_path_that_it_had(project, tmp_path, monkeypatch) -> None:
    root, config = project
    shutil.move(root / "run", tmp_path / "run")
    shutil.rmtree(root)
    monkeypatch.chdir(tmp_path)
    assert paths(placed(config, RunDirectory(Path("run")))) == (str(root / "data"), str(root / "base.pth"))


def test_absolute_paths_and_older_runs_stay_as_they_are(project) -> None:
    root, config = project
    absolute = {"data": {"root": "/x"}, "model": {"checkpoint": None}}
    assert placed(absolute, RunDirectory(root / "run")) == absolute
    for text in ("{}", "damaged", '{"places": []}', '{"places": {"data.root": 3}}'):
        (root / "run" / "splits.json").write_text(text)
        assert placed(config, RunDirectory(root / "run")) == config


def test_the_place_of_the_data_can_be_given(project) -> None:
    root, config = project
    assert placed(config, RunDirectory(root / "run"), "/new")["data"]["root"] == "/new"
    with pytest.raises(ConfigError, match="data_root = /new: the images of this run are drawn; leave it out"):
        placed({"data": {"images": 3}}, RunDirectory(root / "run"), "/new")


def test_contents_are_the_same_elsewhere(project, tmp_path, option) -> None:
    root, _ = project
    shutil.move(root / "data", tmp_path / "moved")
    check_contents("x", RunDirectory(root / "run"), option("data/coco", root=str(tmp_path / "moved")).open(0))


def change_a_pixel(data: Path) -> None:
    image = sorted(data.rglob("*.png"))[0]
    image.write_bytes(image.read_bytes() + b"\0")


def drop_an_object(data: Path) -> None:
    for file in data.rglob("*.json"):
        values = json.loads(file.read_text())
        first = values["annotations"][0]["image_id"]
        several = [entry for entry in values["annotations"] if entry["image_id"] == first]
        values["annotations"].remove(several[-1])
        file.write_text(json.dumps(values))


@pytest.mark.parametrize("spoil", [change_a_pixel, drop_an_object])
def test_other_contents_are_refused(project, option, spoil) -> None:
    root, _ = project
    spoil(root / "data")
    splits = option("data/coco", root="data").open(0)
    with pytest.raises(DataError, match=r"^resume=a: the images or labels of .* are not those that this run was"):
        check_contents("resume=a", RunDirectory(root / "run"), splits)
    (root / "run" / "splits.json").write_text('{"train": []}')  # a run from before
    check_contents("resume=a", RunDirectory(root / "run"), splits)
