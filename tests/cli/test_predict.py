"""The predict command: the masks of the library, the same by every back end, and what it refuses before encoding."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from lora_sam.cli.jobs import plain
from lora_sam.cli.predict import Predict
from lora_sam.cli.step import run_step
from lora_sam.core.config import from_conf, step_from
from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.data.reading.coco_masks import EncodedMasks
from lora_sam.data.reading.images import read_image
from lora_sam.runs.loading import load, load_adapted, predictors_for

ROOT = Path(__file__).resolve().parents[2]
ANY = {"points_per_side": 3, "predicted_iou": 0.0, "stability": 0.0}


@pytest.fixture
def place(exported_run: Callable[[Path], Path], blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a run and two images."""
    exported_run(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        shutil.copy(blobs / "images" / "test" / name, tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**changes: Any) -> Predict:
    built = from_conf("predict", **{"run": "run", "source": "photos", **changes})
    assert isinstance(built, Predict)
    return built


def masks_in(output: str) -> dict[str, np.ndarray]:
    content = json.loads((Path(output) / "coco.json").read_text())
    found: dict[int, list[bytes]] = {image["id"]: [] for image in content["images"]}
    for one in content["annotations"]:
        found[one["image_id"]].append(one["segmentation"]["counts"].encode())
    return {
        image["file_name"]: EncodedMasks(tuple(found[image["id"]])).read((image["height"], image["width"]))
        for image in content["images"]
    }


def boxes_of(blobs: Path, place: Path) -> str:
    content = json.loads((blobs / "annotations" / "instances_test.json").read_text())
    content["images"] = content["images"][:2]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] <= 2]
    (place / "boxes.json").write_text(json.dumps(content))
    return "boxes.json"


def test_the_masks_are_those_of_the_library(place: Path, blobs: Path) -> None:
    assert options(prompts=boxes_of(blobs, place), output="out").perform() == 0
    content = json.loads((place / "boxes.json").read_text())
    predictor = load("run")
    for image in content["images"]:
        boxes = [one["bbox"] for one in content["annotations"] if one["image_id"] == image["id"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
        expected = predictor.segment(read_image(place / "photos" / image["file_name"]), boxes=corners)
        assert (masks_in("out")[image["file_name"]] == expected.masks).all()
    written = json.loads((place / "out" / "coco.json").read_text())
    assert written["categories"] == [{"id": 1, "name": "blob", "supercategory": ""}]
    assert written["annotations"][0]["prompt_id"] == "1"


def test_the_base_without_the_adapter(place: Path, blobs: Path) -> None:
    boxes = boxes_of(blobs, place)
    options(prompts=boxes, output="tuned").perform()
    options(prompts=boxes, output="base", adapter=False).perform()
    tuned, base = masks_in("tuned"), masks_in("base")
    adapted = load_adapted("run")
    predictor = predictors_for(adapted, 64)["base"]
    content = json.loads((place / boxes).read_text())
    corners = [
        [x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in content["annotations"] if one["image_id"] == 1)
    ]
    expected = predictor.segment(read_image(place / "photos" / "1.png"), boxes=corners).masks
    assert (base["1.png"] == expected).all()
    assert any((tuned[name] != base[name]).any() for name in base)


def test_every_back_end_finds_the_same(place: Path, blobs: Path) -> None:
    boxes = boxes_of(blobs, place)
    for backend in ("torch", "merged", "fp32", "fp16"):
        options(prompts=boxes, output=backend, backend=backend).perform()
    first = masks_in("torch")
    for backend in ("merged", "fp32", "fp16"):
        for name, masks in masks_in(backend).items():
            same = (masks & first[name]).sum(axis=(1, 2)) / (masks | first[name]).sum(axis=(1, 2))
            assert same.min() >= (0.999 if backend != "fp16" else 0.98), backend


def test_thresholds_are_those_fitted_for_the_weights_unless_given(place: Path) -> None:
    own = {"predicted_iou": 0.0, "stability": 0.0, "stability_offset": 0.01, "box_overlap": 0.4, "masks": "single"}
    path = place / "run" / "adapter" / "lora_sam.json"
    facts = json.loads(path.read_text())
    facts["base"]["scores"] = {**own, "box_overlap": 0.2}
    path.write_text(json.dumps({**facts, "scores": own}))
    few = {"points_per_side": 3, "max_images": 1}
    for output, changes, expected in (
        ("tuned", {}, {**own, "ranking": "iou"}),
        ("given", {"box_overlap": 1.0}, {**own, "box_overlap": 1.0}),
        ("base", {"adapter": False}, facts["base"]["scores"]),
    ):
        options(output=output, **few, **changes).perform()
        settings = json.loads((place / output / "predictions.json").read_text())["settings"]
        assert expected.items() <= settings.items()
        assert len(masks_in(output)["1.png"]) <= 9  # the single mask of each point


def test_a_second_grid_is_another_prediction(place: Path) -> None:
    few = {"max_images": 1, **ANY}
    options(**few).perform()
    options(**few, holes_per_side=4).perform()
    first, second = (
        json.loads((place / "predictions" / name / "predictions.json").read_text())["settings"]
        for name in ("photos", "photos-2")
    )
    assert second == {**first, "holes_per_side": 4}


def test_everything_in_an_image_and_all_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(formats=["coco", "labels", "overlays"], **ANY).perform() == 0
    said, warned = capsys.readouterr()
    assert "This run was trained with boxes: without prompts it may find anything" in warned
    assert "prompt=everything trains masks without prompts." in warned
    found = masks_in("predictions/photos")
    count = sum(len(masks) for masks in found.values())
    assert count > 0
    lines = said.splitlines()
    assert lines[0].startswith(f"2 images, {count} object")
    assert lines[1:5] == [
        "coco      predictions/photos/coco.json",
        "labels    predictions/photos/labels",
        "overlays  predictions/photos/overlays",
        "page      predictions/photos/predictions.html",
    ]
    page = Path("predictions/photos/predictions.html").read_text()
    assert page.count("<figure>") == 2
    assert f"1.png: {len(found['1.png'])} object" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    about = json.loads(Path("predictions/photos/predictions.json").read_text())
    assert (about["images"], about["objects"], about["failures"]) == (2, count, {})
    assert about["settings"]["points_per_side"] == 3
    assert options(formats=["coco"], **ANY).perform() == 0
    assert "2 were there already" in capsys.readouterr().out


def test_images_that_cannot_be_used_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos" / "broken.png").write_bytes((place / "photos" / "1.png").read_bytes()[:200])
    assert options(**ANY).perform() == 3
    captured = capsys.readouterr()
    assert re.search(r"left out: .*broken\.png: truncated or damaged", captured.err)
    assert "2 images, " in captured.out
    assert "1 image could not be used" in captured.out
    assert "the others are skipped: python -m lora_sam.predict run=run source=photos" in captured.out
    assert "Images that could not be used" in Path("predictions/photos/predictions.html").read_text()
    assert list(json.loads(Path("predictions/photos/predictions.json").read_text())["failures"]) == ["broken.png"]


def test_nothing_found_says_what_to_change(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(predicted_iou=1.0, points_per_side=2, formats=["coco", "geojson"]).perform() == 0
    said = capsys.readouterr().out
    match = re.search(r"nothing was found; ask for less: python -m lora_sam\.predict (.*)", said)
    assert match is not None
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        again = step_from(plain(compose("predict", [*dict.fromkeys(shlex.split(match[1]))])))
    assert (again.run, again.predicted_iou, again.points_per_side, again.formats) == (
        "run",
        0.8,
        32,
        ("coco", "geojson"),
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"run": "nowhere"}, AdapterError, "nowhere: no such run directory"),
        ({"run": "photos"}, AdapterError, "no adapter there; give a finished run's directory"),
        ({"source": "empty"}, DataError, "source = empty: no image is in this folder"),
        ({"source": "broken"}, DataError, "source = broken: the image cannot be read: "),
        ({"backend": "int8"}, AdapterError, r"int8.*not there yet; make it with: python -m lora_sam\.quantize run="),
        ({"prompts": "unknown.csv"}, DataError, r"prompts = unknown\.csv: line 2 names the image 'x\.png'"),
        (
            {"prompts": "outside.csv"},
            DataError,
            r"prompts = outside\.csv: line 2 has the point \(70, 2\), outside of 1\.png",
        ),
        ({"output": "empty/.."}, ConfigError, r"is not empty, .* overwrite=true"),
        ({"device": "cuda:7"}, ConfigError, "device = cuda:7: not available here"),
        ({"backend": "fp32", "device": "cuda"}, ConfigError, "device = cuda: backend = fp32 computes on the CPU here"),
        ({"backend": "fp32", "adapter": False}, ConfigError, "adapter = false: the weights of backend = fp32 have"),
        ({"formats": ["coko"]}, ConfigError, r"formats\.0 = coko: must be one of coco, .*; did you mean coco\?"),
        ({"backend": "int9"}, ConfigError, r"backend = int9: must be .*did you mean int8"),
    ],
)
def test_refused_before_anything_is_encoded(
    place: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    from lora_sam.runs import opening

    monkeypatch.setattr(opening, "open_model", lambda *_, **__: pytest.fail("a model was opened"))
    for folder in ("empty", "broken"):
        (place / folder).mkdir()
    (place / "broken" / "a.png").write_bytes(b"broken")
    (place / "unknown.csv").write_text("image,x,y\nx.png,1,2\n")
    (place / "outside.csv").write_text("image,x,y\n1,70,2\n")
    with pytest.raises(error, match=message):
        options(**changes).perform()
    assert not (place / "predictions").exists()


def test_a_model_that_cannot_be_opened_leaves_no_mask(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "run" / "adapter" / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(AdapterError):
        options().perform()
    assert not list((place / "predictions").rglob("coco.json"))


def test_images_without_prompts_are_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "p.csv").write_text("image,x,y\n1.png,20,20\n")
    assert options(prompts="p.csv").perform() == 0
    captured = capsys.readouterr()
    assert "1 of 2 images have no prompts and are left out" in captured.err
    assert list(masks_in("predictions/photos")) == ["1.png"]


def test_images_of_the_run_keep_their_scale(place: Path) -> None:
    """16-bit images are read as in the training, whatever each of them holds."""
    facts = place / "run" / "adapter" / "lora_sam.json"
    content = json.loads(facts.read_text())
    content["scale"] = {"bands": [1, 1, 1], "low": [0.0] * 3, "high": [4000.0] * 3}
    facts.write_text(json.dumps(content))
    deep = np.linspace(0, 1000, 48 * 64).reshape(48, 64).astype(np.uint16)
    (place / "deep").mkdir()
    Image.fromarray(deep).save(place / "deep" / "1.png")
    (place / "p.csv").write_text("image,x1,y1,x2,y2\n1,10,10,40,40\n")
    assert options(source="deep", prompts="p.csv", output="out").perform() == 0
    grey = np.rint(deep * (255 / 4000)).astype(np.uint8)
    expected = load("run").segment(np.repeat(grey[..., None], 3, axis=2), boxes=[[10, 10, 40, 40]])
    assert (masks_in("out")["1.png"] == expected.masks).all()
    assert json.loads((place / "out" / "predictions.json").read_text())["settings"]["scale"]["high"] == [4000.0] * 3


@pytest.mark.usefixtures("quiet_logging", "place")
def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_step("predict", "python -m lora_sam.predict", ["--help"]) == 0
    assert "formats=[coco]" in capsys.readouterr().out
    words = ["run=run", "source=photos/*.png", "formats=[labels,yolo]", "points_per_side=2", "max_images=1"]
    assert run_step("predict", "python -m lora_sam.predict", words) == 0
    assert sorted(path.name for path in Path("predictions/photos/labels").iterdir()) == ["1.png"]
    assert run_step("predict", "python -m lora_sam.predict", ["run=run"]) == 2
    assert "source is not set" in capsys.readouterr().err
