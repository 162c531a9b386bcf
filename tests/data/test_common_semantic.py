from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.common_semantic import CommonSemantic
from lora_sam.data.reading.class_table import read_dataset_meta, read_label_lines
from lora_sam.data.splits import class_counts

CONF = Path(__file__).parents[2] / "conf" / "data" / "common_semantic.yaml"
COLOURS = np.array([(0, 0, 0), (10, 20, 30), (200, 100, 0)], np.uint8)
META = {
    "label_map": {"0": "background", "1": "road", "2": "car"},
    "segmentation_colors": COLOURS.tolist(),
    "background_label": "0",
}


def semantic(root: Path, **changes: Any) -> CommonSemantic:
    values = yaml.safe_load(CONF.read_text())
    values.pop("_target_")
    return CommonSemantic(**{**values, "root": str(root), **changes})


CLASSES = np.zeros((20, 30), np.uint8)
CLASSES[12:] = 1
CLASSES[14:18, 3:8] = CLASSES[14:18, 20:28] = 2
CLASSES[0, 0] = 2


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    root = tmp_path / "streets"
    for number, split in enumerate(("train", "val", "test")):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(2):
            draws = np.random.default_rng((number, index))
            pixels = draws.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"images/{index}.png")
            Image.fromarray(COLOURS[CLASSES]).save(root / split / f"masks/{index}.png")
    (root / "dataset_meta.json").write_text(json.dumps(META))
    return root


def test_components_and_classes_are_objects(streets: Path) -> None:
    splits = semantic(streets, min_area=2).open(0)
    assert splits.train.ids == ("train/images/0.png", "train/images/1.png")
    sample = splits.train[0]
    assert sample.object_ids == ("road.1", "car.2", "car.3")
    assert sample.classes == ("road", "car", "car")
    assert sample.masks.sum(axis=(1, 2)).tolist() == [8 * 30 - 20 - 32, 20, 32]
    assert class_counts(splits.val) == {"car": 4, "road": 2}
    assert splits.notes[0] == f"{streets}/train/images: 2 objects smaller than data.min_area=2 pixels were left out"
    sample = semantic(streets, instances="classes").open(0).train[1]
    assert sample.object_ids == sample.classes == ("road", "car")
    np.testing.assert_array_equal(sample.masks, [CLASSES == 1, CLASSES == 2])


def grey(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image)


def palette(colours: np.ndarray) -> Callable[[np.ndarray], Image.Image]:
    def make(image: np.ndarray) -> Image.Image:
        picture = Image.fromarray(image)
        picture.putpalette(colours.ravel().tolist())
        return picture

    return make


@pytest.mark.parametrize(
    "make",
    [
        grey,
        palette(COLOURS),
        palette(COLOURS + np.uint8(1)),  # colours that are not listed: by index
        palette(np.zeros_like(COLOURS)),  # colours that tell nothing apart: by index
        lambda image: palette(COLOURS[[0, 2, 1]])(np.array([0, 2, 1], np.uint8)[image]),  # by colour
    ],
)
def test_masks_by_index_or_colour(streets: Path, make: Callable[[np.ndarray], Image.Image]) -> None:
    for split in ("train", "val", "test"):
        for index in range(2):
            make(CLASSES).save(streets / split / f"masks/{index}.png")
    sample = semantic(streets, instances="classes").open(0).train[0]
    assert sample.classes == ("road", "car")
    np.testing.assert_array_equal(sample.masks, [CLASSES == 1, CLASSES == 2])


def test_void_and_background_are_no_objects(streets: Path) -> None:
    values = CLASSES.copy()
    values[0] = 255
    for index in range(2):
        grey(values).save(streets / f"train/masks/{index}.png")
    assert semantic(streets, instances="classes").open(0).train[0].masks.sum() == (CLASSES[1:] > 0).sum()
    (streets / "dataset_meta.json").write_text(json.dumps(META | {"background_label": "1"}))
    assert semantic(streets).open(0).train[0].classes == ("car", "car")
    grey(np.zeros_like(CLASSES)).save(streets / "train/masks/0.png")
    splits = semantic(streets).open(0)
    assert splits.train.ids == ("train/images/1.png",)
    assert f"{streets}/train/images: 1 images without an object were left out" in splits.notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labelmap.txt", "background:0,0,0::\nroad:10,20,30::\ncar:200,100,0::\n"),
        ("label_colors.txt", "0 0 0 background\n10 20 30\troad\n200 100 0 car\n"),
        (
            "classes.json",
            json.dumps({"labels": ["background", "road", "car"], "segmentation_colors": COLOURS.tolist()}),
        ),
    ],
)
def test_other_lists_of_classes(streets: Path, name: str, text: str) -> None:
    (streets / "dataset_meta.json").unlink()
    (streets / name).write_text(text)
    changes = {"classes": name} if name == "classes.json" else {}
    assert semantic(streets, instances="classes", **changes).open(0).train[0].classes == ("road", "car")


def test_a_split_may_have_its_own_list(streets: Path) -> None:
    own = META | {"label_map": {"0": "background", "1": "street", "2": "car"}}
    (streets / "val/dataset_meta.json").write_text(json.dumps(own))
    splits = semantic(streets, instances="classes").open(0)
    assert splits.train[0].classes == ("road", "car")
    assert splits.val[0].classes == ("street", "car")


def test_the_index_of_a_class_is_its_key(tmp_path: Path) -> None:
    file = tmp_path / "dataset_meta.json"
    file.write_text(json.dumps({"label_map": {"7": "b", "3": "a"}}))
    table = read_dataset_meta(file)
    assert table.names == ("a", "b")
    assert dict(table.indices) == {3: 1, 7: 2, 0: 0, 255: 0}
    assert table.colours == {}
    (tmp_path / "labels.txt").write_text("sky:::\nsea:1,2,3\n")
    lines = read_label_lines(tmp_path / "labels.txt")
    assert (lines.names, lines.indices[0], lines.colours[0x010203]) == (("sky", "sea"), 1, 2)


def meta(**changes: Any) -> Callable[[Path], None]:
    return lambda root: (root / "dataset_meta.json").write_text(json.dumps(META | changes))  # type: ignore[return-value]


def content(name: str, text: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(text)  # type: ignore[return-value]


def linked_out(root: Path) -> None:
    os.replace(root / "dataset_meta.json", root.parent / "secret.json")
    (root / "dataset_meta.json").symlink_to(root.parent / "secret.json")


def blurred(root: Path) -> None:
    Image.open(root / "train/masks/1.png").resize((15, 10), Image.Resampling.BILINEAR).resize((30, 20)).save(
        root / "train/masks/1.png"
    )


BAD: list[tuple[Callable[[Path], None], str]] = [
    (content("dataset_meta.json", b"{"), r"dataset_meta\.json: is not valid JSON .*; export it again"),
    (content("dataset_meta.json", b"[" * 100_000), r"dataset_meta\.json: is not valid JSON"),
    (content("dataset_meta.json", b"\xff"), r"dataset_meta\.json: is not UTF-8 text"),
    (content("dataset_meta.json", b""), r"dataset_meta\.json: is not valid JSON"),
    (content("dataset_meta.json", b"[]"), r'dataset_meta\.json: has neither "label_map" nor "labels"'),
    (content("dataset_meta.json", b" " * (2**20 + 1)), r"dataset_meta\.json: is larger than 1 MiB"),
    (meta(label_map={"one": "road"}), r"dataset_meta\.json: has the class \{'one': 'road'\}; it takes an index"),
    (meta(label_map={"1": 7}), r"dataset_meta\.json: has the class"),
    (meta(label_map={"0": "background"}), r"dataset_meta\.json: lists no class beside the background"),
    (meta(label_map={"1": "a", "2": "a"}), r"dataset_meta\.json: the class 'a' is listed twice"),
    (
        meta(label_map={"1": "a", "01": "b"}),
        r"dataset_meta\.json: the index 1 is listed twice; give every class its own",
    ),
    (meta(segmentation_colors=COLOURS[:2].tolist()), r"segmentation_colors has no colour for 'car'; add it"),
    (meta(segmentation_colors=[[0, 0, 0], [1, 2], [3, 3, 3]]), r"segmentation_colors has \[1, 2\]; it takes three"),
    (meta(segmentation_colors="red"), r"segmentation_colors is 'red'; it takes a list"),
    (meta(segmentation_colors=[[0, 0, 0], [9, 9, 9], [9, 9, 9]]), r"'car' has the colour \(9, 9, 9\) of another class"),
    (
        meta(segmentation_colors=[[0, 0, 0], [10, 20, 30], [9, 9, 9]]),
        r"masks/0\.png: has colours that dataset_meta\.json does not list: \(200, 100, 0\); add",
    ),
    (linked_out, r"data\.classes: the path 'dataset_meta\.json' leads out of the data root"),
    (
        lambda root: (root / "dataset_meta.json").unlink(),
        r"has no dataset_meta\.json, labelmap\.txt, .*, class_dict\.csv or class_mapping\.csv",
    ),
    (
        blurred,
        r"masks/1\.png: has colours that .* does not list: .* and \d+ more; add .* \(edges must not be smoothed\)",
    ),
    (
        lambda root: Image.new("L", (30, 20), 9).save(root / "train/masks/1.png"),
        r"has values that .* does not list: 9; add",
    ),
    (lambda root: Image.new("L", (20, 30), 1).save(root / "train/masks/1.png"), r"masks/1\.png: is 20x30 pixels"),
    (content("train/masks/1.png", b""), r"masks/1\.png: is damaged or not an image"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_bad_input_is_named_with_its_remedy(streets: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(streets)
    with pytest.raises(DataError, match=message) as raised:
        semantic(streets).open(0)
    assert "\n" not in str(raised.value)


def test_paths_of_options_stay_under_the_root(streets: Path) -> None:
    with pytest.raises(DataError, match=r"data\.classes: the path '\.\./x\.json' has '\.\.'"):
        semantic(streets, classes="../x.json").open(0)
    with pytest.raises(DataError, match=r"data\.masks: the path '/etc' is absolute"):
        semantic(streets, masks="/etc").open(0)
    with pytest.raises(DataError, match=r"classes\.json: is not a regular file"):
        semantic(streets, classes="classes.json").open(0)
