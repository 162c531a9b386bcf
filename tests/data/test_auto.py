from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lora_sam.core.errors import ConfigError, DataError
from lora_sam.data import auto as auto_module
from lora_sam.data.auto import Auto
from lora_sam.data.coco import Coco
from lora_sam.data.detection import detected, stored_option
from lora_sam.data.folder import Folder
from lora_sam.data.reading.class_table import VOC_CLASSES, voc_colour
from lora_sam.data.splits import Splits, class_counts

from .conftest import configured

CONF = Path(__file__).parents[2] / "conf" / "data"
FORMATS = ("coco", "voc", "common_semantic", "datumaro", "folder", "labels", "hf")
SIZE = (24, 36)

Objects = Sequence[tuple[np.ndarray, str]]
Scenes = Mapping[str, Sequence[tuple[str, np.ndarray, Objects]]]


def auto(root: Path, **changes: Any) -> Auto:
    values = yaml.safe_load((CONF / "auto.yaml").read_text())
    values.pop("_target_")
    return Auto(**{**values, "root": str(root), **changes})


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    """Three images in each split, with objects of two classes, none of which touches another."""
    made = {}
    for number, split in enumerate(("train", "val", "test")):
        made[split] = [scene(f"{split}{index}", np.random.default_rng((number, index))) for index in range(3)]
    return made


def scene(name: str, draws: np.random.Generator) -> tuple[str, np.ndarray, Objects]:
    objects = []
    for top in (1, 13):
        for left in (1, 13, 25):
            if objects and draws.random() < 0.3:
                continue
            mask = np.zeros(SIZE, np.bool_)
            height, width = draws.integers(4, 11, 2)
            mask[top : top + height, left : left + width] = True
            mask[top : top + 2, left : left + 2] = False
            objects.append((mask, str(draws.choice(["cat", "dog"]))))
    return name, draws.integers(0, 256, (*SIZE, 3), dtype=np.uint8), objects


def label_image(objects: Objects, value: Callable[[int, str], int]) -> np.ndarray:
    labels = np.zeros(SIZE, np.int32)
    for index, (mask, name) in enumerate(objects):
        labels[mask] = value(index, name)
    return labels


def painted(indices: np.ndarray) -> np.ndarray:
    return np.array([voc_colour(index) for index in range(256)], np.uint8)[indices]


def in_palette(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([part for index in range(256) for part in voc_colour(index)])
    return image


def save(image: np.ndarray | Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def write_coco(root: Path, scenes: Scenes) -> None:
    for split, images in scenes.items():
        content: dict[str, Any] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 8, "name": "cat"}, {"id": 12, "name": "dog"}]
        for number, (name, image, objects) in enumerate(images):
            save(image, root / "images" / split / f"{name}.png")
            entry = {"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
            content["images"].append(entry)
            for mask, category in objects:
                flat = mask.T.ravel()
                changes = np.flatnonzero(np.diff(flat, prepend=False))
                counts = np.diff(changes, prepend=0, append=flat.size).tolist()
                annotation = {"id": len(content["annotations"]), "image_id": number, "iscrowd": 0}
                annotation["category_id"] = {"cat": 8, "dog": 12}[category]
                annotation["segmentation"] = {"size": list(SIZE), "counts": counts}
                content["annotations"].append(annotation)
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


def write_voc(root: Path, scenes: Scenes, *, colours: bool = False, objects_too: bool = True) -> None:
    picture = painted if colours else in_palette
    for split, images in scenes.items():
        for name, image, objects in images:
            save(image, root / "JPEGImages" / f"{name}.png")
            classes = label_image(objects, lambda _, name: VOC_CLASSES.index(name))
            classes[0, :] = 255  # an edge that belongs to nothing
            save(picture(classes), root / "SegmentationClass" / f"{name}.png")
            instances = label_image(objects, lambda index, _: index + 1)
            instances[0, :] = 255
            if objects_too:
                save(picture(instances), root / "SegmentationObject" / f"{name}.png")
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name, _, _ in images))


def write_common_semantic(root: Path, scenes: Scenes, *, colours: bool = False) -> None:
    meta = {"label_map": {"0": "background", "1": "cat", "2": "dog"}}
    if colours:
        meta["segmentation_colors"] = [[0, 0, 0], [10, 200, 30], [250, 20, 20]]  # type: ignore[assignment]
    for split, images in scenes.items():
        for name, image, objects in images:
            save(image, root / split / "images" / f"{name}.png")
            classes = label_image(objects, lambda _, name: 1 if name == "cat" else 2).astype(np.uint8)
            table = np.array(meta["segmentation_colors"], np.uint8) if colours else None
            save(classes if table is None else table[classes], root / split / "masks" / f"{name}.png")
    (root / "dataset_meta.json").write_text(json.dumps(meta))


def write_labels(root: Path, scenes: Scenes, *, ending: str, folder: str = "labels") -> None:
    for split, images in scenes.items():
        for name, image, objects in images:
            save(image, root / split / "images" / f"{name}.png")
            labels = label_image(objects, lambda index, _: 7 * index + 300)
            path = root / split / folder / f"{name}{ending}"
            if ending == ".npy":
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, labels)
            else:
                save(labels.astype(np.uint16), path)


WRITERS: dict[str, tuple[Callable[[Path, Scenes], None], str]] = {
    "coco": (write_coco, "coco"),
    "voc": (write_voc, "voc"),
    "voc in colours": (lambda root, scenes: write_voc(root, scenes, colours=True), "voc"),
    "voc without objects": (lambda root, scenes: write_voc(root, scenes, objects_too=False), "voc"),
    "common_semantic": (write_common_semantic, "common_semantic"),
    "common_semantic in colours": (
        lambda root, scenes: write_common_semantic(root, scenes, colours=True),
        "common_semantic",
    ),
    "labels png": (lambda root, scenes: write_labels(root, scenes, ending=".png"), "labels"),
    "labels tif": (lambda root, scenes: write_labels(root, scenes, ending=".tif"), "labels"),
    "labels npy": (lambda root, scenes: write_labels(root, scenes, ending=".npy"), "labels"),
    "folder": (lambda root, scenes: write_labels(root, scenes, ending=".png", folder="masks"), "folder"),
}


def digest(masks: Sequence[np.ndarray]) -> str:
    """Of a set of masks, in any order."""
    parts = sorted(hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() for mask in masks)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_data_gives_the_same_masks_in_every_format(tmp_path: Path, scenes: Scenes, kind: str) -> None:
    write, option = WRITERS[kind]
    write(tmp_path, scenes)
    found = auto(tmp_path).found()
    assert found.option == option
    data = auto(tmp_path).chosen()
    if kind == "voc without objects":
        data = dataclasses.replace(data, instances="components")  # type: ignore[type-var]
    splits = data.open(0)
    assert splits.skipped == splits.notes == ()
    for split, images in scenes.items():
        source = getattr(splits, split)
        assert [Path(name).stem for name in source.ids] == [name for name, _, _ in images]
        for index, (_, image, objects) in enumerate(images):
            sample = source[index]
            np.testing.assert_array_equal(sample.image, image)
            assert digest(sample.masks) == digest([mask for mask, _ in objects])
            if option in ("coco", "voc", "common_semantic"):
                where = {mask.tobytes(): name for mask, name in objects}
                assert sample.classes == tuple(where[mask.tobytes()] for mask in sample.masks)
            else:
                assert sample.classes == ()
        wanted = [name for _, _, objects in images for _, name in objects]
        counted = class_counts(source)
        assert counted == ({name: wanted.count(name) for name in counted} if counted else {})
        assert bool(counted) == (option in ("coco", "voc", "common_semantic"))


def test_a_note_says_which_format_was_found(tmp_path: Path, scenes: Scenes) -> None:
    write_voc(tmp_path, scenes)
    splits = auto(tmp_path).open(0)
    assert splits.notes == ("read as data=voc: JPEGImages and SegmentationObject",)


def test_options_of_auto_reach_the_format(tmp_path: Path, scenes: Scenes) -> None:
    write_coco(tmp_path, scenes)
    chosen = auto(tmp_path, min_area=9, val=None, on_error="skip", check="header").chosen()
    assert isinstance(chosen, Coco)
    assert (chosen.min_area, chosen.val, chosen.on_error, chosen.check) == (9, None, "skip", "header")
    assert chosen.max_objects_per_image == yaml.safe_load((CONF / "coco.yaml").read_text())["max_objects_per_image"]


@pytest.mark.parametrize("option", FORMATS)
def test_the_defaults_of_auto_are_those_of_every_format(option: str) -> None:
    own, other = (yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in ("auto", option))
    # null is what the format says; formats without it refuse another value, as those without volumes do slices
    passed_on = {"crowd", "ignore", "instances", "invert", "mask_suffix", "mask_values", "rings", "threshold"}
    assert all(own[name] is None for name in passed_on | {"slices"})
    assert own.keys() - other.keys() <= {"slices"} | passed_on
    names = own.keys() & other.keys() - {"_target_", "val"} - passed_on  # Hugging Face calls it validation
    assert {name: own[name] for name in names} == {name: other[name] for name in names}
    assert other["val"] in ("val", "validation")
    target, values = stored_option(option)
    assert target == other["_target_"]
    assert values == {key: value for key, value in other.items() if key != "_target_"}


def test_a_format_keeps_its_own_spelling_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train-00000-of-00001.parquet").touch()
    data: Any = auto(tmp_path).chosen()
    assert (type(data).__name__, data.train, data.val) == ("HuggingFace", "train", "validation")
    assert auto(tmp_path, val="dev").chosen().val == "dev"  # type: ignore[attr-defined]


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        elif name.endswith((".png", ".tif")):
            save(np.zeros((4, 4), np.uint8), path)
        elif path.name in ("dataset_dict.json", "state.json", "dataset_meta.json"):
            path.write_text("{}")
        elif name.endswith(".json"):
            path.write_text('{"images": [], "annotations": []}')
        else:
            path.touch()
    return root


@pytest.mark.parametrize(
    ("names", "option", "changes"),
    [
        (
            ["annotations/instances_train.json", "images/train/"],
            "coco",
            ("annotations/instances_{split}.json", "images/{split}"),
        ),
        (
            ["annotations/instances_train2017.json", "train2017/"],
            "coco",
            ("annotations/instances_{split}2017.json", "{split}2017"),
        ),
        (["train/_annotations.coco.json", "train/a.png"], "coco", ("{split}/_annotations.coco.json", "{split}")),
        (["train.json", "images/a.png"], "coco", ("{split}.json", "images")),
        (
            ["annotations/instances_default.json", "images/default/a.png"],
            "coco",
            ("annotations/instances_default.json", "images/default"),
        ),
        (["labels.json", "data/a.png"], "coco", ("labels.json", "data")),
        (["result.json", "images/a.png"], "coco", ("result.json", "images")),
        (["images/a.png", "masks/a.png"], "folder", ("images", "masks")),
        (["imgs/a.png", "masks/a.png"], "folder", ("imgs", "masks")),
        (["image/train/a.png", "mask/train/a.png"], "folder", ("image/{split}", "mask/{split}")),
        (["training/images/a.png", "training/masks/a.png"], "folder", ("{split}/images", "{split}/masks")),
        (["images/a.png", "masks/a.png", "labelmap.txt"], "common_semantic", ("images", "masks")),
        (
            ["train/images/a.png", "train/masks/a.png", "train/dataset_meta.json"],
            "common_semantic",
            ("{split}/images", "{split}/masks"),
        ),
        (["images/a.png", "labels/a.tif"], "labels", ("images", "labels")),
        (["images/train/a.png", "labels/train/a.npy"], "labels", ("images/{split}", "labels/{split}")),
        (["JPEGImages/a.png", "SegmentationClass/a.png"], "voc", ()),
        (["dataset_dict.json", "train/state.json"], "hf", ()),
        (["data/train-00000-of-00001.parquet"], "hf", ()),
    ],
)
def test_layouts_are_found(tmp_path: Path, names: list[str], option: str, changes: tuple[str, ...]) -> None:
    (found,) = detected(tree(tmp_path, *names), "train")
    assert found.option == option
    assert set(found.changes.values()) == set(changes)


def test_datumaro_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    content = {"dm_format_version": "1.0", "infos": {}, "categories": {}, "items": []}
    (tmp_path / "annotations/default.json").write_text(json.dumps(content))
    (found,) = detected(tmp_path, "train")
    assert found.option == "datumaro"
    assert found.why == '"items" in annotations/default.json'


def test_a_directory_without_labels_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    tree(tmp_path, "pictures/a.png", "labels/a.txt", "images/a.png", "broken.json")
    (tmp_path / "broken.json").write_bytes(b'{"images": \xff')
    with pytest.raises(DataError, match="has no labelled images in a known layout") as raised:
        auto(tmp_path).open(0)
    message = str(raised.value)
    assert "\n" not in message
    assert all(f"data={option}, " in message for option in FORMATS)
    assert "annotations/instances_train.json" in message
    with pytest.raises(DataError, match=r"data\.root: .*/nowhere does not exist"):
        auto(tmp_path / "nowhere").open(0)


def test_a_data_set_one_level_below_is_pointed_out(tmp_path: Path) -> None:
    tree(tmp_path, "VOCdevkit/VOC2012/JPEGImages/a.png", "VOCdevkit/VOC2012/SegmentationClass/a.png")
    with pytest.raises(DataError, match=r"It is in VOCdevkit/VOC2012, so set data\.root=.*/VOC2012\. Looked for"):
        auto(tmp_path).open(0)
    with pytest.raises(DataError, match=r"data\.root=.*VOC2012\."):
        auto(tmp_path / "VOCdevkit").open(0)


def test_all_data_sets_below_are_named_and_may_be_splits(tmp_path: Path) -> None:
    for site in "abc":
        for name in ("images", "masks"):
            save(np.eye(20, dtype=np.uint8) * 255, tmp_path / "sites" / site / name / f"{site}.png")
    with pytest.raises(DataError) as raised:
        auto(tmp_path).open(0)
    told = str(raised.value)
    assert "There are sites/a/...: 2 .png; sites/b/...: 2 .png; sites/c/...: 2 .png." in told
    assert "It holds 3 data sets: sites/a, sites/b, sites/c. Set data.root to one of them" in told
    root, *options = re.search(
        r"read with data\.root=(\S+) data\.train=(\w) data\.val=(\w) data\.test=(\w)\.", told
    ).groups()  # type: ignore[union-attr]
    splits = auto(Path(root), **dict(zip(("train", "val", "test"), options, strict=True))).open(0)
    assert [source.ids for source in (splits.train, splits.val, splits.test)] == [
        (f"{site}/images/{site}.png",) for site in "abc"
    ]
    tree(tmp_path, "sites/d/images/a.png", "sites/d/masks/a.png")
    with pytest.raises(
        DataError, match=r"4 data sets: a, b, c, d\. Set data\.root to one of them, as data\.root=\S+/a\. "
    ):
        auto(tmp_path / "sites").open(0)


def test_several_formats_are_refused_by_name(tmp_path: Path) -> None:
    tree(tmp_path, "images/a.png", "masks/a.png", "annotations/instances_train.json")
    with pytest.raises(DataError, match="can be read in several ways: data=coco") as raised:
        auto(tmp_path).open(0)
    assert "data=folder (images and masks)" in str(raised.value)
    assert isinstance(Folder, type)


def test_links_in_a_circle_and_unreadable_places_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images", "masks", "annotations", "JPEGImages", "data", "loop", "labels.json"):
        (tmp_path / name).symlink_to(tmp_path / name)
    (tmp_path / "around").symlink_to(tmp_path)
    with pytest.raises(DataError, match="no labelled images"):
        auto(tmp_path).open(0)
    (tmp_path / "data").unlink()

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(auto_module, "detected", refuse)
    with pytest.raises(DataError, match=r"cannot be looked into \(Permission denied\); check its permissions"):
        auto(tmp_path).open(0)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    os.mkfifo(tmp_path / "annotations/instances_train.json")
    with pytest.raises(DataError, match="no labelled images"):
        auto(tmp_path).open(0)


def test_an_installation_without_its_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_sam.core.conf_files._PACKAGE", tmp_path / "lora_sam")
    with pytest.raises(ConfigError, match=r"no configuration file .*coco\.yaml; install lora_sam again"):
        stored_option("coco")
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/x.yaml").write_text("_target_: lora_sam.x\nlist: [1, 2]\n")
    assert stored_option("x") == ("lora_sam.x", {"list": (1, 2)})


def test_splits_are_those_of_the_format(tmp_path: Path, scenes: Scenes) -> None:
    write_common_semantic(tmp_path, {"train": scenes["train"], "valid": scenes["val"], "test": scenes["test"]})
    splits: Splits = auto(tmp_path).open(0)
    assert splits.val.ids == tuple(f"valid/images/{name}.png" for name, _, _ in scenes["val"])


def test_an_unknown_layout_says_what_is_there(tmp_path: Path) -> None:
    for folder, name in (
        ("imagesTr", "a.nrrd"),
        ("imagesTr", "b.nrrd"),
        ("labelsTr", "a.nrrd"),
        (".", "notes.md"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"")
    with pytest.raises(DataError) as raised:
        configured(Auto, "data/auto.yaml", root=str(tmp_path)).open(0)
    told = str(raised.value)
    assert "There are in the folder itself: 1 .md; imagesTr: 2 .nrrd (NRRD); labelsTr: 1 .nrrd (NRRD)." in told
    assert "NRRD is not read: save their slices or frames as PNG or TIFF." in told


@pytest.mark.usefixtures("active_environment")
def test_the_nearest_formats_are_named_with_what_they_lack(tmp_path: Path) -> None:
    def told(*names: str, **contents: str) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        tree(root, *names)
        for name, content in contents.items():
            (root / f"{name}.json").write_text(content)
        with pytest.raises(DataError) as raised:
            auto(root).open(0)
        return str(raised.value)

    message = told("images/a.png")
    assert "There are images: 1 .png. Nearest: " in message
    assert "data=folder has images/*.png but lacks masks/*.png" in message
    assert "data=voc has JPEGImages/*.png but lacks SegmentationObject/*.png" in told("JPEGImages/a.png")
    cityscapes = told("leftImg8bit/train/a_leftImg8bit.png", "gtFine/train/a_gtFine_labelIds.png")
    assert "data=datumaro_import data.format=cityscapes (pip install datumaro)" in cityscapes
    message = told("a.png", facts='{"pictures": 1, "author": "me"}')
    assert "facts.json has the keys 'pictures', 'author', which are those of no format" in message
    assert "Nearest" not in message
