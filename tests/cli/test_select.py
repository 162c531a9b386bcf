"""`lora-sam select`: what is ranked, left out and written, that it is the same again, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from lora_sam.core.config import from_conf
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.evaluation import choosing
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.report.selection import Picked, sheet
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def run(finished_run: Callable[..., Any], blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("select") / "run"
    finished_run(root)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", ["model=tiny_random", f"data.root={blobs}"]), resolve=True)
    (root / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture
def source(blobs: Path, tmp_path: Path) -> Path:
    """Six pictures of noise, a copy of one, a copy of a training image, and a broken file."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        pixels = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST).save(folder / f"new{number}.png")
    shutil.copy(folder / "new3.png", folder / "new3_again.png")
    trained = sorted((blobs / "images" / "train").glob("*.png"))[0]
    shutil.copy(trained, folder / "trained.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def select(run: Path, source: Path, out: Path, **changes: Any) -> int:
    values = {"run": str(run), "source": str(source), "out": str(out), "pre_annotate": False, "n": 20, **changes}
    return int(from_conf("select", **values).perform())


def test_near_duplicates_and_what_is_labelled_are_left_out_and_the_rest_is_ranked(
    run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert select(run, source, out) == 3
    content = json.loads((out / "selection.json").read_text())
    names = [row["image"] for row in content["images"]]
    assert len(names) == 6
    assert {name.removesuffix("_again.png").removesuffix(".png") for name in names} == {f"new{n}" for n in range(6)}
    assert list(content["failures"]) == ["broken.png"]
    assert (content["usable"], content["like_labelled"]) == (8, 1)
    scores = [row["score"] for row in content["images"]]
    assert scores == sorted(scores, reverse=True)
    with (out / "selection.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == names
    assert Image.open(out / "selection.png").width > 200
    page = (out / "selection.html").read_text(encoding="utf-8")
    assert all(name in page for name in (*names, "broken.png"))
    assert re.findall(r'src="(.{11})', page) == ["data:image/"]  # the page may load nothing else
    captured = capsys.readouterr()
    assert "broken.png" in captured.err
    assert "only 6 of n = 20" in captured.out
    heading, first = captured.out.splitlines()[:2]
    assert heading.split() == ["score", "image,", "the", "one", "worth", "most", "first"]
    assert first.split() == ["1", f"{scores[0]:.4f}", names[0]]
    # nothing is drawn
    select(run, source, tmp_path / "again", n=3)
    again = json.loads((tmp_path / "again" / "selection.json").read_text())
    assert again["images"] == content["images"][:3]


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_that_validate_or_test_are_labelled_too(
    run: Path, source: Path, blobs: Path, tmp_path: Path, split: str
) -> None:
    """Whoever labelled one again and trained on it would measure on what was trained."""
    shutil.copy(sorted((blobs / "images" / split).glob("*.png"))[0], source / "held_out.png")
    select(run, source, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert "held_out.png" not in {row["image"] for row in content["images"]}
    labelled = sum(len(list((blobs / "images" / name).glob("*.png"))) for name in ("train", "val", "test"))
    assert (content["like_labelled"], content["labelled"]) == (2, labelled)


def test_a_copy_of_a_labelled_image_is_known_however_dark_it_is(
    run: Path, source: Path, blobs: Path, tmp_path: Path
) -> None:
    """The hash of a flat picture says nothing, so that a copy of a dark labelled one was to be labelled again."""
    data = tmp_path / "data"
    shutil.copytree(blobs, data)
    labelled = sorted((data / "images" / "train").glob("*.png"))[1]
    Image.fromarray(np.full((48, 64, 3), 7, np.uint8)).save(labelled)
    shutil.copy(labelled, source / "dark.png")
    dark = tmp_path / "dark"
    shutil.copytree(run, dark)
    config = json.loads((dark / "config.json").read_text())
    config["data"]["root"] = str(data)
    (dark / "config.json").write_text(json.dumps(config))
    select(dark, source, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert "dark.png" not in {row["image"] for row in content["images"]}
    assert content["like_labelled"] == 2


def test_of_a_run_on_tiles_whole_images_are_compared_in_such_tiles(
    run: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labelled images are known again, and objects are as large for the model as in training."""
    tiled = tmp_path / "tiled"
    shutil.copytree(run, tiled)
    config = json.loads((tiled / "config.json").read_text())
    config["data"]["tile"] = 32
    (tiled / "config.json").write_text(json.dumps(config))
    facts = json.loads((tiled / "adapter" / "lora_sam.json").read_text())
    (tiled / "adapter" / "lora_sam.json").write_text(json.dumps({**facts, "training_tile": 32}))
    sizes = set()
    original = TorchPredictor.embedding

    def embedding(self: TorchPredictor, image: Any) -> Any:
        sizes.add(image.shape)
        return original(self, image)

    monkeypatch.setattr(TorchPredictor, "embedding", embedding)
    select(tiled, source, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert content["like_labelled"] == 1
    assert sizes == {(32, 32, 3)}


@pytest.mark.parametrize("by", ["disagreement", "both"])
def test_where_adapter_and_base_differ(run: Path, source: Path, tmp_path: Path, by: str) -> None:
    select(run, source, tmp_path / "out", by=by, n=4)
    rows = json.loads((tmp_path / "out" / "selection.json").read_text())["images"]
    assert all(0 <= row["disagreement"] <= 1 for row in rows)
    assert len({row["disagreement"] for row in rows}) > 1
    if by == "disagreement":
        assert [row["score"] for row in rows] == [row["disagreement"] for row in rows]


@pytest.mark.parametrize("by", ["disagreement", "both"])
def test_an_adapter_that_changes_nothing_ranks_nothing(
    run: Path, source: Path, tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list would be that of the names, with scores of 0."""
    monkeypatch.setattr(choosing, "disagreement", lambda one, other: 0.0)
    with pytest.raises(ConfigError, match=f"by = {by}: adapter and base find the same masks on all 7 images.*coverage"):
        select(run, source, tmp_path / "out", by=by)
    assert not (tmp_path / "out").exists()


def test_masks_to_begin_from_are_of_the_chosen_images_alone(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    select(run, source, out, n=2, pre_annotate=True)
    names = {row["image"] for row in json.loads((out / "selection.json").read_text())["images"]}
    (file,) = (path for path in (out / "pre_annotations").glob("*.json") if path.name != "predictions.json")
    coco = json.loads(file.read_text())
    assert {image["file_name"] for image in coco["images"]} == names
    with pytest.raises(ConfigError, match="holds an earlier selection"):
        select(run, source, out)
    select(run, source, out, n=1, overwrite=True)
    assert len(json.loads((out / "selection.json").read_text())["images"]) == 1
    assert not (out / "pre_annotations").exists()  # those were of other images


def test_what_is_not_ours_stays(run: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        select(run, source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_nothing_new_is_said(run: Path, source: Path, tmp_path: Path) -> None:
    for path in source.glob("*"):
        if path.name != "trained.png":
            path.unlink()
    with pytest.raises(DataError, match="every image looks like a labelled one of the run's data"):
        select(run, source, tmp_path / "out")
    with pytest.raises(DataError, match="source = "):
        select(run, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_sheet_says_the_rank_of_each_picture_however_small_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    original = ImageDraw.ImageDraw.text

    def text(self: Any, place: Any, words: str, *rest: Any) -> None:
        labels.append(words)
        original(self, place, words, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    picture = np.zeros((16, 8, 3), np.uint8)
    sheet([Picked(rank, f"a/deep/folder/with/WIDE_NAMES_{rank}.png", 0.0, None, picture) for rank in (1, 50)])
    assert labels == ["1 .../WIDE_NAMES_1.png", "50 ...WIDE_NAMES_50.png"]
