"""Each format is read back, by our readers and by those of others, as the masks that were found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from lora_sam.core import mask_files
from lora_sam.core.painting import FILL, PALETTE
from lora_sam.deployment.predicting.found import FoundImage, read_found, write_found
from lora_sam.deployment.predicting.writers import semantic, yolo
from lora_sam.deployment.predicting.writers.table import FORMATS

CATEGORIES = {2: "cat", 4: 'dog "x"'}
SIZE = (30, 40)


def shapes() -> np.ndarray:
    """A square, a ring with a hole, two parts, and one over the square and the ring."""
    masks = np.zeros((4, *SIZE), np.bool_)
    masks[0, 2:8, 3:11] = True
    masks[1, 10:25, 5:20] = True
    masks[1, 14:20, 9:15] = False
    masks[2, 3:6, 25:30] = masks[2, 20:26, 30:40] = True
    masks[3, 5:13, 8:15] = True
    return masks


@pytest.fixture
def image(found: Callable[..., FoundImage]) -> FoundImage:
    return found(shapes(), [0.5, 0.75, 0.25, 0.625], categories=["cat", 'dog "x"', "cat", "cat"])


def written(name: str, output: Path, *images: FoundImage) -> list[tuple[str, ...]]:
    row = FORMATS[name]
    pixels = np.full((*SIZE, 3), 200, np.uint8)
    paths = [] if row.each is None else [row.each(output, one, lambda: pixels, CATEGORIES) for one in images]
    if row.whole is not None:

        def again() -> Iterator[FoundImage]:
            yield from images

        row.whole(output, again, CATEGORIES)
    assert all((output / path).is_file() for several in paths for path in several)
    return paths


def test_a_record_comes_back(image: FoundImage, tmp_path: Path) -> None:
    write_found(tmp_path / "a.json", image)
    assert read_found(tmp_path / "a.json") == image
    assert (image.masks == shapes()).all()
    (tmp_path / "a.json").write_bytes((tmp_path / "a.json").read_bytes()[:-40])
    assert read_found(tmp_path / "a.json") is None
    assert read_found(tmp_path / "b.json") is None


def test_an_empty_mask_is_no_object(found: Callable[..., FoundImage]) -> None:
    masks = shapes()
    masks[1] = False
    assert [one.area for one in found(masks).objects] == [int(mask.sum()) for mask in masks[[0, 2, 3]]]


def test_coco_as_pycocotools_reads_it(image: FoundImage, found: Callable[..., FoundImage], tmp_path: Path) -> None:
    nothing = found(np.zeros((0, *SIZE), np.bool_), name="a.png", stem="a")
    written("coco", tmp_path, nothing, image)
    read = COCO(str(tmp_path / "coco.json"))
    assert {one["id"]: one["name"] for one in read.loadCats(read.getCatIds())} == CATEGORIES
    assert [(one["file_name"], one["height"], one["width"]) for one in read.loadImgs(read.getImgIds())] == [
        ("a.png", *SIZE), ("deep/c.tif", *SIZE),
    ]  # fmt: skip
    annotations = read.loadAnns(read.getAnnIds(imgIds=[2]))
    assert (np.stack([read.annToMask(one) for one in annotations]) == shapes()).all()
    assert [one["score"] for one in annotations] == [0.5, 0.75, 0.25, 0.625]
    assert [one["category_id"] for one in annotations] == [2, 4, 2, 2]
    assert [one["area"] for one in annotations] == shapes().sum(axis=(1, 2)).tolist()
    assert annotations[0]["bbox"] == [3, 2, 8, 6]
    assert {one["iscrowd"] for one in annotations} == {0}
    detections = read.loadRes([{**one} for one in annotations])  # as results of a detector too
    assert len(detections.getAnnIds()) == 4


def test_ids_of_the_coco_file_that_was_the_source(
    image: FoundImage, found: Callable[..., FoundImage], tmp_path: Path
) -> None:
    listed = found(shapes(), coco=(77, "train/c.tif"), categories=["cat"] * 4)
    written("coco", tmp_path, listed)
    content = json.loads((tmp_path / "coco.json").read_text())
    assert content["images"] == [{"id": 77, "file_name": "train/c.tif", "height": 30, "width": 40}]
    assert {one["image_id"] for one in content["annotations"]} == {77}


def test_coco_polygons_fill_to_the_masks(image: FoundImage, tmp_path: Path) -> None:
    """As CVAT and Label Studio take them: lists of one polygon."""
    written("coco_polygons", tmp_path, image)
    for one, mask in zip(
        json.loads((tmp_path / "coco_polygons.json").read_text())["annotations"], shapes(), strict=True
    ):
        (polygon,) = one["segmentation"]
        filled = coco_mask.decode(coco_mask.frPyObjects([polygon], *SIZE))[..., 0]
        assert (filled == mask).all()


def test_coco_as_datumaro_reads_it_which_is_what_cvat_does(image: FoundImage, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="the package datumaro is not installed")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "deep" / "c.png")
    written("coco", tmp_path, image)
    (tmp_path / "coco.json").rename(tmp_path / "annotations" / "instances_default.json")
    dataset = datumaro.Dataset.import_from(str(tmp_path), "coco")
    (item,) = list(dataset)
    masks = [one for one in item.annotations if one.type == datumaro.AnnotationType.mask]
    masks.sort(key=lambda one: one.id)  # what is unsorted is in order of its size
    assert (np.stack([one.image for one in masks]).astype(bool) == shapes()).all()
    names = dataset.categories()[datumaro.AnnotationType.label]
    assert [names[one.label].name for one in masks] == ["cat", 'dog "x"', "cat", "cat"]


def test_labels_with_the_higher_score_on_top(image: FoundImage, tmp_path: Path) -> None:
    assert written("labels", tmp_path, image) == [("labels/deep/c.png",)]
    with Image.open(tmp_path / "labels" / "deep" / "c.png") as file:
        assert file.mode == "I;16"
        values = np.asarray(file)
    assert set(np.unique(values)) == {0, 1, 2, 3, 4}
    masks = shapes()
    assert (values == 2)[masks[1]].all()  # 0.75 over 0.625
    assert (values == 4)[masks[3] & ~masks[1]].all()  # 0.625 over 0.5
    assert ((values == 1) == (masks[0] & ~masks[3])).all()
    assert ((values > 0) == masks.any(axis=0)).all()


def test_more_labels_than_16_bits(image: FoundImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    monkeypatch.setattr(mask_files, "MOST_OF_16_BITS", 3)
    assert written("labels", tmp_path, image) == [("labels/deep/c.tif",)]
    values = tifffile.imread(tmp_path / "labels" / "deep" / "c.tif")
    assert (values.dtype, values.max()) == (np.uint32, 4)


def test_a_picture_for_each_object(image: FoundImage, tmp_path: Path) -> None:
    assert written("masks", tmp_path, image) == [tuple(f"masks/deep/c/{n:03d}.png" for n in (1, 2, 3, 4))]
    for number, mask in enumerate(shapes(), 1):
        with Image.open(tmp_path / "masks" / "deep" / "c" / f"{number:03d}.png") as file:
            assert (np.asarray(file) == np.where(mask, 255, 0)).all()


def test_yolo_polygons_fill_to_the_masks(image: FoundImage, tmp_path: Path) -> None:
    written("yolo", tmp_path, image)
    lines = (tmp_path / "yolo" / "labels" / "deep" / "c.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "0", "0"]
    import yaml

    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text()) == {"names": {0: "cat", 1: 'dog "x"'}}
    for line, mask in zip(lines, shapes(), strict=True):
        corners = np.array(line.split()[1:], float).reshape(-1, 2) * (40, 30)
        filled = coco_mask.decode(coco_mask.frPyObjects([corners.ravel().tolist()], *SIZE))[..., 0]
        assert (filled == mask).all()


def test_geojson_keeps_holes_and_parts(image: FoundImage, tmp_path: Path) -> None:
    from shapely.geometry import shape

    written("geojson", tmp_path, image)
    content = json.loads((tmp_path / "geojson" / "deep" / "c.geojson").read_text())
    geometries = [shape(feature["geometry"]) for feature in content["features"]]
    assert [geometry.geom_type for geometry in geometries] == ["Polygon", "Polygon", "MultiPolygon", "Polygon"]
    assert all(geometry.is_valid for geometry in geometries)
    assert [geometry.area for geometry in geometries] == shapes().sum(axis=(1, 2)).tolist()
    assert geometries[0].bounds == (3, 2, 11, 8)
    assert len(geometries[1].interiors) == 1
    assert [feature["properties"]["classification"]["name"] for feature in content["features"]][1] == 'dog "x"'
    assert content["features"][0]["properties"]["measurements"] == {"score": 0.5, "area": 48}


def test_overlays_show_the_colour_of_each_object(image: FoundImage, tmp_path: Path) -> None:
    written("overlays", tmp_path, image)
    with Image.open(tmp_path / "overlays" / "deep" / "c.png") as file:
        values = np.asarray(file)
    assert values.shape == (*SIZE, 3)
    assert (values[28, 2] == 200).all()  # nothing there
    assert tuple(values[2, 3]) == PALETTE[0]  # its contour
    assert tuple(values[23, 35]) == tuple(np.round(200 + FILL * (np.array(PALETTE[2]) - 200)).astype(int))


def test_names_of_classes_in_files_of_a_name_a_line(found: Callable[..., FoundImage], tmp_path: Path) -> None:
    """Whatever a name holds: a line break made two lines of it, and others no YAML or another name."""
    names = [
        "cell\nnucleus",
        'tab\there, "quoted" <b>',
        "\u202eturned\u2028line\x85next\x7f",
        "日本 \U0001f9eb \U000e0001",
    ]
    categories = dict(enumerate(names, 1))
    image = found(np.stack([np.eye(9, dtype=np.bool_)] * 4), categories=names)
    for writer in (semantic, yolo):
        writer.write(tmp_path, image, _nothing, categories)
        writer.finish(tmp_path, lambda: [image], categories)
    lines = (tmp_path / "semantic/classes.txt").read_bytes().decode().splitlines()
    assert lines[:2] == ["0 background", r"1 cell\nnucleus"]
    assert [line.split(" ")[0] for line in lines] == ["0", "1", "2", "3", "4"]
    told = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text(encoding="utf-8"))
    assert told["names"] == dict(enumerate(names))
    assert "\u202e" not in (tmp_path / "yolo/data.yaml").read_text(encoding="utf-8")


def _nothing() -> NDArray[np.uint8]:
    raise AssertionError("no pixels are needed")
