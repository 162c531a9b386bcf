"""Our readers against those of the package datumaro, on the same files: the same objects, pixel for pixel."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (44, 52)
CLASSES = ("cell", "nucleus", "vessel")
COLOURS = ((128, 0, 0), (0, 128, 0), (128, 128, 0))
Options = Callable[..., Any]


@pytest.fixture
def datumaro() -> Any:
    return pytest.importorskip("datumaro", reason="the package datumaro is not installed")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pictures(folder: Path, count: int) -> Iterator[np.random.Generator]:
    for index in range(count):
        rng = np.random.default_rng(index)
        save(folder / f"p{index}.png", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        yield rng


def read_by_us(splits: Any) -> dict[str, Counter[tuple[str, bytes]]]:
    """For every picture its objects: class and pixels."""
    samples = [sample for source in (splits.train, splits.val, splits.test) for sample in source]
    return {
        Path(sample.id).stem: Counter(zip(sample.classes, map(packed, sample.masks), strict=True)) for sample in samples
    }


def read_by_datumaro(datumaro: Any, root: Path, name: str) -> dict[str, Counter[tuple[str, bytes]]]:
    """The same by the package alone: its importer, and its transform of polygons into masks."""
    from datumaro.plugins.transforms import PolygonsToMasks

    dataset = datumaro.Dataset.import_from(str(root), name)
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    found: dict[str, Counter[tuple[str, bytes]]] = {}
    for item in dataset:
        groups: dict[Any, np.ndarray] = {}
        for position, entry in enumerate(item.annotations):
            kind = entry.type.name
            if (
                kind not in ("mask", "polygon")
                or entry.attributes.get("is_crowd")
                or labels[entry.label] == "background"
            ):
                continue
            mask = entry if kind == "mask" else PolygonsToMasks.convert_polygon(entry, *SIZE)
            key = (labels[entry.label], entry.group or f"alone {position}")
            groups[key] = groups.get(key, np.zeros(SIZE, bool)) | np.asarray(mask.image).astype(bool)
        found[item.id] = Counter((name, packed(mask)) for (name, _), mask in groups.items())
    return found


def packed(mask: np.ndarray) -> bytes:
    return np.packbits(np.asarray(mask, bool)).tobytes()


def objects_in(rng: np.random.Generator, count: int) -> np.ndarray:
    """A map of overlapping rectangles, each number connected or not."""
    labels = np.zeros(SIZE, np.uint8)
    for number in range(1, count + 1):
        top, left = rng.integers(0, 30, 2)
        labels[top : top + rng.integers(4, 14), left : left + rng.integers(4, 20)] = number
    return labels


def test_coco(option: Options, datumaro: Any, tmp_path: Path) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, rng in enumerate(pictures(tmp_path / "images/train", 6)):
        images.append({"id": index + 1, "file_name": f"p{index}.png", "height": SIZE[0], "width": SIZE[1]})
        for number in range(9):
            # quarters of a pixel: datumaro keeps coordinates as float32 with two digits
            polygons = [
                (rng.integers(0, 4 * 44, 2 * corners) / 4).tolist() for corners in rng.integers(3, 9, number % 3 + 1)
            ]
            segmentation: Any = polygons
            mask = objects_in(rng, 1)
            if number % 4 == 1:
                encoded = coco_mask.encode(np.asfortranarray(mask))
                segmentation = {"size": list(SIZE), "counts": encoded["counts"].decode()}
            elif number % 4 == 2:
                flat = mask.ravel(order="F")
                edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
                segmentation = {"size": list(SIZE), "counts": [0] * bool(flat[0]) + np.diff(edges).tolist()}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": number % 3 + 1,
                    "iscrowd": int(number == 5),
                    "bbox": [1, 1, 5, 5],
                    "area": 25,
                    "segmentation": segmentation,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    file = tmp_path / "annotations/instances_train.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    ours = read_by_us(option("data/coco", root=str(tmp_path)).open(0))
    assert sum(map(len, ours.values())) == 6 * 8
    assert ours == read_by_datumaro(datumaro, tmp_path, "coco_instances")
    imported = read_by_us(option("data/datumaro_import", root=str(tmp_path), format="coco_instances").open(0))
    assert imported == ours


def test_voc(option: Options, datumaro: Any, tmp_path: Path) -> None:
    items = []
    for index in range(5):
        rng = np.random.default_rng(index)
        labels = objects_in(rng, 6)
        masks = [
            datumaro.Mask(labels == number, label=number % 3, id=number, group=number)
            for number in range(1, 7)
            if (labels == number).any()
        ]
        picture = datumaro.components.media.Image.from_numpy(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        items.append(datumaro.DatasetItem(f"p{index}", subset="train", media=picture, annotations=masks))
    dataset = datumaro.Dataset.from_iterable(items, categories=list(CLASSES))
    dataset.export(str(tmp_path), "voc_instance_segmentation", save_media=True)
    ours = read_by_us(option("data/voc", root=str(tmp_path)).open(0))
    assert sum(map(len, ours.values())) > 20
    assert ours == read_by_datumaro(datumaro, tmp_path, "voc_instance_segmentation")
    imported = option("data/datumaro_import", root=str(tmp_path), format="voc_instance_segmentation").open(0)
    assert read_by_us(imported) == ours


def test_common_semantic(option: Options, datumaro: Any, tmp_path: Path) -> None:
    table = np.array([(0, 0, 0), *COLOURS], np.uint8)
    for index, rng in enumerate(pictures(tmp_path / "images", 5)):
        save(tmp_path / f"masks/p{index}.png", table[objects_in(rng, 3)])
    meta = {
        "label_map": {str(number): name for number, name in enumerate(("background", *CLASSES))},
        "segmentation_colors": table.tolist(),
        "background_label": "0",
    }
    (tmp_path / "dataset_meta.json").write_text(json.dumps(meta))
    ours = read_by_us(option("data/common_semantic", root=str(tmp_path), instances="classes").open(0))
    assert sum(map(len, ours.values())) > 10
    assert ours == read_by_datumaro(datumaro, tmp_path, "common_semantic_segmentation")
    imported = option("data/datumaro_import", root=str(tmp_path), format="common_semantic_segmentation").open(0)
    assert read_by_us(imported) == ours


WRITTEN: tuple[tuple[str, Literal["masks", "polygons"], str | None], ...] = (
    ("coco_instances", "polygons", "coco"),
    ("coco", "polygons", "coco"),
    ("cvat", "masks", "cvat"),
    ("cvat", "polygons", "cvat"),
    ("datumaro", "masks", "datumaro"),
    ("datumaro", "polygons", "datumaro"),
    ("voc", "masks", "voc"),
    ("voc_segmentation", "masks", "voc"),
    ("segment_anything", "masks", "sa1b"),
    ("segment_anything", "polygons", "sa1b"),
    ("datumaro_binary", "masks", None),
    ("datumaro_binary", "polygons", None),
    ("coco_panoptic", "masks", None),
    ("kitti", "masks", None),
    ("kitti_segmentation", "masks", None),
    ("label_me", "masks", None),
    ("label_me", "polygons", None),
    ("camvid", "masks", None),
    ("cityscapes", "masks", None),
)
"""A format that the package writes and reads, what it is given, and the format of ours that is found, if any."""


@pytest.mark.parametrize(("name", "given", "ours"), WRITTEN, ids=["-".join(map(str, row)) for row in WRITTEN])
def test_what_datumaro_writes(
    option: Options,
    datumaro: Any,
    tmp_path: Path,
    name: str,
    given: Literal["masks", "polygons"],
    ours: str | None,
) -> None:
    items = []
    for index in range(3):
        rng = np.random.default_rng(index)
        labels = objects_in(rng, 5)
        objects = []
        for number in (number for number in range(1, 6) if (labels == number).any()):
            about = {"label": number % 3, "id": number, "group": number}
            if given == "masks":
                objects.append(datumaro.Mask(labels == number, **about))
            else:
                x, y, width, height = (rng.integers(16, 80, 4) / 4).tolist()
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                objects.append(datumaro.Polygon(corners, **about))
        picture = datumaro.components.media.Image.from_numpy(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        items.append(datumaro.DatasetItem(f"p{index}", subset="train", media=picture, annotations=objects))
    dataset = datumaro.Dataset.from_iterable(items, categories=list(CLASSES))
    dataset.export(str(tmp_path), name, save_media=True)
    in_train = {"root": str(tmp_path), "val": "train", "test": "train"}
    expected = written_to(datumaro, tmp_path, name)
    assert sum(map(Counter.total, expected.values())) >= 6
    assert pixels_of(option("data/datumaro_import", format=name, **in_train).open(0)) == expected
    if ours is not None:
        found = option("data/auto", **in_train).open(0)
        assert any(note.startswith(f"read as data={ours}:") for note in found.notes)
        assert pixels_of(found) == expected


def pixels_of(splits: Any) -> dict[str, Counter[tuple[str, bytes]]]:
    """For every picture of train its objects: class, or none, and pixels."""
    return {
        Path(sample.id).stem.removesuffix("_leftImg8bit"): Counter(
            zip(sample.classes or ("",) * len(sample.masks), map(packed, sample.masks), strict=True)
        )
        for sample in splits.train
    }


def written_to(datumaro: Any, root: Path, name: str) -> dict[str, Counter[tuple[str, bytes]]]:
    """The same by the package alone, whatever it calls pictures."""
    if name != "segment_anything":
        return {Path(key).stem: value for key, value in read_by_datumaro(datumaro, root, name).items()}
    from datumaro.plugins.transforms import PolygonsToMasks

    found = {}
    for item in datumaro.Dataset.import_from(str(root), name):
        masks = [
            entry.image if entry.type.name == "mask" else PolygonsToMasks.convert_polygon(entry, *SIZE).image
            for entry in item.annotations
            if entry.type.name in ("mask", "polygon")
        ]
        found[Path(item.id).stem] = Counter(("", packed(mask)) for mask in masks)
    return found


def test_coco_masks_are_crowds_to_datumaro(option: Options, datumaro: Any, tmp_path: Path) -> None:
    """The one difference: the package writes every mask with iscrowd=1; we take them for objects, with a note."""
    mask = objects_in(np.random.default_rng(0), 1) == 1
    picture = datumaro.components.media.Image.from_numpy(np.zeros((*SIZE, 3), np.uint8))
    item = datumaro.DatasetItem("p", subset="train", media=picture, annotations=[datumaro.Mask(mask, label=0, id=1)])
    dataset = datumaro.Dataset.from_iterable([item], categories=list(CLASSES))
    dataset.export(str(tmp_path), "coco_instances", save_media=True)
    found = option("data/auto", root=str(tmp_path), val="train", test="train").open(0)
    assert np.array_equal(found.train[0].masks, mask[None])
    assert any("iscrowd" in note and "data.crowd=ignore" in note for note in found.notes)
    assert not read_by_datumaro(datumaro, tmp_path, "coco_instances")["p"]


def test_what_an_error_names_is_known_to_datumaro(datumaro: Any) -> None:
    from lora_sam.data.reading.unknown_layout import DATUMARO_NEEDS

    assert set(DATUMARO_NEEDS) <= set(datumaro.Environment().importers)


def test_one_image_is_train_val_and_test_where_the_user_says_so(option: Options, datumaro: Any, tmp_path: Path) -> None:
    mask = objects_in(np.random.default_rng(0), 1) == 1
    picture = datumaro.components.media.Image.from_numpy(np.zeros((*SIZE, 3), np.uint8))
    item = datumaro.DatasetItem("p", subset="train", media=picture, annotations=[datumaro.Mask(mask, label=1, id=1)])
    dataset = datumaro.Dataset.from_iterable([item], categories=["background", "a"])
    dataset.export(str(tmp_path), "datumaro", save_media=True)
    options = {"root": str(tmp_path), "format": "datumaro"}
    read = option("data/datumaro_import", **options, val="train", test="train").open(0)
    assert len(read.train) == len(read.val) == len(read.test) == 1
