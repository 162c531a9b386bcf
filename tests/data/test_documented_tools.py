"""Every row of the table of tools in docs/data.md: what it names lies there, and its command reads the right masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from . import attack_sets
from .test_tool_formats import by_folder
from .tool_sets import (
    NAMES,
    SQUARE,
    TOOLS,
    TRIANGLE,
    H,
    W,
    Write,
    images,
    polygon,
    put,
)

STEMS = tuple(name[:-4] for name in NAMES)
MASKS = (polygon(SQUARE), polygon(TRIANGLE))
LABELS = MASKS[0] * np.uint8(1) + MASKS[1] * np.uint8(2)
DEPTH = 2


def pairs(pictures: str, labels: str, values: NDArray[Any] = LABELS) -> Write:
    """Images and label files by patterns of their paths, in which `*` stands for a name."""

    def write(root: Path) -> None:
        for name in STEMS:
            picture, file = root / pictures.replace("*", name), root / labels.replace("*", name)
            images(picture.parent, (picture.name,))
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".tif":
                tifffile.imwrite(file, values)
            else:
                Image.fromarray(values).save(file)

    return write


def beside(write: Write, *files: tuple[str, str]) -> Write:
    def both(root: Path) -> None:
        write(root)
        for name, content in files:
            put(root / name, content)

    return both


def coco(file: str, folder: str, name: str) -> Write:
    """Polygons of COCO in `file`, whose images lie in `folder` and are called as `name` says."""

    def write(root: Path) -> None:
        images(root / folder)
        entries = [{"id": k, "file_name": name % one, "width": W, "height": H} for k, one in enumerate(NAMES)]
        annotations = [
            {"id": 2 * k + j, "image_id": k, "category_id": 0, "segmentation": [np.ravel(points).tolist()]}
            for k in range(len(NAMES))
            for j, points in enumerate((SQUARE, TRIANGLE))
        ]
        categories = [{"id": 0, "name": "x"}]
        put(root / file, {"images": entries, "annotations": annotations, "categories": categories})

    return write


def masks_of_cvat(root: Path) -> None:
    colours = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)[LABELS]
    pairs("JPEGImages/*.png", "SegmentationObject/*.png", colours)(root)
    pairs("JPEGImages/*.png", "SegmentationClass/*.png", colours)(root)
    put(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\na:250,50,83::\nb:51,221,255::\n")
    put(root / "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in STEMS))


def stacks(root: Path) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(STEMS):
        pixels = np.random.default_rng(number).integers(0, 256, (DEPTH, H, W), np.uint8)
        tifffile.imwrite(root / f"images/{name}.tif", pixels, photometric="minisblack")
        tifffile.imwrite(root / f"labels/{name}.tif", np.stack([LABELS] * DEPTH), photometric="minisblack")


def niftis(root: Path) -> None:
    import nibabel

    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(STEMS):
        pixels = np.random.default_rng(number).integers(0, 256, (DEPTH, H, W)).astype(np.int16)
        for file, values in (
            (f"imagesTr/{name}_0000.nii.gz", pixels),
            (f"labelsTr/{name}.nii.gz", np.stack([LABELS] * DEPTH)),
        ):
            nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0).astype(np.int16), np.eye(4)), root / file)


def archives(root: Path) -> None:
    images(root)
    for name in STEMS:
        np.savez_compressed(root / f"{name}.npz", np.stack(MASKS, axis=2))


def by_class(root: Path) -> None:
    for folder, mask in zip(("ring", "tri"), MASKS, strict=True):
        pairs("images/*.png", f"masks/{folder}/*.png", mask * np.uint8(255))(root)


def older_labelme2voc(root: Path) -> None:
    for kind in ("Class", "Object"):
        pairs("JPEGImages/*.png", f"Segmentation{kind}PNG/*.png")(root)
        (root / f"Segmentation{kind}").mkdir()
        for name in STEMS:
            np.save(root / f"Segmentation{kind}/{name}.npy", LABELS)
    put(root / "class_names.txt", "_background_\nring\ntri\n")


WRITERS: dict[str, Write] = {
    "Ultralytics YOLO, Roboflow": TOOLS["yolo"][1],
    "labelme, X-AnyLabeling": TOOLS["labelme"][1],
    "CVAT for images": TOOLS["cvat"][1],
    "CVAT, segmentation mask": masks_of_cvat,
    "VGG Image Annotator": TOOLS["via"][1],
    "QuPath": TOOLS["qupath"][1],
    "QuPath, labelled tiles": pairs("*.png", "*-labelled.png"),
    "Supervisely": TOOLS["supervisely"][1],
    "Label Studio, JSON": TOOLS["label_studio"][1],
    "Label Studio, COCO": coco("result.json", "images", r"..\..\media\upload\3\%s"),
    "Roboflow, COCO": coco("train/_annotations.coco.json", "train", "%s"),
    "Roboflow, semantic masks": beside(
        pairs("train/*.jpg", "train/*_mask.png"),
        ("train/_classes.csv", "Pixel Value, Class\n0, background\n1, a\n2, b\n"),
    ),
    "SA-1B": TOOLS["sa1b"][1],
    "MedSAM": TOOLS["medsam"][1],
    "Data Science Bowl, Label Studio's brush PNGs, V7's instance masks, scripts": by_folder,
    "scripts, a folder for each class": by_class,
    "labelme2voc": older_labelme2voc,
    "cellpose": beside(pairs("*.png", "*_cp_masks.png", LABELS.astype(np.uint16)), ("im0_cp_outlines.txt", "1,2")),
    "napari, Fiji, StarDist": pairs("images/*.tif", "labels/*.tif", LABELS.astype(np.int32)),
    "napari, Fiji, micro-sam, stacks": stacks,
    "nnU-Net, 3D Slicer, MONAI Label": niftis,
    "nnU-Net, pictures": beside(pairs("imagesTr/*_0000.png", "labelsTr/*.png"), ("dataset.json", "{}")),
    "Segments.ai": pairs("*.jpg", "*_label_ground-truth.png"),
    "mmsegmentation": pairs("img_dir/train/*.jpg", "ann_dir/train/*.png"),
    "Kaggle": pairs("train_images/*.png", "train_masks/*.png"),
    "Datumaro": attack_sets.datumaro,
    "WGISD, NumPy": archives,
    "Crack500": pairs("*.jpg", "*.png"),
    "CVPPP": pairs("*_rgb.png", "*_label.png"),
    "GlaS": pairs("*.bmp", "*_anno.bmp"),
    "LVIS": coco("annotations/lvis_v1_train.json", "train2017", "%s"),
}
WANTS = {"nnU-Net, 3D Slicer, MONAI Label": "nibabel", "CVAT for images": "defusedxml"}


def rows() -> dict[str, tuple[list[str], list[str]]]:
    """By the tool: what docs/data.md says it leaves, and the words of its command."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("## What labelling tools leave")[2].partition("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        command = (
            re.fullmatch(r"`\.venv/bin/lora-sam train ((?:data\S+ )*)data\.root=my_data`", cells[3])
            if len(cells) == 7
            else None
        )
        if command:
            assert all(cells[1:6])
            found[cells[1]] = re.findall(r"`([^`]+)`", cells[2]), command[1].split()
    return found


def test_the_documentation_names_every_tool() -> None:
    assert rows().keys() == WRITERS.keys()


@pytest.mark.parametrize("tool", WRITERS)
def test_what_the_documentation_says_is_read(tool: str, tmp_path: Path, option: Callable[..., Any]) -> None:
    if find_spec(WANTS.get(tool, "numpy")) is None:
        pytest.skip(f"the package {WANTS[tool]} is not installed")
    WRITERS[tool](tmp_path)
    files, words = rows()[tool]
    assert all(any(tmp_path.glob(name)) for name in files)
    values = dict(word.split("=") for word in words)
    options = {key.removeprefix("data."): value for key, value in values.items() if key != "data"}
    found = {}
    for data in {values.get("data", "auto"), "auto"}:
        splits = option(f"data/{data}", root=str(tmp_path), few_images=0, **options).open(0)
        found[data] = {sample.id: sample for source in (splits.train, splits.val, splits.test) for sample in source}
    for samples in found.values():
        assert samples.keys() == found["auto"].keys()
        assert len(samples) == {"slices": DEPTH}.get(next(iter(options), ""), 1) * 4 + (tool.startswith("Ultralytics"))
        for sample in samples.values():
            if tool == "Datumaro":
                assert [int(mask.sum()) for mask in sample.masks] == [
                    width * height for *_, width, height in attack_sets.BOXES
                ]
                continue
            assert len(sample.masks) == 2
            for mask in sample.masks:
                # shares of the image are rounded
                assert min(int((mask ^ expected).sum()) for expected in MASKS) <= 2
            assert not np.array_equal(sample.masks[0], sample.masks[1])
