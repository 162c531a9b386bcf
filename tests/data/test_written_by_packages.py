"""What packages for labels write (supervision, kwcoco, Datumaro, Label Studio's converter, shapely), made by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.splits import Splits

from .tool_sets import HOLE, NAMES, SQUARE, TRIANGLE, H, W, cvat, images, label_studio, polygon, put, qupath, via

Open = Callable[..., Splits]


def sizes(splits: Splits) -> list[int]:
    return [len(source) for source in (splits.train, splits.val, splits.test)]


def parted(write: Callable[[Path], None], root: Path, file: str, names: tuple[str, ...]) -> None:
    """A set of one file for each split, with images of its own."""
    for place, name in enumerate(names):
        write(root / "made")
        made = root / "made" / file
        text = made.read_text(encoding="utf-8")
        for old in NAMES:
            text = text.replace(old, f"{place}{old}")
            (root / "images").mkdir(exist_ok=True)
            next((root / "made").rglob(f"*{old}")).rename(root / "images" / f"{place}{old}")
        put(root / name, text)
        made.unlink()


@pytest.mark.parametrize(
    ("write", "file", "pattern"),
    [
        (cvat, "annotations.xml", "{}.xml"),
        (via, "via_region_data.json", "via_{}.json"),
        (label_studio, "project-1-at-2026.json", "labels/{}_tasks.json"),
    ],
    ids=["cvat", "via", "label_studio"],
)
def test_a_file_for_each_split(write: Any, file: str, pattern: str, tmp_path: Path, opened: Open) -> None:
    """As Datumaro writes CVAT: all images lie in one folder, and chance parted them."""
    parted(write, tmp_path / "a", file, tuple(pattern.format(name) for name in ("train", "valid", "test")))
    splits = opened(tmp_path / "a")
    assert sizes(splits) == [4, 4, 4]
    assert [Path(source.ids[0]).name[0] for source in (splits.train, splits.val, splits.test)] == ["0", "1", "2"]
    parted(write, tmp_path / "b", file, tuple(pattern.format(name) for name in ("train", "more")))
    assert sum(sizes(opened(tmp_path / "b"))) == 8  # names that say nothing, or only of some, part nothing


def coco(root: Path, segmentations: list[Any], names: tuple[str, ...] = NAMES, **changes: Any) -> dict[str, Any]:
    images(root / "images", names)
    return {
        "images": [{"id": n, "file_name": name, "height": H, "width": W} for n, name in enumerate(names)],
        "annotations": [
            {"id": 10 * n + k, "image_id": n, "category_id": 1, "segmentation": segmentation, **changes}
            for n in range(len(names))
            for k, segmentation in enumerate(segmentations)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }


def test_polygons_of_kwcoco(tmp_path: Path, opened: Open) -> None:
    parts = [{"exterior": SQUARE, "interiors": [HOLE]}, {"exterior": TRIANGLE, "interiors": []}]
    content = coco(tmp_path, [parts, parts[1]])
    put(tmp_path / "data.kwcoco.json", content)
    whole = (polygon(SQUARE) & ~polygon(HOLE)) | polygon(TRIANGLE)
    assert np.array_equal(opened(tmp_path).train[0].masks, [whole, polygon(TRIANGLE)])
    content["annotations"][0]["segmentation"] = [{"exterior": "SQUARE"}]
    put(tmp_path / "data.kwcoco.json", content)
    with pytest.raises(DataError, match=r"annotation 0 .* has a polygon that is not a flat list"):
        opened(tmp_path)


def test_instances_beside_other_annotations_of_the_same_images(tmp_path: Path, opened: Open) -> None:
    """As Datumaro writes all of COCO at once."""
    content = coco(tmp_path, [[[value for point in SQUARE for value in point]]])
    put(tmp_path / "annotations/instances_default.json", content)
    segments = [{"image_id": 0, "file_name": "im0.png", "segments_info": [{"id": 1, "category_id": 1}]}]
    for name in ("stuff", "panoptic", "labels"):
        put(tmp_path / f"annotations/{name}_default.json", {**content, "annotations": segments})
    splits = opened(tmp_path)
    assert "annotations/instances_default.json" in splits.notes[0]
    assert np.array_equal(splits.train[0].masks, [polygon(SQUARE)])
    (tmp_path / "annotations/instances_default.json").rename(tmp_path / "annotations/my_instances.json")
    with pytest.raises(DataError, match=r"data=coco data\.annotations=annotations/my_instances\.json "):
        opened(tmp_path)
    (tmp_path / "annotations/my_instances.json").unlink()
    with pytest.raises(DataError, match="data=datumaro_import data.format=coco_panoptic") as caught:
        opened(tmp_path)
    assert "data=coco data.annotations" not in str(caught.value)


def test_coco_without_an_annotation_says_so(tmp_path: Path, opened: Open) -> None:
    """As Label Studio leaves COCO of brush masks."""
    put(tmp_path / "result.json", coco(tmp_path, []))
    with pytest.raises(DataError, match=r"result\.json: lists 4 images and no annotation; .* Label Studio"):
        opened(tmp_path)


def test_images_without_a_size_are_counted_once(tmp_path: Path, opened: Open) -> None:
    content = coco(tmp_path, [[[value for point in SQUARE for value in point]]])
    for entry in content["images"]:
        entry.update(file_name=f"/data/upload/{entry['file_name']}", width=0, height=0)
    put(tmp_path / "result.json", content)
    assert "train: 4 images were found by their name alone: result.json has other paths" in opened(tmp_path).notes


def test_labels_of_images_that_are_called_alike_in_two_folders(tmp_path: Path, opened: Open) -> None:
    for folder in ("day 1", "Größe"):
        qupath(tmp_path / "made")
        (tmp_path / "set").mkdir(exist_ok=True)
        for file in sorted((tmp_path / "made").rglob("*.*")):
            (tmp_path / "set" / folder).mkdir(exist_ok=True)
            file.rename(tmp_path / "set" / folder / file.name)
    splits = opened(tmp_path / "set")
    assert sum(sizes(splits)) == 8
    assert len({*splits.train.ids, *splits.val.ids, *splits.test.ids}) == 8


def test_what_lies_beside_the_root_is_no_part_of_the_data(tmp_path: Path, opened: Open) -> None:
    """Labels beside their images in the root itself: folders beside the root were told to be unread."""
    for folder in ("set", "other"):
        images(tmp_path / folder)
        for name in NAMES:
            mask = polygon(SQUARE).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / folder / f"{name[:-4]}_cp_masks.png")
    splits = opened(tmp_path / "set")
    assert sum(sizes(splits)) == 4
    assert not any("other" in note for note in splits.notes)


def test_polygons_of_segments_ai(tmp_path: Path, opened: Open) -> None:
    """As its `export_polygon` has OpenCV trace them, under a name of its own."""
    trace = [[4, 5], [4, 20], [23, 20], [23, 5]]
    hole = [[9, 10], [10, 9], [15, 9], [16, 10], [16, 14], [15, 15], [10, 15], [9, 14]]
    content = coco(tmp_path, [None])
    for entry in content["annotations"]:
        del entry["segmentation"]
        entry["polygons"] = [trace, hole]
    put(tmp_path / "export_polygon.json", content)
    expected = polygon(SQUARE)
    expected[10:15, 10:16] = False
    assert np.array_equal(opened(tmp_path).train[0].masks, [expected])


def test_yolo_s_texts_beside_their_images(tmp_path: Path, opened: Open) -> None:
    """They were no known layout; read as data=yolo, folders of splits were parted anew by chance."""
    line = " ".join(f"{x / W:.5f} {y / H:.5f}" for x, y in SQUARE)
    for place, folder in enumerate(("train/day 1", "val", "test/x")):
        names = tuple(f"{place}{name}" for name in NAMES)
        images(tmp_path / folder, names)
        for name in names:
            put(tmp_path / folder / f"{name[:-4]}.txt", f"0 {line}\n")
    put(tmp_path / "classes.txt", "cell\n")
    splits = opened(tmp_path)
    assert splits.notes[0].startswith("read as data=yolo: ")
    assert sizes(splits) == [4, 4, 4]
    assert {name.partition("/")[0] for name in splits.val.ids} == {"val"}
    assert splits.train[0].classes == ("cell",)


@pytest.mark.parametrize(
    ("table", "codes"),
    [
        ("__background__,0 0 0\nring,255 50 50\nbig, old,153 255 50\n", [(0, 0, 0), (255, 50, 50), (153, 255, 50)]),
        ("__background__,0\nring,127\nbig, old,255\n", [0, 127, 255]),
    ],
    ids=["colours", "values"],
)
def test_class_masks_of_v7(table: str, codes: list[Any], tmp_path: Path, opened: Open) -> None:
    images(tmp_path / "images")
    mask = np.array(codes, np.uint8)[polygon(SQUARE) * 1 + polygon(TRIANGLE) * 2]
    (tmp_path / "masks").mkdir()
    for name in NAMES:
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    put(tmp_path / "class_mapping.csv", f"class_name,class_color\n{table}")
    sample = opened(tmp_path).train[0]
    assert dict(zip(sample.classes, sample.masks.sum(axis=(1, 2)).tolist(), strict=True)) == {
        "ring": polygon(SQUARE).sum(),
        "big, old": polygon(TRIANGLE).sum(),
    }
    put(tmp_path / "class_mapping.csv", "class_name,class_color\nring,red\n")
    with pytest.raises(DataError, match="line 2 is 'ring,red'; it takes a name and a value or red green blue"):
        opened(tmp_path)


def test_labels_in_the_root_are_named_with_what_to_type(tmp_path: Path, opened: Open) -> None:
    """As Segments.ai exports label images, where the images lie in a folder of their own."""
    images(tmp_path / "images")
    for name in NAMES:
        label = polygon(SQUARE) * np.uint8(1) + polygon(TRIANGLE) * np.uint8(2)
        Image.fromarray(label).save(tmp_path / f"{name[:-4]}_label_ground-truth_instance.png")
    typed = "data=folder data.images=images data.masks=. data.mask_suffix=_label_ground-truth_instance. "
    with pytest.raises(DataError, match=re.escape(typed)):
        opened(tmp_path)
    splits = opened(tmp_path, "folder", images="images", masks=".", mask_suffix="_label_ground-truth_instance")
    assert np.array_equal(splits.train[0].masks, [polygon(SQUARE), polygon(TRIANGLE)])


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        ("{split}/{name}_img.png", "{split}/{name}_masks.png"),  # as cellpose wants them for training
        ("{split}/images/{name}_image.png", "{split}/masks/{name}_mask.png"),
        ("images/{split}/{name}_raw.png", "labels/{split}/{name}.png"),
    ],
)
def test_endings_of_images_and_of_labels(picture: str, label: str, tmp_path: Path, opened: Open) -> None:
    values = polygon(SQUARE) * np.uint8(1) + polygon(TRIANGLE) * np.uint8(2)
    for split in ("train", "val", "test"):
        for name in ("a 1", "b"):
            images((tmp_path / picture.format(split=split, name=name)).parent, (f"{name}.png",))
            plain = (tmp_path / picture.format(split=split, name=name)).with_name(f"{name}.png")
            plain.rename(tmp_path / picture.format(split=split, name=name))
            file = tmp_path / label.format(split=split, name=name)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(file)
    splits = opened(tmp_path)
    assert sizes(splits) == [2, 2, 2]
    assert np.array_equal(splits.val[0].masks, [polygon(SQUARE), polygon(TRIANGLE)])
    assert splits.val.ids[0] == picture.format(split="val", name="a 1")


def nested(root: Path, image_folder: str, label_folder: str) -> None:
    """Label images in folders within the folders of splits, none in these themselves."""
    label = polygon(SQUARE) * np.uint8(1) + polygon(TRIANGLE) * np.uint8(2)
    for place, split in enumerate(("train", "val", "test")):
        names = tuple(f"{place}{name}" for name in NAMES)
        images(root / image_folder.format(split=split) / "day 1", names)
        folder = root / label_folder.format(split=split) / "day 1"
        folder.mkdir(parents=True)
        for name in names:
            Image.fromarray(label).save(folder / name)


def test_splits_are_found_above_further_folders(tmp_path: Path, opened: Open) -> None:
    nested(tmp_path, "images/{split}", "masks/{split}")
    splits = opened(tmp_path)
    assert sizes(splits) == [4, 4, 4]
    assert {name[:10] for name in splits.val.ids} == {"images/val"}
    splits = opened(tmp_path, "folder", images="images", masks="masks")
    said = (
        "folders train and val and test are read as one set, .* 'data.images=images/{split}' 'data.masks=masks/{split}'"
    )
    assert any(re.search(said, note) for note in splits.notes)


@pytest.mark.parametrize(
    ("places", "typed"),
    [
        (("photos/{split}", "annots/{split}"), ("photos/{split}", "annots/{split}")),
        (("{split}", "{split}annot"), ("{split}", "{split}annot")),
    ],
)
def test_what_to_type_keeps_the_splits(
    places: tuple[str, str], typed: tuple[str, str], tmp_path: Path, opened: Open
) -> None:
    nested(tmp_path, *places)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert f"type data=folder 'data.images={typed[0]}' 'data.masks={typed[1]}'. " in str(caught.value)
    assert sizes(opened(tmp_path, "folder", images=typed[0], masks=typed[1])) == [4, 4, 4]


def test_v7_s_json_is_not_said_to_be_coco(tmp_path: Path, opened: Open) -> None:
    images(tmp_path / "images")
    source = [{"file_name": "im0.png", "url": ""}]
    slots = [{"slot_name": "0", "width": W, "height": H, "source_files": source}]
    content = {"version": "2.0", "item": {"name": "im0.png", "slots": slots}, "annotations": [{"id": "1"}]}
    put(tmp_path / "annotations/im0.json", content)
    with pytest.raises(DataError, match="annotations/im0.json is of V7 Darwin, which is not read") as caught:
        opened(tmp_path)
    assert "data=coco data.annotations" not in str(caught.value)


VOC = "<annotation><filename>im0.png</filename><segmented>0</segmented>{}</annotation>"
VOC_BOX = VOC.format("<object><name>cell</name><bndbox><xmin>1</xmin></bndbox>{}</object>")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"Annotations/im0.xml": VOC_BOX.format("<polygon><x1>1</x1></polygon>")},
            "Annotations/im0.xml is of Pascal VOC with polygons in XML, which is not read: export it as COCO with",
        ),
        (
            {"Annotations/im0.xml": VOC.format(""), "Annotations/im1.xml": VOC_BOX.format("")},
            "Annotations/im1.xml is of Pascal VOC boxes, which is not read: its boxes outline nothing",
        ),
        ({"Annotations/im0.xml": VOC.format("")}, "Annotations/im0.xml is of Pascal VOC without objects"),
        (
            {"obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n", "obj.names": "cell\n"},
            "obj.data is of Darknet's YOLO, which is not read: its boxes outline nothing",
        ),
        ({"RoiSet.zip": "PK\3\4...0001-0002.roi"}, "RoiSet.zip is of ImageJ's ROI manager, which is not read: make a"),
        ({"rois/1.roi": "Iout\0"}, "rois/1.roi is of ImageJ's ROI manager, which is not read: make a label image"),
        (
            {"task-1-annotation-3-by-a@b.c-brush-cell-0.png": "", "task-1-annotation-3-by-a@b.c-brush-cell-1.png": ""},
            "task-1-annotation-3-by-a@b.c-brush-cell-0.png is a brush mask of Label Studio, whose name says a task and "
            "no image, so it is not read: export it as JSON",
        ),
    ],
)
def test_what_is_not_read_is_named(files: dict[str, str], said: str, tmp_path: Path, opened: Open) -> None:
    images(tmp_path / "images")
    for name, text in files.items():
        put(tmp_path / name, text)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    assert "datumaro" not in str(caught.value).split("Looked for")[0]  # which reads none of these
