from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading import annotation_files, labelled
from lora_sam.data.reading.annotation_files import first_file_name, json_kind
from lora_sam.data.splits import class_counts

Make = Callable[..., Any]


def test_samples_have_image_masks_and_names(coco: Make, coco_set: Make) -> None:
    root = coco_set()
    splits = coco(root).open(0)
    assert splits.train.ids == ("images/train/train0.png", "images/train/train1.png", "images/train/train2.png")
    assert splits.val.ids[0] == "images/val/val0.png"
    assert splits.test.sizes == ((20, 30),) * 3
    assert splits.train.object_counts == (2, 2, 2)
    assert splits.skipped == splits.notes == ()
    sample = splits.train[1]
    assert sample.object_ids == ("10", "11")
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(root / sample.id)))
    expected = np.zeros((20, 30), bool)
    expected[4:14, 15:23] = True
    np.testing.assert_array_equal(sample.masks[1], expected)


def test_crowds_small_objects_and_unlabelled_images_are_left_out_and_noted(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["segmentation"] = {"size": [20, 30], "counts": [100, 3, 497]}
        content["images"].append({"id": "extra", "file_name": "is not there.png", "height": 5, "width": 5})

    splits = coco(coco_set(edit=edit), min_area=4).open(0)
    assert splits.train.ids == ("images/train/train1.png", "images/train/train2.png")
    assert splits.notes == (
        "train: 1 crowd annotations (iscrowd) are not objects; data.crowd=objects takes them for some",
        "train: 1 objects smaller than data.min_area=4 pixels were left out",
        "train: 2 images without an object were left out",
    )
    assert splits.skipped == ()


def test_crowds_and_small_objects_are_neither_object_nor_background(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        crowd = {"size": [20, 30], "counts": [0, 40, 560]}  # the first two columns
        small = {"size": [20, 30], "counts": [100, 3, 497]}
        content["annotations"][0].update(iscrowd=1, segmentation=crowd)
        content["annotations"][2].update(segmentation=small)

    source = coco(coco_set(edit=edit), min_area=4).open(0).train
    expected = np.zeros((20, 30), np.bool_)
    expected[:, :2] = True
    np.testing.assert_array_equal(source[0].ignored, expected)
    np.testing.assert_array_equal(source.labels(0).ignored, expected)
    expected = np.zeros((20, 30), np.bool_)
    expected[0:3, 5] = True
    np.testing.assert_array_equal(source[1].ignored, expected)
    assert source[2].ignored is None


def test_ids_may_be_text_or_numbers(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        content["images"][0]["id"] = "0"
        content["annotations"][0]["id"] = "first"
        content["images"][1]["width"] = 30.0
        del content["annotations"][1]["bbox"]

    assert coco(coco_set(edit=edit)).open(0).train[0].object_ids == ("first", "1")


def test_what_tools_write_is_tolerated_and_counted(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        names = ["..\\..\\media\\train0.png", "https://host/x/train1.png?a=b", "C:\\me\\TRAIN2.PNG"]
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
            image["id"] = float(image["id"])
        for place, annotation in enumerate(content["annotations"]):
            polygon = annotation["segmentation"][0]
            forms = [polygon, [[polygon]], [polygon[at : at + 2] for at in range(0, 8, 2)], [[polygon[:2], polygon[2:4],
                     polygon[4:6], polygon[6:]]]]  # fmt: skip
            annotation["segmentation"] = forms[place % 4]
            annotation["id"] = float(place % 2)  # restarts in every image
            if place == 5:
                del annotation["id"]

    found = coco(coco_set(edit=edit)).open(0)
    for index in range(3):
        sample = found.train[index]
        assert sample.id == f"images/train/train{index}.png"
        for part, mask in enumerate(sample.masks):
            expected = np.zeros((20, 30), bool)
            expected[4:14, 3 + 12 * part : 11 + 12 * part] = True
            assert (mask == expected).all()
    assert found.train[2].object_ids == ("0", "#6")
    notes = "\n".join(found.notes)
    assert "train: 3 images were found by their name alone: instances_train.json has other paths" in notes
    assert "train: 3 annotations have ids that another image has too" in notes
    assert "train: 1 annotations have no id; they are named by their place in the file" in notes


def an(key: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    return lambda content, root: content["annotations"][3].update({key: value})


def im(key: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    return lambda content, root: content["images"][1].update({key: value})


def without(kind: str, key: str) -> Callable[[dict[str, Any], Path], None]:
    return lambda content, root: content[kind][1].pop(key)


def truncated(content: dict[str, Any], root: Path) -> None:
    path = root / "images/train/train1.png"
    path.write_bytes(path.read_bytes()[:400])


def linked_out(content: dict[str, Any], root: Path) -> None:
    secret = root.parent / "secret.png"
    os.replace(root / "images/train/train1.png", secret)
    (root / "images/train/train1.png").symlink_to(secret)


def listed_twice(content: dict[str, Any], root: Path) -> None:
    content["images"][1]["file_name"] = "train0.png"


BAD = [
    (lambda content, root: (root / "images/train/train1.png").unlink(), r"images/train/train1\.png: does not exist;"),
    (truncated, r"images/train/train1\.png: truncated or damaged .* copy it again from its source, or leave it out"),
    (im("file_name", "/etc/passwd"), r"instances_train\.json: image 1: the path '/etc/passwd' is absolute; only files"),
    (im("file_name", "C:\\a.png"), "is absolute"),
    (im("file_name", "../val/val0.png"), r"image 1: the path '\.\./val/val0\.png' has '\.\.'; only files under"),
    (im("file_name", "../other/gone.png"), r"image 1: the path '\.\./other/gone\.png' has '\.\.'; only files under"),
    (im("file_name", "val0.png"), r"images/train/val0\.png: does not exist"),  # the other split's is not meant
    (im("file_name", "a\0.png"), r"image 1: the path 'a\\x00\.png' is empty or has a NUL"),
    (im("file_name", "a" * 5000), "image 1: the path 'aaa.*… cannot be used .File name too long"),
    (linked_out, r"image 1: the path 'train1\.png' leads out of the data root through a symbolic link"),
    (without("images", "file_name"), 'image 1 has no "file_name"'),
    (without("images", "id"), 'image number 1 in the list has no "id"'),
    (without("images", "width"), "image 1 has width None, height 20; it takes whole numbers"),
    (im("height", 0), "image 1 has width 30, height 0"),
    (im("height", 10**9), "at most 64000000 in all"),
    (im("height", 21), r"train1\.png: is 30x20 pixels \(width x height\), but 30x21 according to instances_train"),
    (listed_twice, "image 1: images/train/train0.png is listed under another id too"),
    (im("id", 0), "image 0 is listed twice"),
    (an("image_id", 99), r"annotation 11 belongs to image 99, which is not listed; add the image or remove it"),
    (an("image_id", None), "annotation 11 belongs to image None"),
    (an("id", 10), "annotation 10 is listed twice for one image"),
    (an("id", True), 'annotation number 3 in the list has no "id"'),
    (an("bbox", [15, 4, 17, 10]), r"annotation 11 has a box outside the image: \[15, 4, 17, 10\].* in 30x20 pixels"),
    (an("bbox", [-2, 4, 8, 10]), "annotation 11 has a box outside the image"),
    (an("bbox", [15, float("nan"), 8, 10]), r"annotation 11 has the box \[15, nan, 8, 10\]; it takes four finite"),
    (an("bbox", [15, 4, 8]), "annotation 11 has the box"),
    (an("bbox", [15, 4, -8, 10]), "annotation 11 has the box"),
    (an("segmentation", {"size": [20, 30], "counts": [600]}), r"annotation 11 \(image images/train/.* empty mask"),
    (an("segmentation", {"size": [30, 20], "counts": [100, 500]}), r"annotation 11 .* has an RLE of size \[30, 20\]"),
    (an("segmentation", {"size": [20, 30], "counts": "zzz"}), "annotation 11 .* damaged compressed RLE"),
    (lambda content, root: content["annotations"].append(5), 'annotation number 6 in the list has no "id"'),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_bad_input_is_named_with_its_remedy(coco: Make, coco_set: Make, edit: Any, message: str) -> None:
    root = coco_set(edit=edit)
    with pytest.raises(DataError, match=message) as raised:
        coco(root).open(0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_bad_input_can_be_skipped_and_is_listed(coco: Make, coco_set: Make, edit: Any, message: str) -> None:
    splits = coco(coco_set(edit=edit), on_error="skip", max_skipped=0.9).open(0)
    assert any(re.search(message, line) for line in splits.skipped)
    assert 1 <= len(splits.skipped) <= 5
    assert set(splits.train.ids) <= {f"images/train/train{index}.png" for index in range(3)}
    assert all(len(splits.train[index].masks) for index in range(len(splits.train)))


def test_errors_come_in_the_order_of_the_file(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        for number in (2, 1):
            (root / f"images/train/train{number}.png").write_bytes(b"")

    root = coco_set(edit=edit)
    for _ in range(3):
        with pytest.raises(DataError, match=r"train1\.png"):
            coco(root).open(0)


def test_more_than_one_percent_skipped_stops(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        for annotation in content["annotations"][:3]:
            annotation["segmentation"] = []

    root = coco_set(count=34, edit=edit)  # 3 of 204 objects are 1.5 %
    with pytest.raises(
        DataError, match=r"3 of 204 objects \(1\.5%\) would be skipped; data\.max_skipped allows 1\.0%"
    ) as e:
        coco(root, on_error="skip").open(0)
    assert "annotation 0 (image images/train/train0.png) has an empty segmentation" in str(e.value)
    assert len(coco(root, on_error="skip", max_skipped=0.015).open(0).skipped) == 3


def test_a_skipped_image_counts_with_its_objects(coco: Make, coco_set: Make) -> None:
    root = coco_set(count=3)
    (root / "images/train/train0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 9 images \(11\.1%\)"):
        coco(root, on_error="skip").open(0)
    splits = coco(root, on_error="skip", max_skipped=0.2).open(0)
    assert len(splits.train) == 2
    assert len(splits.skipped) == 1


def test_header_check_leaves_truncated_pixels_to_training(coco: Make, coco_set: Make) -> None:
    splits = coco(coco_set(edit=truncated), check="header").open(0)
    with pytest.raises(DataError, match=r"train1\.png: truncated"):
        splits.train[1]


def test_files_that_change_after_opening_are_noticed(coco: Make, coco_set: Make) -> None:
    root = coco_set()
    train = coco(root).open(0).train
    Image.new("RGB", (9, 9)).save(root / "images/train/train0.png")
    with pytest.raises(DataError, match=r"train0\.png: is 9x9 pixels .* but 30x20 when the data was opened"):
        train[0]


def test_links_inside_the_root_are_followed(coco: Make, coco_set: Make) -> None:
    root = coco_set()
    (root / "all").mkdir()
    os.replace(root / "images/train/train0.png", root / "all/x.png")
    (root / "images/train/train0.png").symlink_to(root / "all/x.png")
    assert coco(root).open(0).train[0].image.shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"instances_train\.json: is not valid JSON \(Expecting property name"),
        ("[" * 100_000, "is not valid JSON"),
        ("\xff", "is not valid JSON"),
        ("[]", 'has no list "images"; it must be COCO instances'),
        ('{"images": []}', 'has no list "annotations"'),
        ('{"images": 3, "annotations": []}', 'has no list "images"'),
        ('{"images": [], "annotations": []}', r"instances_train\.json: the split 'train' is empty"),
    ],
)
def test_annotation_files_that_cannot_be_used(coco: Make, coco_set: Make, content: str, message: str) -> None:
    root = coco_set()
    (root / "annotations/instances_train.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        coco(root, on_error="skip").open(0)


def test_places_that_are_not_there(coco: Make, coco_set: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: .*/nowhere does not exist; set data\.root=<directory"):
        coco(tmp_path / "nowhere").open(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a directory"):
        coco(tmp_path / "file").open(0)
    root = coco_set()
    with pytest.raises(DataError, match=r"instances_training\.json: does not exist, so there is nothing to train on"):
        coco(root, train="training").open(0)
    with pytest.raises(DataError, match=r"data\.annotations: the path '\.\./.*' has '\.\.'"):
        coco(root, annotations="../{split}.json").open(0)
    with pytest.raises(DataError, match="photos/train: the images of instances_train.json are not there"):
        coco(root, images="photos/{split}").open(0)
    (root / "annotations/instances_val.json").unlink()
    (root / "annotations/instances_val.json").mkdir()
    with pytest.raises(DataError, match="instances_val.json: is not a regular file"):
        coco(root).open(0)


def test_pictures_turned_by_exif_must_be_labelled_turned(coco: Make, coco_set: Make) -> None:
    root = coco_set()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(root / "images/train/train1.png", exif=exif)
    with pytest.raises(
        DataError, match=r"is 20x30 .* but 30x20 according to .*labelled without its EXIF orientation\?"
    ):
        coco(root).open(0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_pictures_upside_down_are_told(coco: Make, coco_set: Make, kind: str) -> None:
    """Their sides say nothing: labels of the picture as it is stored would lie in the wrong half of it."""
    root = coco_set()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (30, 20)).save(root / "images/train/train1.png", format=kind, exif=exif)
    (note,) = coco(root).open(0).notes
    assert note.startswith(
        "1 of 9 images is turned as EXIF says (e.g. images/train/train1.png): labels have to fit the"
    )


def test_annotations_that_may_not_be_read(coco: Make, coco_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    root = coco_set()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"instances_train\.json: cannot be read \(Permission denied\); check its perm"):
        coco(root).open(0)


def test_limits_hold_before_memory_is_taken(coco: Make, coco_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = coco_set()
    monkeypatch.setattr(labelled, "MAX_MASK_BYTES", 1000)
    with pytest.raises(DataError, match=r"train0\.png: 2 masks of 30x20 pixels need .* Cut the image into tiles"):
        coco(root).open(0)
    monkeypatch.setattr(annotation_files, "MAX_ANNOTATION_BYTES", 10)
    with pytest.raises(DataError, match="is larger than 0 GiB; split the data set"):
        coco(root).open(0)


def test_one_annotation_file_is_carved_into_splits(coco: Make, coco_set: Make) -> None:
    root = coco_set(count=10, splits=("train",))
    one = "annotations/instances_train.json"
    splits = coco(root, annotations=one, images="images/train", few_images=0).open(0)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [8, 1, 1]
    assert len({*splits.train.ids, *splits.val.ids, *splits.test.ids}) == 10


def test_an_image_in_two_splits_is_noted(coco: Make, coco_set: Make) -> None:
    root = coco_set()
    content = json.loads((root / "annotations/instances_val.json").read_text())
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("val", "train")
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    os.rename(root / "images/train", root / "images/all")
    for path in (root / "images/test").iterdir():
        os.replace(path, root / "images/all" / path.name)
    notes = coco(root, images="images/all").open(0).notes
    assert notes == ("3 images are in both train and val (e.g. images/all/train0.png): figures flatter",)


def test_categories_are_the_classes_of_objects(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        content["categories"] = [{"id": 3, "name": "nut"}, {"id": "4", "name": "bolt"}]
        for index, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = (3, 4, "3", 4.5, None, 4)[index]

    splits = coco(coco_set(edit=edit)).open(0)
    assert splits.train.classes == (("nut", "bolt"), ("nut", "category 4.5"), ("category None", "bolt"))
    assert splits.train[0].classes == ("nut", "bolt")
    assert splits.val.classes == ((), (), ())
    assert splits.notes == ("train: 2 objects are of a category that the file does not list",)
    assert class_counts(splits.train) == {"bolt": 2, "nut": 2, "category 4.5": 1, "category None": 1}
    assert class_counts(splits.val) == {}


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({"1": "nut"}, r"\"categories\" is \{'1': 'nut'\}; it takes a list"),
        ([{"id": 1}], "category number 0 in the list has no id or no name"),
        ([{"id": 1, "name": "a"}, {"id": 1.5, "name": "b"}], "category number 1 in the list has no id"),
        ([{"id": 1, "name": "a"}, {"id": "1", "name": "b"}], "category 1 is listed twice, with different names"),
        ([{"id": 1, "name": "\ud800"}], "category number 0 in the list has no id or no name"),
    ],
)
def test_categories_that_cannot_be_used(coco: Make, coco_set: Make, categories: Any, message: str) -> None:
    root = coco_set(edit=lambda content, root: content.update(categories=categories))
    with pytest.raises(DataError, match=message):
        coco(root).open(0)


def test_classes_go_with_their_objects(coco: Make, coco_set: Make) -> None:
    def edit(content: dict[str, Any], root: Path) -> None:
        content["categories"] = [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}]
        for index, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = 1 + index % 2
        content["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": [100, 3, 497]}
        content["annotations"][2]["iscrowd"] = 1

    splits = coco(coco_set(edit=edit), min_area=4).open(0)
    assert splits.train.classes == (("bolt",), ("bolt",), ("nut", "bolt"))


LAYOUTS = [
    ("annotations/instances_{split}2017.json", "{split}2017"),
    ("annotations/instances_{split}.json", "images/{split}2014"),
    ("{split}/_annotations.coco.json", "{split}"),
    ("{split}/labels.json", "{split}/data"),
    ("{split}.json", "images"),
    ("annotations/{split}.json", "."),
]


@pytest.mark.parametrize(("annotations", "images"), LAYOUTS)
def test_the_layouts_of_other_tools_are_found(coco: Make, coco_set: Make, annotations: str, images: str) -> None:
    root = coco_set()
    names = {"train": "train", "val": "valid", "test": "test"}  # as Roboflow calls them
    for split, name in names.items():
        file, folder = root / annotations.replace("{split}", name), root / images.replace("{split}", name)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((root / "images" / split).iterdir()):
            os.replace(path, folder / path.name)
        (root / "images" / split).rmdir()
        file.parent.mkdir(parents=True, exist_ok=True)
        os.replace(root / "annotations" / f"instances_{split}.json", file)
    splits = coco(root).open(0)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [3, 3, 3]
    assert [Path(name).name for name in splits.val.ids] == ["val0.png", "val1.png", "val2.png"]
    usual = ("annotations/instances_{split}.json", "images/{split}")
    assert splits.notes == tuple(
        f"{what} are read from {found}"
        for what, found, place in zip(("annotations", "images"), (annotations, images), usual, strict=True)
        if found != place
    )
    assert coco(root, annotations=annotations, images=images).open(0).notes == ()


def test_a_single_file_of_any_name_is_found(coco: Make, coco_set: Make) -> None:
    root = coco_set(count=10, splits=("train",))
    os.replace(root / "annotations/instances_train.json", root / "export 7.json")
    (root / "package.json").write_text('{"name": "x"}')
    splits = coco(root, few_images=0).open(0)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [8, 1, 1]
    assert splits.notes[:1] == ("annotations are read from export 7.json",)
    (root / "another.json").write_text((root / "export 7.json").read_text())
    with pytest.raises(DataError, match=r"annotations/instances_train\.json: does not exist"):
        coco(root).open(0)
    assert len(coco(root, annotations="another.json").open(0).test) == 1


def test_the_file_of_another_split_is_not_taken_for_all(coco: Make, coco_set: Make) -> None:
    with pytest.raises(DataError, match=r"annotations/instances_train\.json: does not exist"):
        coco(coco_set(splits=("val",))).open(0)


def test_large_files_are_known_by_their_ends(tmp_path: Path) -> None:
    images = [{"id": index, "file_name": f"{index}.png"} for index in range(20_000)]
    annotations = [{"id": index, "image_id": index, "segmentation": [[1.5] * 20]} for index in range(20_000)]
    file = tmp_path / "a.json"
    for content in ({"images": images, "annotations": annotations}, {"annotations": annotations, "images": images}):
        file.write_text(json.dumps(content))
        assert json_kind(file) == "coco"
    assert first_file_name(file) is not None
    items = {"categories": {"label": {}}, "items": [{"id": str(index), "annotations": []} for index in range(30_000)]}
    file.write_text(json.dumps(items))
    assert json_kind(file) == "datumaro"
    for text in ('{"name": 1}', "", '{"images": 7}'):
        file.write_text(text)
        assert json_kind(file) is None
        assert first_file_name(file) is None
    file.write_text('{"images": [{"file_name": "\\x"}]}')
    assert first_file_name(file) is None
    assert json_kind(tmp_path) is None
    assert json_kind(tmp_path / "gone.json") is None


def test_the_garbage_collector_is_switched_on_again(coco: Make, coco_set: Make) -> None:
    root = coco_set()
    assert gc.isenabled()
    coco(root).open(0)
    assert gc.isenabled()
    gc.disable()
    try:
        coco(root).open(0)
        assert not gc.isenabled()
    finally:
        gc.enable()
