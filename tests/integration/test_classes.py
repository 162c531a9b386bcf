"""A run on data with several classes also learns to tell them apart, and says how well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from lora_sam import load, read_image
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError
from lora_sam.runs.loading import load_classes
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]


def squares(root: Path, categories: tuple[str, ...]) -> None:
    """COCO with dark and light squares, in each split."""
    for number, split in enumerate(("train", "val", "test")):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(3):
            rng = np.random.default_rng((number, index))
            pixels = np.full((64, 64, 3), 128, np.uint8)
            for corner in ((4, 6), (38, 4), (6, 40), (36, 38)):
                kind, (x, y) = int(rng.integers(2)), corner
                pixels[y : y + 20, x : x + 20] = (30, 225)[kind]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": index, "category_id": kind % len(categories),
                     "bbox": [x, y, 20, 20], "area": 400, "iscrowd": 0,
                     "segmentation": [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]}
                )  # fmt: skip
            Image.fromarray(pixels).save(root / split / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "width": 64, "height": 64})
        names = [{"id": place, "name": name} for place, name in enumerate(categories)]
        content = {"images": images, "annotations": annotations, "categories": names}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def trained(directory: Path, root: Path, *overrides: str) -> Path:
    quick = ["model=tiny_random", "trainer.max_steps=1", "trainer.max_epochs=null", "trainer.device=cpu"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("train", [*quick, "trainer.overlays=0", f"data.root={root}", *overrides]))
    run(settings_from(config), config=config, output_dir=directory)
    return directory


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_classes_are_learned_measured_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squares(tmp_path / "data", ("dark", "light"))
    directory = trained(tmp_path / "run", tmp_path / "data")
    facts = json.loads((directory / "adapter" / "lora_sam.json").read_text())
    assert facts["classes"] == ["dark", "light"]
    assert "class_head.safetensors" in facts["files"]
    report = json.loads((directory / "evaluation.json").read_text())
    told, precision = report["class_head"], report["class_precision"]["prompted"]
    assert told["names"] == ["dark", "light"]
    assert [one["name"] for one in precision["classes"]] == ["dark", "light"]
    assert sum(one["objects"] for one in precision["classes"]) == 12
    assert precision["map"] <= precision["agnostic"]["tuned"]["map"] + 1e-9
    assert "base" in precision["agnostic"]
    assert told["objects"] == 12
    # the masks of random weights cover nearly everything: the head is asked about these below, on the labels
    assert 0 <= told["accuracy_interval"][0] <= told["accuracy"] <= told["accuracy_interval"][1] <= 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "Class told right for" in printed
    assert "Average precision of classes (COCO)" in printed
    assert "mean (mAP) no classes" in printed
    assert "no classes" in (directory / "report.html").read_text()
    assert "Class told right for" in (directory / "report.html").read_text()
    assert "Class told right for" in (directory / "adapter" / "README.md").read_text()

    head, predictor = load_classes(directory), load(directory)
    assert head is not None
    image = read_image(tmp_path / "data" / "test" / "0.png")
    masks = np.zeros((4, 64, 64), np.bool_)
    for mask, (x, y) in zip(masks, ((4, 6), (38, 4), (6, 40), (36, 38)), strict=True):
        mask[y : y + 20, x : x + 20] = True
    names = [head.names[place] for place in head.probabilities(predictor, image, masks).argmax(axis=1)]
    assert names == ["light" if image[mask].mean() > 128 else "dark" for mask in masks]

    # the same names come out of predict, which reads them with the run
    table = ["image,x1,y1,x2,y2", *(f"0,{x},{y},{x + 20},{y + 20}" for x, y in ((4, 6), (38, 4), (6, 40), (36, 38)))]
    (tmp_path / "boxes.csv").write_text("\n".join(table))
    options = {"run": str(directory), "source": str(tmp_path / "data" / "test"), "prompts": str(tmp_path / "boxes.csv")}
    step = from_conf("predict", output=str(tmp_path / "out"), formats=["coco", "semantic"], **options)
    assert step.perform() == 0
    written = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [one["name"] for one in written["categories"]] == ["dark", "light"]
    expected = predictor.segment(image, boxes=[[x, y, x + 20, y + 20] for x, y in ((4, 6), (38, 4), (6, 40), (36, 38))])
    told = head.probabilities(predictor, image, expected.masks).argmax(axis=1)
    assert [one["category_id"] for one in written["annotations"]] == [1 + int(place) for place in told]

    # a file that names the class of some objects says it of none for the head to name
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2,category\n0,4,6,24,26,mine\n1,4,6,24,26,\n")
    assert from_conf("predict", output=str(tmp_path / "some"), formats=["coco"], **options).perform() == 0
    written = json.loads((tmp_path / "some" / "coco.json").read_text())
    names = {one["id"]: one["name"] for one in written["categories"]}
    assert [names[one["category_id"]] for one in written["annotations"]] == ["mine", "object"]

    damaged = directory / "adapter" / "class_head.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    for read in (load_classes, load):
        with pytest.raises(AdapterError, match="class_head.safetensors"):
            read(directory)
    damaged.unlink()
    with pytest.raises(AdapterError, match=r"class_head.safetensors"):
        load_classes(directory)


def test_one_class_is_a_name_and_no_head(tmp_path: Path) -> None:
    squares(tmp_path / "data", ("square",))
    directory = trained(tmp_path / "run", tmp_path / "data")
    assert json.loads((directory / "adapter" / "lora_sam.json").read_text())["classes"] == ["square"]
    assert not (directory / "adapter" / "class_head.safetensors").exists()
    assert "class_head" not in json.loads((directory / "evaluation.json").read_text())
    assert load_classes(directory) is None
    # predict gives that name to all, also where a file of prompts has no classes
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\n0,4,6,24,26\n")
    options = {"run": str(directory), "source": str(tmp_path / "data" / "test"), "prompts": str(tmp_path / "boxes.csv")}
    assert from_conf("predict", output=str(tmp_path / "out"), formats=["coco", "yolo"], **options).perform() == 0
    written = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [one["name"] for one in written["categories"]] == ["square"]
    assert [one["category_id"] for one in written["annotations"]] == [1]


def test_the_head_can_be_left_out(tmp_path: Path) -> None:
    squares(tmp_path / "data", ("dark", "light"))
    directory = trained(tmp_path / "run", tmp_path / "data", "trainer.class_head=false")
    assert load_classes(directory) is None
    assert json.loads((directory / "adapter" / "lora_sam.json").read_text())["classes"] == ["dark", "light"]
