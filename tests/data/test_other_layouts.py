"""Layouts that people report of labelling tools, beside those of docs/data.md: read, or refused with what to type."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.splits import Splits

from .tool_sets import NAMES, SQUARE, TRIANGLE, H, W, Write, images, polygon, put, qupath, yolo

TWO = (polygon(SQUARE), polygon(TRIANGLE))
ONE = (TWO[0] | TWO[1],)
LABELS = TWO[0] * np.uint8(1) + TWO[1] * np.uint8(2)
WHITE = ONE[0] * np.uint8(255)
STEMS = tuple(name[:-4] for name in NAMES)

Open = Callable[..., Splits]


def save(values: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)


def pairs(pictures: str, labels: str, values: NDArray[Any] = LABELS, names: tuple[str, ...] = STEMS) -> Write:
    """Images and label files by patterns of their paths, in which `*` stands for a name."""

    def write(root: Path) -> None:
        for name in names:
            picture = root / pictures.replace("*", name)
            images(picture.parent, (picture.name,))
            save(values, root / labels.replace("*", name))

    return write


def qupath_list(root: Path) -> None:
    qupath(root)
    for file in root.rglob("*.geojson"):
        put(file, json.loads(file.read_text())["features"])


def with_classes(root: Path) -> None:
    pairs("train/*.jpg", "train/*_mask.png")(root)
    put(root / "train/_classes.csv", "Pixel Value, Class\n0, background\n1, ring\n2, tri\n")


def by_class(root: Path) -> None:
    pairs("images/*.png", "masks/ring/*.png", TWO[0] * np.uint8(255))(root)
    pairs("images/*.png", "masks/tri/*.png", TWO[1] * np.uint8(255))(root)


def flat(root: Path, place: str) -> None:
    """YOLO's labels in `images<place>` and `labels<place>`, without data.yaml."""
    yolo(root)
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
        for file in (root / "train" / folder).iterdir():
            (root / folder / place).mkdir(exist_ok=True)
            file.rename(root / folder / place / file.name)
    for folder in ("train", "valid"):
        shutil.rmtree(root / folder)
    (root / "data.yaml").unlink()


def yolo_of_label_studio(root: Path) -> None:
    flat(root, ".")
    put(root / "classes.txt", "ring\ntri\n")


def yolo_of_cvat(root: Path) -> None:
    flat(root, "train")
    put(root / "data.yaml", "path: .\ntrain: train.txt\nnames:\n  0: ring\n  1: tri\n")
    put(root / "train.txt", "".join(f"data/images/train/{name}\n" for name in NAMES))


def coco(root: Path, *outlines: list[list[float]], **image: Any) -> None:
    images(root / "images")
    annotations = [
        {
            "id": 9 * k + j,
            "image_id": k,
            "category_id": 1,
            "segmentation": [np.ravel(points).tolist()],
        }
        for k in range(len(NAMES))
        for j, points in enumerate(outlines)
    ]
    entries = [{"id": k, "file_name": name, "width": W, "height": H, **image} for k, name in enumerate(NAMES)]
    put(
        root / "annotations.json",
        {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]},
    )


def hidden(root: Path) -> None:
    pairs("images/*.png", "masks/*.png", WHITE)(root)
    for folder in ("images", "masks", "__MACOSX/images"):
        for name in ("._im0.png", ".DS_Store", "Thumbs.db"):
            put(root / folder / name, "\0")


@pytest.mark.parametrize(
    ("write", "expected", "classes"),
    [
        (qupath_list, TWO, ("ring", "tri")),
        (pairs("*.png", "*_cp_masks.png", LABELS.astype(np.uint16)), TWO, ()),
        (pairs("images/*.png", "labels/*.tif", LABELS.astype(np.int64) * 300), TWO, ()),
        (pairs("train/images/*.tif", "train/masks/*.tif", LABELS.astype(np.uint16)), TWO, ()),
        (pairs("slide [x=*].png", "slide [x=*]-labelled.png", names=("0", "512", "1024", "1536")), TWO, ()),
        (pairs("*.jpg", "*_label_ground-truth.png"), TWO, ()),
        (pairs("images/*.jpg", "masks/*.jpg.png", WHITE), ONE, ()),
        (pairs("images/img_*.png", "masks/mask_*.png", WHITE, ("1", "2", "10", "11")), ONE, ()),
        (pairs("images/*.png", "masks/*.png", ONE[0] * np.uint16(65535)), ONE, ()),
        (with_classes, TWO, ("ring", "tri")),
        (by_class, TWO, ("ring", "tri")),
        (yolo_of_label_studio, TWO, ("ring", "tri")),
        (yolo_of_cvat, TWO, ("ring", "tri")),
        (lambda root: coco(root, SQUARE, TRIANGLE, width=0, height=0), TWO, ("x", "x")),
        (lambda root: coco(root, [*SQUARE, SQUARE[0]], TRIANGLE, width=None, height=None), TWO, ("x", "x")),
        (hidden, ONE, ()),
    ],
    ids=["qupath list", "cellpose cp", "napari int64", "stardist", "qupath tiles", "segments.ai", "two endings",
         "img and mask", "65535", "roboflow semantic", "a folder a class", "yolo of label studio", "yolo of cvat",
         "sizes of 0", "no sizes", "hidden files"],
)  # fmt: skip
def test_it_is_read(write: Write, expected: Any, classes: tuple[str, ...], tmp_path: Path, opened: Open) -> None:
    write(tmp_path)
    splits = opened(tmp_path)
    found = [sample for source in (splits.train, splits.val, splits.test) for sample in source]
    assert len(found) == 4
    for sample in found:
        assert len(sample.masks) == len(expected)
        for mask, wanted in zip(sample.masks, expected, strict=True):
            assert (mask ^ wanted).sum() <= 2
        assert sample.classes == classes
    assert not any("no entry" in note for note in splits.notes)


def test_a_list_of_images_that_are_not_there_is_refused(tmp_path: Path, opened: Open) -> None:
    """Until now they were left out as images without objects."""
    yolo_of_cvat(tmp_path)
    put(tmp_path / "train.txt", "data/images/train/im0.png\ndata/images/train/gone.png\n")
    with pytest.raises(DataError, match=r"train\.txt: line 2 names the image '.*', and no file"):
        opened(tmp_path)


@pytest.mark.parametrize("data", ["coco", "yolo"])
def test_boxes_that_were_exported_as_polygons_are_named(data: str, tmp_path: Path, opened: Open) -> None:
    box = [[31.0, 6.0], [55.0, 6.0], [55.0, 33.0], [31.0, 33.0], [31.0, 6.0]]
    if data == "coco":
        coco(tmp_path, SQUARE, box)
    else:
        flat(tmp_path, ".")
        for name in STEMS:
            lines = [" ".join(f"{x / W} {y / H}" for x, y in points) for points in (SQUARE, box)]
            put(tmp_path / "labels" / f"{name}.txt", "".join(f"0 {line}\n" for line in lines))
    assert any("nearly all outlines are rectangles" in note for note in opened(tmp_path).notes)
    if data == "coco":
        coco(tmp_path, SQUARE, TRIANGLE)
        assert not any("rectangles" in note for note in opened(tmp_path).notes)


@pytest.mark.parametrize("folder", ["masks", "labels"])
def test_a_background_of_1_is_named(folder: str, tmp_path: Path, opened: Open) -> None:
    pairs("images/*.png", f"{folder}/*_Simple Segmentation.png", ONE[0] * np.uint8(1) + np.uint8(1))(tmp_path)
    splits = opened(tmp_path)
    assert any("no mask has a pixel of 0, and 1 covers most" in note for note in splits.notes)
    option = splits.notes[0].partition("data=")[2].partition(":")[0]
    places = {"masks": "masks"} if folder == "masks" else {"labels": "labels"}
    sample = opened(tmp_path, option, images="images", **places, ignore=(1,)).train[0]
    assert np.array_equal(sample.masks, ONE)


DARWIN = {"version": "2.0", "item": {"name": "im0.png", "slots": []}, "annotations": []}
SUPERANNOTATE = {"metadata": {"name": "im0.png"}, "instances": [{"type": "polygon", "className": "ring"}]}
VIA3 = {"project": {}, "config": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}}


@pytest.mark.parametrize(
    ("name", "content", "tool", "remedy"),
    [
        ("releases/latest/annotations/im0.json", DARWIN, "V7 Darwin", "darwin convert coco"),
        ("im0.png.json", SUPERANNOTATE, "SuperAnnotate", "export it as COCO"),
        ("export.ndjson", {"data_row": {}, "projects": {}}, "Labelbox", "COCO"),
        ("data.json", [{"externalId": "im0.png", "labels": [{"jsonResponse": {}}]}], "Kili", "COCO"),
        ("labels.json", [{"data_title": "im0.png", "data_units": {}}], "Encord", "COCO"),
        ("via_project.json", VIA3, "VGG Image Annotator 3", "VGG Image Annotator 2"),
        ("annotations.xml", "<annotations><track id='0'/></annotations>", "CVAT for video", "CVAT for images"),
        ("train.csv", "ImageId,EncodedPixels\nim0.png,1 3\n", "masks as run lengths in a table", "COCO"),
    ],
)
def test_tools_that_are_not_read_are_named(
    name: str, content: Any, tool: str, remedy: str, tmp_path: Path, opened: Open
) -> None:
    images(tmp_path / "images")
    put(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{re.escape(name)} is of {tool}, which is not read: .*{remedy}") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (pairs("Training_Input/*.jpg", "Training_GroundTruth/*_segmentation.png", WHITE), ONE),
        (pairs("PNGImages/*.png", "PedMasks/*_mask.png"), TWO),
        (pairs("JPEGImages/480p/bear/*.png", "Annotations/480p/bear/*.png"), TWO),
        (pairs("test/broken/*.png", "ground_truth/broken/*_mask.png", WHITE), ONE),
        (pairs("images/*.png", "annotations/trimaps/*.png"), TWO),
        (pairs("train/photo/*.png", "train/photo_gt/*.png", WHITE), ONE),
        (pairs("*.png", "*.outline.png", WHITE), ONE),
    ],
    ids=["isic", "penn-fudan", "davis", "mvtec", "oxford pets", "splits", "one folder"],
)
def test_what_to_type_is_told_and_works(write: Write, expected: Any, tmp_path: Path, opened: Open) -> None:
    write(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    told = re.search(r"type data=(\w+) ((?:'?data\.\w+=\S+ ?)+)\. ", str(caught.value))
    assert told is not None, caught.value
    words = dict(word.strip("'").removeprefix("data.").split("=", 1) for word in told[2].split())
    splits = opened(tmp_path, told[1], **words)
    found = [sample for source in (splits.train, splits.val, splits.test) for sample in source]
    assert len(found) == 4
    assert all(np.array_equal(sample.masks, expected) for sample in found)
