"""A run that is used from another directory, or after it or its data has moved."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.data.splits import Splits
from lora_sam.runs import places
from lora_sam.runs.places import check_contents, check_weights, opened, placed, write_splits


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


@dataclass(frozen=True)
class Data:
    """Settings of which only the data are needed."""

    splits: Splits

    def open_data(self) -> Splits:
        return self.splits


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


def test_contents_are_the_same_elsewhere(project, tmp_path, option, capsys) -> None:
    root, _ = project
    shutil.move(root / "data", tmp_path / "moved")
    moved = option("data/coco", root=str(tmp_path / "moved")).open(0)
    check_contents("x", RunDirectory(root / "run"), moved)
    opened(RunDirectory(root / "run"), Data(moved), str(tmp_path / "moved"))
    assert capsys.readouterr().err == ""


def append_a_byte(data: Path) -> None:
    image = sorted(data.rglob("*.png"))[0]
    image.write_bytes(image.read_bytes() + b"\0")


def edit(data: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the first object of the first image in each file of labels."""
    for file in data.rglob("*.json"):
        values = json.loads(file.read_text())
        first = min(values["images"], key=lambda image: str(image["file_name"]))["id"]
        change(next(entry for entry in values["annotations"] if entry["image_id"] == first))
        file.write_text(json.dumps(values))


def drop_an_object(data: Path) -> None:
    for file in data.rglob("*.json"):
        values = json.loads(file.read_text())
        first = values["annotations"][0]["image_id"]
        several = [entry for entry in values["annotations"] if entry["image_id"] == first]
        values["annotations"].remove(several[-1])
        file.write_text(json.dumps(values))


def replace_an_outline(data: Path) -> None:
    edit(data, lambda entry: entry.update(segmentation=[[1, 1, 9, 1, 9, 9]], area=32, bbox=[1, 1, 8, 8]))


def rename_a_class(data: Path) -> None:
    for file in data.rglob("*.json"):
        file.write_text(file.read_text().replace('"name": "', '"name": "other '))


IMAGES = {append_a_byte}


@pytest.mark.parametrize("spoil", [append_a_byte, drop_an_object, replace_an_outline, rename_a_class])
def test_what_was_edited_in_place_is_named(project, option, spoil, capsys) -> None:
    root, _ = project
    run = RunDirectory(root / "run")
    before = {name: list(getattr(option("data/coco", root="data").open(0), name).ids) for name in ("train", "val")}
    spoil(root / "data")
    splits = option("data/coco", root="data").open(0)
    kind = "images" if spoil in IMAGES else "labels"
    edited = rf"{kind} of \w+ were edited: '\S+\.png'"
    with pytest.raises(DataError, match=rf"^resume=a: the data are not those that this run was trained on: {edited}"):
        check_contents("resume=a", run, splits)
    if spoil in IMAGES:
        with pytest.raises(DataError, match=rf"^data_root = x: the images are not those of this run: {edited}"):
            opened(run, Data(splits), "x")
    else:
        opened(run, Data(splits), None)
        assert re.search(rf"run = .*: {edited}.* after training; what follows uses them", capsys.readouterr().err)
    assert before["train"] == list(splits.train.ids)
    values = json.loads((root / "run" / "splits.json").read_text())
    for older in ({"train": []}, {**values, "contents": {"train": "digest"}}, {**values, "contents": 3}):
        (root / "run" / "splits.json").write_text(json.dumps(older))  # a run from before
        check_contents("resume=a", run, splits)


def test_other_images_are_another_data_set(project, option) -> None:
    root, _ = project
    first = root / "data" / "images" / "val" / "1.png"
    file = root / "data" / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace(first.name, "renamed.png"))
    first.rename(first.with_name("renamed.png"))
    with pytest.raises(DataError, match=r"val lacks '\S*1\.png'; val has '\S*renamed\.png', which was not there"):
        opened(RunDirectory(root / "run"), Data(option("data/coco", root="data").open(0)), "data")


def test_of_very_many_images_one_digest_is_kept(project, option, monkeypatch) -> None:
    root, config = project
    monkeypatch.setattr(places, "_LISTED", 1)
    run = RunDirectory(root / "run")
    write_splits(run, option("data/coco", root="data").open(0), config)
    assert all(len(one["labels"]) == 64 for one in json.loads(run.splits.read_text())["contents"].values())
    replace_an_outline(root / "data")
    with pytest.raises(DataError, match="trained on: labels of train were edited; labels of val were edited"):
        check_contents("resume=a", run, option("data/coco", root="data").open(0))


@dataclass(frozen=True)
class Base:
    """What of the base a run writes down."""

    source: str
    sha256: str | None


def test_weights_that_are_others_now_are_refused(project, option) -> None:
    root, config = project
    run, splits = RunDirectory(root / "run"), option("data/coco", root="data").open(0)
    then, now = "a" * 64, "b" * 64
    check_weights("resume=a", run, now)  # an older run says nothing
    write_splits(run, splits, config, Base("base.pth", then))  # type: ignore[arg-type]
    assert json.loads(run.splits.read_text())["base"] == {"source": "base.pth", "sha256": then}
    check_weights("resume=a", run, then)
    check_weights("resume=a", run, None)  # nobody knows
    told = (
        rf"^resume=a: the base weights 'base\.pth' are others now \(SHA-256 {now[:12]}, then '{then[:12]}'\), and what"
    )
    with pytest.raises(AdapterError, match=told):
        check_weights("resume=a", run, now)
    write_splits(run, splits, config, Base("drawn", None))  # type: ignore[arg-type]
    check_weights("resume=a", run, now)
    for base in (3, {"sha256": 3}):
        run.splits.write_text(json.dumps({"base": base}))
        check_weights("resume=a", run, now)


def test_of_many_names_the_first_three_are_told(project, option) -> None:
    root, _ = project
    run = RunDirectory(root / "run")
    splits = option("data/coco", root="data").open(0)
    values = json.loads(run.splits.read_text())
    for count, told in ((1, "'x0'"), (3, "'x0', 'x1', 'x2'"), (4, "'x0', 'x1', 'x2' and 1 more")):
        more = [f"x{number}" for number in reversed(range(count))]
        run.splits.write_text(json.dumps({**values, "train": [*values["train"], *more]}))
        with pytest.raises(DataError, match=rf"on: train lacks {told}\. Put them back"):
            check_contents("resume=a", run, splits)


def test_where_a_run_found_its_data_is_written_as_a_whole_path(project, option, monkeypatch) -> None:
    root, _ = project
    run, splits = RunDirectory(root / "run"), option("data/coco", root="data").open(0)
    monkeypatch.setenv("HOME", str(root))
    write_splits(run, splits, {"data": {"root": "~/data"}, "model": {"checkpoint": None}, "seed": 3})
    text = run.splits.read_text()
    assert json.loads(text)["places"] == {"data.root": str(root / "data")}
    assert text.startswith('{\n  "')
    assert "base" not in json.loads(text)
    assert {len(json.loads(text)["contents"]["train"][kind]) for kind in ("images", "labels")} == {len(splits.train)}


def test_data_that_cannot_be_opened_are_told_with_the_option_of_the_step(project) -> None:
    root, _ = project

    class Absent:
        def open_data(self) -> Splits:
            raise DataError("data.root = x: not there; give data.root=...", "missing")

    with pytest.raises(DataError, match=r"^data_root = x: not there; give data_root=\.\.\.$") as caught:
        opened(RunDirectory(root / "run"), Absent(), "x")  # type: ignore[arg-type]
    assert caught.value.kind == "missing"


@pytest.mark.parametrize(("listed", "digests"), [(6, []), (5, ["train"])])
def test_digests_of_as_many_images_as_are_listed_are_kept_each(project, option, monkeypatch, listed, digests) -> None:
    root, config = project
    monkeypatch.setattr(places, "_LISTED", listed)
    run = RunDirectory(root / "run")
    write_splits(run, option("data/coco", root="data").open(0), config)
    saved = json.loads(run.splits.read_text())["contents"]
    assert [name for name, one in saved.items() if isinstance(one["images"], str)] == digests


def test_a_record_with_too_few_digests_says_nothing_of_the_others(project, option) -> None:
    root, _ = project
    run, splits = RunDirectory(root / "run"), option("data/coco", root="data").open(0)
    values = json.loads(run.splits.read_text())
    values["contents"]["train"]["images"] = values["contents"]["train"]["images"][:2]
    del values["contents"]["val"]["labels"]
    run.splits.write_text(json.dumps(values))
    check_contents("resume=a", run, splits)


@pytest.mark.parametrize(("then", "now"), [(1, 20_000), (20_000, 1)])
def test_digests_of_another_form_are_others(project, option, monkeypatch, then, now) -> None:
    """A set that grew beyond what is listed, or shrank below it."""
    root, config = project
    run, splits = RunDirectory(root / "run"), option("data/coco", root="data").open(0)
    monkeypatch.setattr(places, "_LISTED", then)
    write_splits(run, splits, config)
    monkeypatch.setattr(places, "_LISTED", now)
    with pytest.raises(DataError, match=r"on: images of train were edited; images of val were edited; images of test"):
        check_contents("resume=a", run, splits)


def test_a_record_without_the_names_of_a_split_says_nothing_of_it(project, option) -> None:
    root, _ = project
    run, splits = RunDirectory(root / "run"), option("data/coco", root="data").open(0)
    values = json.loads(run.splits.read_text())
    append_a_byte(root / "data" / "images" / "val")
    for names in (None, 3):
        run.splits.write_text(json.dumps({**values, "train": names}))
        with pytest.raises(DataError, match=r"on: images of val were edited: '\S+'\. Put them back"):
            check_contents("resume=a", run, splits)
