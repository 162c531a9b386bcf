from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from lora_sam.core.errors import DataError

Edit = Callable[[dict[str, Any]], None]
SIZE = (20, 30)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def square(top: int, left: int, side: int = 6) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def annotation(identifier: int, kind: str, label: int | None = 0, group: int = 0, **content: Any) -> dict[str, Any]:
    return {"id": identifier, "type": kind, "attributes": {}, "group": group, "label_id": label, **content}


def write(root: Path, splits: tuple[str, ...] = ("train", "val", "test"), edit: Edit | None = None) -> Path:
    """Three images per split with a mask, a polygon and an ellipse; `edit` changes the JSON of the first split."""
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(splits):
        (root / "images" / split).mkdir(parents=True)
        items = []
        for index in range(3):
            name = f"{split}{index}"
            pixels = np.random.default_rng((number, index)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{name}.png")
            annotations = [
                annotation(1, "mask", rle=rle(square(1, 1))),
                annotation(2, "polygon", 1, points=[10.0, 2.0, 18.0, 2.0, 18.0, 9.0, 10.0, 9.0]),
                annotation(3, "ellipse", 1, points=[20.0, 10.0, 29.0, 19.0]),
            ]
            image = {"path": f"{name}.png", "size": list(SIZE)}
            items.append({"id": name, "annotations": annotations, "image": image})
        labels = [{"name": name, "parent": "", "attributes": []} for name in ("cell", "nucleus")]
        content = {
            "dm_format_version": "1.0",
            "media_type": 2,
            "infos": {},
            "categories": {"label": {"labels": labels}},
            "items": items,
        }
        if edit is not None and number == 0:
            edit(content)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def opened(option: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def open_(edit: Edit | None = None, splits: tuple[str, ...] = ("train", "val", "test"), **changes: Any) -> Any:
        root = tmp_path / "set"
        if not root.exists():
            write(root, splits, edit)
        return option("data/datumaro", root=str(root), **{"few_images": 0, **changes}).open(0)

    return open_


def first(content: dict[str, Any]) -> dict[str, Any]:
    return content["items"][0]  # type: ignore[no-any-return]


def with_annotations(*annotations: Any) -> Edit:
    return lambda content: first(content).update(annotations=list(annotations))


def test_masks_polygons_and_ellipses_become_objects_with_classes(opened: Callable[..., Any], tmp_path: Path) -> None:
    splits = opened()
    assert splits.train.ids == tuple(f"images/train/train{index}.png" for index in range(3))
    assert splits.val.object_counts == (3, 3, 3)
    assert splits.test.sizes == (SIZE,) * 3
    assert splits.notes == splits.skipped == ()
    sample = splits.train[0]
    assert sample.object_ids == ("1", "2", "3")
    assert sample.classes == ("cell", "nucleus", "nucleus")
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(tmp_path / "set" / sample.id)))
    np.testing.assert_array_equal(sample.masks[0], square(1, 1))
    expected = np.zeros(SIZE, bool)
    expected[2:9, 10:18] = True
    np.testing.assert_array_equal(sample.masks[1], expected)
    rows, columns = np.mgrid[:20, :30]
    inside = ((columns + 0.5 - 24.5) / 4.5) ** 2 + ((rows + 0.5 - 14.5) / 4.5) ** 2 < 1
    assert (sample.masks[2] != inside).sum() <= 8  # pycocotools rounds the outline in its own way


def test_a_group_of_one_label_is_one_object(opened: Callable[..., Any]) -> None:
    triangle = [10.0, 2.0, 18.0, 2.0, 18.0, 9.0]
    edit = with_annotations(
        annotation(4, "polygon", 0, 7, points=triangle),
        annotation(5, "mask", 0, 7, rle=rle(square(12, 2))),
        annotation(6, "mask", 1, 7, rle=rle(square(0, 20))),
        annotation(7, "mask", None, rle=rle(square(13, 22))),
        annotation(8, "bbox", 0, 7, bbox=[2.0, 2.0, 16.0, 16.0]),
    )
    splits = opened(edit)
    sample = splits.train[0]
    assert sample.object_ids == ("4", "6", "7")
    assert sample.classes == ("cell", "nucleus", "unlabelled")
    polygon = coco_mask.decode(coco_mask.frPyObjects([triangle], *SIZE))[..., 0].astype(bool)
    np.testing.assert_array_equal(sample.masks[0], polygon | square(12, 2))
    assert splits.notes == ()


def test_what_is_no_object_is_left_out_and_noted(opened: Callable[..., Any]) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["categories"]["label"]["labels"].append({"name": "Background", "parent": ""})
        first(content)["annotations"] += [
            annotation(4, "bbox", bbox=[1.0, 2.0, 3.0, 4.0]),
            annotation(5, "mask", rle=rle(square(1, 1))) | {"attributes": {"is_crowd": True}},
            annotation(6, "caption", None, caption="a picture"),
            annotation(7, "mask", 2, rle=rle(square(1, 1))),
            annotation(8, "mask", rle=rle(square(4, 4, 2))),
        ]
        content["items"].append({"id": "empty", "annotations": [], "image": {"path": "absent.png", "size": [2, 3]}})

    splits = opened(edit, min_area=5)
    assert splits.train.object_counts == (3, 3, 3)
    assert set(splits.notes) == {
        "train: 1 annotations with is_crowd are not objects",
        "train: 1 annotations of type caption outline nothing",
        "train: 1 masks of the class Background are not objects",
        "train: 1 boxes without a mask are not objects",
        "train: 1 objects smaller than data.min_area=5 pixels were left out",
        "train: 1 images without an object were left out",
    }


def test_objects_without_ids_are_numbered(opened: Callable[..., Any]) -> None:
    splits = opened(lambda content: [entry.update(id=0) for entry in first(content)["annotations"]])  # type: ignore[arg-type, func-returns-value]
    assert splits.train[0].object_ids == ("1", "2", "3")


def test_data_without_labels_has_no_classes(opened: Callable[..., Any]) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["categories"] = {}
        for item in content["items"]:
            for entry in item["annotations"]:
                entry["label_id"] = None

    assert opened(edit).train[0].classes == ()


def test_images_are_found_where_datumaro_finds_them(opened: Callable[..., Any], tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["items"][0]["image"] = {"path": ""}
        content["items"][1]["image"]["path"] = "old.png"
        del content["items"][2]["image"]["size"]

    write(tmp_path / "set", edit=edit)
    images = tmp_path / "set/images"
    Image.new("RGB", SIZE[::-1]).save(images / "train/train0.jpg")
    (images / "train/train1.png").rename(images / "old.png")
    splits = opened()
    assert splits.train.ids == ("images/train/train0.jpg", "images/old.png", "images/train/train2.png")
    assert splits.train.sizes == (SIZE,) * 3


def test_a_set_without_splits_is_carved(opened: Callable[..., Any]) -> None:
    splits = opened(splits=("default",))
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [1, 1, 1]
    assert splits.notes[0] == "train: taken from default.json"
    with pytest.raises(DataError, match="has '..'; only files under"):
        opened(train="../train")


def test_a_split_that_is_not_there(opened: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"annotations/training\.json: does not exist, so there is nothing to train on"):
        opened(train="training")


BAD_ANNOTATIONS = [
    (7, "annotation number 0 in the list is 7; it takes a mapping"),
    (annotation(4, "sphere"), r"item train0: annotation 4 has the type 'sphere'"),
    (annotation(4, "mask", 2, rle={}), "annotation 4 has the label 2; 2 labels are listed"),
    (annotation(4, "mask", group=-1), "annotation 4 has the group -1"),
    (annotation(4, "mask") | {"attributes": [1]}, r"annotation 4 has the attributes \[1\]"),
    (annotation(4, "mask"), "annotation 4 has no segmentation"),
    (annotation(4, "mask", rle={"size": [30, 20], "counts": "00"}), r"has an RLE of size \[30, 20\]"),
    (annotation(4, "polygon", points=[1, 2, 3, 4]), "has a polygon of 4 numbers"),
    (annotation(4, "ellipse", points=[1, 2, 3]), r"has an ellipse in \[1, 2, 3\]"),
    (annotation(4, "ellipse", points=[1, 2, float("nan"), 3]), "has an ellipse in"),
    (annotation(4, "bbox", bbox=[float("nan")] * 4), "has the box"),
    (
        annotation(4, "mask", rle={"size": [20, 30], "counts": [0] * 10_000}),
        "has an RLE of 10000 values for 600 pixels",
    ),
    (annotation(4, "polygon", points=[-30, 0, 60, 9] * 15_000), "has outlines of more than 2000000 pixels"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_ANNOTATIONS)
def test_bad_annotations_stop_or_are_skipped(opened: Callable[..., Any], bad: Any, message: str) -> None:
    edit = with_annotations(bad, annotation(9, "mask", rle=rle(square(1, 1))))
    with pytest.raises(DataError, match=message):
        opened(edit)
    splits = opened(on_error="skip", max_skipped=0.5)
    assert splits.train[0].object_ids == ("9",)
    assert len(splits.skipped) == 1


def test_a_group_with_a_bad_part_is_skipped_as_a_whole(opened: Callable[..., Any]) -> None:
    edit = with_annotations(
        annotation(4, "mask", 0, 7, rle=rle(square(12, 2))),
        annotation(5, "polygon", 0, 7, points=[1, 2]),
        annotation(9, "mask", rle=rle(square(1, 1))),
    )
    assert opened(edit, on_error="skip", max_skipped=0.5).train[0].object_ids == ("9",)


TURNED = annotation(4, "mask", rle=rle(square(1, 1).T))
BAD_ITEMS = [
    ({"id": None}, r'train\.json: item number 0 in the list has no "id"'),
    ({"id": "train1"}, r"item train1 is listed twice"),
    ({"image": {"path": "train1.png", "size": [20, 30]}}, "train1.png is the image of another item too"),
    ({"image": None}, "item train0 has no image; only items with an image are read"),
    ({"image": {"path": 3}}, "item train0 has the image 3"),
    ({"image": {"path": "/etc/passwd"}}, "item train0: the path '/etc/passwd' is absolute"),
    ({"image": {"path": "train0.png", "size": [20]}}, r"item train0 has the size \[20\]"),
    ({"image": {"path": "train0.png", "size": [20, 10**9]}}, "item train0 has the size"),
    ({"image": {"path": "train0.png", "size": [30, 20]}, "annotations": [TURNED]},
     r"train0\.png: is 30x20 pixels .* according to train\.json. Was it labelled without"),
    ({"image": {"path": "absent.png", "size": [20, 30]}}, r"absent\.png: does not exist"),
    ({"annotations": 5}, "item train0 has the annotations 5; it takes a list"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD_ITEMS)
def test_bad_items_stop_or_are_skipped(opened: Callable[..., Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(lambda content: first(content).update(change))
    splits = opened(on_error="skip", max_skipped=0.5)
    assert len(splits.train) == 2
    assert len(splits.skipped) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": {}}, 'has no list "items"; it must be Datumaro\'s JSON'),
        ({"categories": []}, 'has no mapping "categories"'),
        ({"categories": {"label": 3}}, "has the labels None"),
        ({"categories": {"label": {"labels": [3]}}}, "has a label with the name None"),
        ({"categories": {"label": {"labels": [{"name": "a"}, {"name": "a"}]}}}, "the label 'a' is listed twice"),
    ],
)
def test_bad_files_stop(opened: Callable[..., Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(lambda content: content.update(change), on_error="skip")


def test_many_points_on_a_short_outline_are_drawn(opened: Callable[..., Any]) -> None:
    points = [0, 0, 30, 0, *[30, 20] * 60_000, *[0, 20] * 30_000]
    sample = opened(with_annotations(annotation(4, "polygon", points=points))).train[0]
    assert sample.masks[0].all()


def test_a_key_that_is_there_twice_stops(opened: Callable[..., Any], tmp_path: Path) -> None:
    file = write(tmp_path / "set") / "annotations/train.json"
    file.write_text(file.read_text().replace('"infos"', '"items": [], "infos"'))
    with pytest.raises(DataError, match=r"train\.json: is not valid JSON \(the key .items. is there twice"):
        opened()


def test_truncated_images_are_found_by_a_full_check(opened: Callable[..., Any], tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    file = root / "images/train/train1.png"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"train1\.png: truncated or damaged"):
        opened()
    assert len(opened(check="header").train) == 3


def test_what_datumaro_exports_and_reads(option: Callable[..., Any], tmp_path: Path) -> None:
    """Masks equal those of the package itself, pixel for pixel, on what it wrote."""
    datumaro = pytest.importorskip("datumaro", reason="the package datumaro is not installed")
    rng = np.random.default_rng(3)
    items = []
    for split in ("train", "val", "test"):
        for index in range(3):
            annotations = [datumaro.Mask(rng.random((40, 50)) < 0.3, label=0, id=1)]
            for number in range(2, 8):
                corners = rng.integers(0, 200, (5, 2)) / [4, 5]  # quarters: exact in float32, which datumaro stores
                points = np.round(corners * 4).ravel() / 4
                annotations.append(datumaro.Polygon(points.tolist(), label=1, id=number, group=number // 3))
            annotations.append(datumaro.Ellipse(3.25, 4.5, 30.75, 21, label=1, id=8))
            picture = datumaro.components.media.Image.from_numpy(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
            items.append(datumaro.DatasetItem(f"{split}/{index}", subset=split, media=picture, annotations=annotations))
    datumaro.Dataset.from_iterable(items, categories=["a", "b"]).export(
        str(tmp_path / "set"), "datumaro", save_media=True
    )
    splits = option("data/datumaro", root=str(tmp_path / "set")).open(0)
    reread = datumaro.Dataset.import_from(str(tmp_path / "set"), "datumaro")
    for split in ("train", "val", "test"):
        source = getattr(splits, split)
        for position in range(3):
            sample = source[position]
            item = next(entry for entry in reread if sample.id.endswith(f"/{entry.id.replace('/', '_')}.jpg"))
            np.testing.assert_array_equal(sample.masks, rasterised(item, (40, 50)))
            assert sample.classes == ("a", *["b"] * (len(sample.masks) - 1))


def rasterised(item: Any, size: tuple[int, int]) -> np.ndarray:
    """Masks of an item of datumaro by its own transform, those of a group united."""
    from datumaro.plugins.transforms import PolygonsToMasks

    groups: dict[Any, np.ndarray] = {}
    for position, entry in enumerate(item.annotations):
        mask = entry if entry.type.name == "mask" else PolygonsToMasks.convert_polygon(entry, *size)
        key = ("group", entry.group) if entry.group else position
        groups[key] = groups.get(key, np.zeros(size, bool)) | mask.image.astype(bool)
    return np.stack(list(groups.values()))
