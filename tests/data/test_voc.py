from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading import annotation_files, voc_xml
from lora_sam.data.reading.class_table import VOC_CLASSES, voc_colour, voc_table
from lora_sam.data.reading.voc_masks import segmented_objects
from lora_sam.data.reading.voc_xml import declared_size
from lora_sam.data.splits import class_counts
from lora_sam.data.voc import Voc

CONF = Path(__file__).parents[2] / "conf" / "data" / "voc.yaml"
LISTS = "ImageSets/Segmentation"


def voc(root: Path, **changes: Any) -> Voc:
    values = yaml.safe_load(CONF.read_text())
    values.pop("_target_")
    return Voc(**{**values, "root": str(root), **changes})


def save(path: Path, values: np.ndarray, *, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([part for index in range(256) for part in voc_colour(index)])
    image.save(path)


def xml(height: int = 20, width: int = 30) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>a.jpg</filename>{size}<object><name>cat</name></object></annotation>"


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Two images in each split, of 20 x 30 pixels: a dog in two parts, a cat inside a void frame, and a second cat."""
    root = tmp_path / "VOC2012"
    (root / LISTS).mkdir(parents=True)
    (root / "Annotations").mkdir()
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{split}{index}" for index in range(2)]
        (root / LISTS / f"{split}.txt").write_text("\n".join(names) + "\n\n")
        for index, name in enumerate(names):
            draws = np.random.default_rng((number, index))
            (root / "JPEGImages").mkdir(exist_ok=True)
            pixels = draws.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
            objects, classes = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
            objects[2:6, 2:6] = objects[2:6, 8:12] = 1
            classes[2:6, 2:6] = classes[2:6, 8:12] = VOC_CLASSES.index("dog")
            objects[9:19, 1:11] = classes[9:19, 1:11] = 255
            objects[10:18, 2:10], classes[10:18, 2:10] = 2, VOC_CLASSES.index("cat")
            objects[10:18, 20:28], classes[10:18, 20:28] = 3, VOC_CLASSES.index("cat")
            classes[10:12, 20:28] = VOC_CLASSES.index("dog")  # a quarter of it: the other class has more
            save(root / "SegmentationObject" / f"{name}.png", objects)
            save(root / "SegmentationClass" / f"{name}.png", classes)
            (root / "Annotations" / f"{name}.xml").write_text(xml())
    return root


@pytest.mark.parametrize(("instances", "small"), [("objects", False), ("classes", False), ("objects", True)])
def test_void_and_small_objects_are_neither_object_nor_background(devkit: Path, instances: str, small: bool) -> None:
    sample = voc(devkit, instances=instances, min_area=40 if small else 1).open(0).train[0]
    void = np.zeros((20, 30), np.bool_)
    void[9:19, 1:11] = True
    void[10:18, 2:10] = False
    if small:  # the dog has 32 pixels, each cat 64
        void[2:6, 2:6] = void[2:6, 8:12] = True
    np.testing.assert_array_equal(sample.ignored, void)


def test_the_palette_is_that_of_the_devkit() -> None:
    # VOClabelcolormap: aeroplane, bicycle, person, tvmonitor, void
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {index: voc_colour(index) for index in expected} == expected
    assert len({voc_colour(index) for index in range(256)}) == 256
    assert len(VOC_CLASSES) == 21
    assert len(voc_table().names) == 20


def test_objects_have_the_class_of_most_of_their_pixels(devkit: Path) -> None:
    splits = voc(devkit).open(0)
    assert splits.skipped == splits.notes == ()
    assert splits.train.ids == ("JPEGImages/train0.jpg", "JPEGImages/train1.jpg")
    assert splits.val.ids == ("JPEGImages/val0.jpg", "JPEGImages/val1.jpg")
    assert splits.test.sizes == ((20, 30), (20, 30))
    sample = splits.train[1]
    assert sample.object_ids == ("1", "2", "3")
    assert sample.classes == ("dog", "cat", "cat")
    assert sample.masks.sum(axis=(1, 2)).tolist() == [32, 64, 64]
    assert sample.masks[1, 10:18, 2:10].all()
    assert class_counts(splits.train) == {"cat": 4, "dog": 2}


def test_classes_and_components_need_no_objects(devkit: Path) -> None:
    sample = voc(devkit, instances="classes").open(0).train[0]
    assert (sample.object_ids, sample.classes) == (("cat", "dog"), ("cat", "dog"))
    assert sample.masks.sum(axis=(1, 2)).tolist() == [64 + 48, 32 + 16]
    sample = voc(devkit, instances="components", min_area=17).open(0).train[0]
    assert (sample.object_ids, sample.classes) == (("cat.1", "cat.2"), ("cat", "cat"))
    for path in (devkit / "SegmentationObject").iterdir():
        path.unlink()
    (devkit / "SegmentationObject").rmdir()
    assert voc(devkit).open(0).train[0].object_ids == ("cat", "dog")
    with pytest.raises(DataError, match=r"SegmentationObject: is not a folder.*another data\.instances than objects"):
        voc(devkit, instances="objects").open(0)


def test_small_objects_are_left_out_with_their_classes(devkit: Path) -> None:
    splits = voc(devkit, min_area=40).open(0)
    assert splits.train[0].object_ids == ("2", "3")
    assert splits.train[0].classes == ("cat", "cat")
    assert splits.notes[0] == "train: 2 objects smaller than data.min_area=40 pixels were left out"


def test_objects_without_class_masks_have_no_class(devkit: Path) -> None:
    for path in (devkit / "SegmentationClass").iterdir():
        path.unlink()
    (devkit / "SegmentationClass").rmdir()
    splits = voc(devkit).open(0)
    assert splits.train[0].classes == ()
    assert class_counts(splits.train) == {}


def test_colour_masks_and_a_map_of_labels(devkit: Path) -> None:
    for name in ("SegmentationClass", "SegmentationObject"):
        for path in (devkit / name).iterdir():
            Image.open(path).convert("RGB").save(path)
    assert voc(devkit).open(0).train[0].classes == ("dog", "cat", "cat")
    assert voc(devkit).open(0).train[0].object_ids == ("1", "2", "3")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nvehicle:64,0,0:wheel:\ndog of mine:64,0,128::bark\n"
    (devkit / "labelmap.txt").write_text(lines, encoding="utf-8-sig")
    assert voc(devkit).open(0).train[0].classes == ("dog of mine", "vehicle", "vehicle")


def test_object_colours_outside_of_the_palette_are_objects(tmp_path: Path) -> None:
    values = np.zeros((4, 9, 3), np.uint8)
    values[:2, :2], values[:2, 4:6], values[3] = (1, 2, 3), (0, 128, 0), (224, 224, 192)
    values[:2, 7:] = (128, 0, 0)
    save(tmp_path / "m.png", values, palette=False)
    found = segmented_objects(tmp_path / "m.png", (4, 9))
    assert found.names == ("1", "2", "#010203")
    assert found.labels[0].tolist() == [3, 3, 0, 0, 2, 2, 0, 1, 1]
    assert not found.labels[3].any()


def test_lists_may_quote_lack_or_have_another_name(devkit: Path) -> None:
    (devkit / LISTS / "train.txt").write_text('"train1"\n# train0\n')
    assert voc(devkit).open(0).train.ids == ("JPEGImages/train1.jpg",)
    for name in ("train", "val"):
        (devkit / LISTS / f"{name}.txt").unlink()
    (devkit / LISTS / "test.txt").rename(devkit / LISTS / "default.txt")
    (devkit / LISTS / "default.txt").write_text(
        "\n".join(f"{split}{index}" for split in ("train", "val", "test") for index in (0, 1))
    )
    splits = voc(devkit, few_images=0).open(0)
    assert splits.notes[0] == "train: taken from default.txt"
    assert [len(splits.train), len(splits.val), len(splits.test)] == [4, 1, 1]
    (devkit / LISTS / "default.txt").unlink()
    splits = voc(devkit, few_images=0).open(0)
    assert splits.notes[0].endswith("so all images with a mask in SegmentationObject are used")
    assert [len(splits.train), len(splits.val), len(splits.test)] == [4, 1, 1]
    for name in ("val", "a"):
        (devkit / LISTS / f"{name}.txt").write_text("val0\n")
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/training_set\.txt: does not exist"):
        voc(devkit, train="training_set").open(0)


def test_images_without_an_object_are_counted(devkit: Path) -> None:
    save(devkit / "SegmentationObject/train0.png", np.full((20, 30), 255, np.uint8))
    splits = voc(devkit).open(0)
    assert splits.train.ids == ("JPEGImages/train1.jpg",)
    assert splits.notes == ("train: 1 images without an object were left out",)


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "x"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]><a>&y;</a>'
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "lol">'
    + "".join(f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 12))
    + "]><annotation>&a11;</annotation>"
)
STEALS = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content.encode() if isinstance(content, str) else content)  # type: ignore[return-value]


def masks(name: str, values: Any, *, palette: bool = True) -> Callable[[Path], None]:
    return lambda root: save(root / name, np.array(values, np.uint8), palette=palette)


def listed(text: str) -> Callable[[Path], None]:
    return write(f"{LISTS}/train.txt", text)


def linked_out(root: Path) -> None:
    os.replace(root / "SegmentationObject/train1.png", root.parent / "secret.png")
    (root / "SegmentationObject/train1.png").symlink_to(root.parent / "secret.png")


def looped(root: Path) -> None:
    (root / "SegmentationObject/train1.png").unlink()
    (root / "SegmentationObject/train1.png").symlink_to(root / "SegmentationObject/train1.png")


def without_class(root: Path) -> None:
    save(root / "SegmentationClass/train1.png", np.zeros((20, 30), np.uint8))


BAD: list[tuple[Callable[[Path], None], str]] = [
    (
        listed("train0\n../../etc/passwd\n"),
        r"Segmentation/train\.txt: the path '\.\./\.\./etc/passwd\.jpg' has '\.\.'; only",
    ),
    (listed("train0\n/etc/passwd\n"), r"train\.txt: the path '/etc/passwd\.jpg' is absolute"),
    (listed("train0\na\0b\n"), r"train\.txt: the path 'a\\x00b\.jpg' is empty or has a NUL"),
    (listed("train0\n" + "a" * 3000), r"train\.txt: the path 'aaa"),
    (listed("train0\ntrain1\ntrain0\n"), r"Segmentation/train\.txt: 'train0' is listed twice; remove one"),
    (listed("train0\nnobody\n"), r"JPEGImages/nobody\.jpg: does not exist; restore it, or remove it from .*train\.txt"),
    (linked_out, r"train1\.png' leads out of the data root through a symbolic link"),
    (looped, r"train1\.png' cannot be used|train1\.png; add it|train1\.png' leads out"),
    (write("Annotations/train1.xml", BOMB), r"train1\.xml: declares a document type or entities .*; remove them"),
    (write("Annotations/train1.xml", LAUGHS), r"train1\.xml: declares a document type or entities"),
    (write("Annotations/train1.xml", STEALS), r"train1\.xml: declares a document type or entities"),
    (
        write("Annotations/train1.xml", ""),
        r"train1\.xml: is not valid XML \(no element found.*; export the annotation again",
    ),
    (write("Annotations/train1.xml", b"<annotation>\xff</annotation>"), r"train1\.xml: is not valid XML"),
    (
        write("Annotations/train1.xml", b'<?xml version="1.0" encoding="klingon"?><a/>'),
        r"train1\.xml: is not valid XML",
    ),
    (write("Annotations/train1.xml", "<a>" * 10_000), r"train1\.xml: is not valid XML"),
    (write("Annotations/train1.xml", " " * 2**20 + xml()), r"train1\.xml: is larger than 1 MiB"),
    (
        write("Annotations/train1.xml", xml(30, 20)),
        r"train1\.jpg: is 30x20 pixels .*, but 20x30 according to train1\.xml",
    ),
    (write("Annotations/train1.xml", xml(-1, 20)), r"train1\.xml: states the size '20' x '-1'; it takes whole numbers"),
    (write("SegmentationObject/train1.png", ""), r"SegmentationObject/train1\.png: is damaged or not an image"),
    (write("JPEGImages/train1.jpg", b"\xff\xd8\xff"), r"JPEGImages/train1\.jpg: (truncated or damaged|is damaged)"),
    (
        lambda root: (root / "SegmentationObject/train1.png").unlink(),
        r"train1\.jpg: has no mask .*SegmentationObject/train1\.png; add it",
    ),
    (
        lambda root: (root / "SegmentationClass/train1.png").unlink(),
        r"train1\.jpg: has no classes .*SegmentationClass/train1\.png; add",
    ),
    (
        masks("SegmentationObject/train1.png", [[1, 0]] * 4),
        r"SegmentationObject/train1\.png: is 2x4 pixels .* 30x20 in its image",
    ),
    (masks("SegmentationClass/train1.png", [[1, 0]] * 4), r"SegmentationClass/train1\.png: is 2x4 pixels"),
    (
        masks("SegmentationClass/train1.png", np.full((20, 30), 77)),
        r"has values that Pascal VOC's palette does not list: 77; add",
    ),
    (
        masks("SegmentationClass/train1.png", np.full((20, 30, 3), 77), palette=False),
        r"has colours that .* does not list: \(77, 77, 77\)",
    ),
    (without_class, r"SegmentationClass/train1\.png: has no class for object 1 of .*SegmentationObject/train1\.png"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_bad_input_is_named_with_its_remedy(devkit: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(devkit)
    with pytest.raises(DataError, match=message) as raised:
        voc(devkit).open(0)
    assert "\n" not in str(raised.value)
    splits = voc(devkit, on_error="skip", max_skipped=0.9).open(0)
    assert any(re.search(message, line) for line in splits.skipped)
    assert "JPEGImages/val0.jpg" in splits.val.ids


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (f"{LISTS}/train.txt", b"train0\n\xff\xfe", r"train\.txt: is not UTF-8 text \(byte 7\); save it as UTF-8"),
        (f"{LISTS}/train.txt", b"", r"train\.txt: the split 'train' is empty"),
        ("labelmap.txt", b"cat:1,2:\n", r"labelmap\.txt: line 1 is 'cat:1,2:'; it takes"),
        ("labelmap.txt", b"cat:1,2,300::\n", r"labelmap\.txt: line 1"),
        ("labelmap.txt", b"just a name\n", r"labelmap\.txt: line 1"),
        ("labelmap.txt", b"background:0,0,0::\n", r"labelmap\.txt: lists no class beside the background"),
        ("labelmap.txt", b"a:1,1,1::\na:2,2,2::\n", r"labelmap\.txt: the class 'a' is listed twice"),
        ("labelmap.txt", b"a:1,1,1::\nb:1,1,1::\n", r"labelmap\.txt: 'b' has the colour \(1, 1, 1\) of another class"),
    ],
)
def test_files_that_concern_all_images(devkit: Path, name: str, content: bytes, message: str) -> None:
    (devkit / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        voc(devkit, on_error="skip").open(0)


def test_places_that_are_not_there(devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"JPEGImages: is not a folder, but .*; set data\.root=.*VOC2012"):
        voc(tmp_path).open(0)
    with pytest.raises(DataError, match=r"data\.root must be the directory that has it"):
        voc(devkit / "ImageSets").open(0)
    monkeypatch.setattr(annotation_files, "MAX_TEXT_BYTES", 3)
    with pytest.raises(DataError, match=r"train\.txt: is larger than 0 MiB; is it the right file\?"):
        voc(devkit).open(0)
    (devkit / LISTS / "train.txt").unlink()
    (devkit / LISTS / "train.txt").mkdir()
    with pytest.raises(DataError, match=r"train\.txt: is not a regular file"):
        voc(devkit).open(0)
    (devkit / "Annotations/x.xml").mkdir()
    with pytest.raises(DataError, match=r"x\.xml: is not a regular file"):
        declared_size(devkit / "Annotations/x.xml")


def test_jpeg_masks_are_refused(devkit: Path) -> None:
    path = devkit / "SegmentationObject/train0.png"
    Image.open(path).convert("L").save(path, format="JPEG")
    with pytest.raises(DataError, match=r"train0\.png: JPEG blurs the indices of objects; save masks as PNG"):
        voc(devkit).open(0)
    with pytest.raises(DataError, match="JPEG blurs the colours of classes"):
        voc_table().read(path, (20, 30))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("<annotation/>", None),
        ("<annotation><size/></annotation>", None),
        (xml(0, 0), None),
        (xml(7, 9), (7, 9)),
        ("<annotation><size><width> 9\n</width><height>7</height></size></annotation>", (7, 9)),
    ],
)
def test_sizes_are_read_from_annotations(tmp_path: Path, text: str, size: tuple[int, int] | None) -> None:
    (tmp_path / "a.xml").write_text(text)
    assert declared_size(tmp_path / "a.xml") == size


def test_annotations_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xml").write_text(xml())

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"a\.xml: cannot be read \(Permission denied\); check its permissions"):
        voc_xml.declared_size(tmp_path / "a.xml")
