"""Layouts of data sets that are published: read, or refused with words that read them when they are typed."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.errors import DataError
from lora_sam.data.splits import Splits

from .test_other_layouts import LABELS, ONE, STEMS, TWO, WHITE, pairs
from .tool_sets import SQUARE, H, W, Write, images, put

Open = Callable[..., Splits]
_WORDS = re.compile(r"(?:type|are COCO:) ((?:(?:'data[^']*'|data[=.]\S+?)(?: |(?=\.? )))+)")


def all_of(*parts: Write) -> Write:
    def write(root: Path) -> None:
        for part in parts:
            part(root)

    return write


def in_splits(pictures: str, labels: str, *splits: str, values: Any = WHITE) -> Write:
    return all_of(*(pairs(pictures.replace("%", one), labels.replace("%", one), values) for one in splits))


def leaves(root: Path) -> None:
    """CVPPP: plant001_rgb, _label, _fg and _centers in one folder."""
    for ending, values in (("label", LABELS), ("fg", WHITE), ("centers", TWO[0] * np.uint8(255))):
        pairs("*_rgb.png", f"*_{ending}.png", values)(root)


def coco(*names: str) -> dict[str, Any]:
    entries = [{"id": k, "file_name": name, "width": W, "height": H} for k, name in enumerate(names)]
    outlines = [
        {"id": k, "image_id": k, "category_id": 1, "segmentation": [np.ravel(SQUARE).tolist()]}
        for k in range(len(names))
    ]
    return {"images": entries, "annotations": outlines, "categories": [{"id": 1, "name": "cell"}]}


def livecell(root: Path) -> None:
    for split, folder in (("train", "train_val"), ("val", "train_val"), ("test", "test")):
        names = [f"{split}_{number}.png" for number in range(2)]
        images(root / f"images/livecell_{folder}_images", tuple(names))
        put(root / f"annotations/LIVECell/livecell_coco_{split}.json", json.dumps(coco(*names)))


def lvis(root: Path) -> None:
    for split in ("train", "val"):
        names = [f"{split}{number}.jpg" for number in range(3)]
        content = coco(*names)
        for image in content["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/{split}2017/{image.pop('file_name')}"
        images(root / f"{split}2017", tuple(names))
        put(root / f"annotations/lvis_v1_{split}.json", json.dumps(content))


def stacks(root: Path, axis: int = 2, edit: Callable[[Any], Any] = lambda masks: masks) -> None:
    """WGISD: an archive of masks and a text of boxes beside each image, and lists of names beside the folder."""
    images(root / "data")
    for stem in STEMS:
        np.savez_compressed(root / f"data/{stem}.npz", edit(np.stack(TWO, axis)))
        put(root / f"data/{stem}.txt", "0 0.5 0.5 0.2 0.2\n")
    for split, names in (("train", STEMS[:3]), ("test", STEMS[3:])):
        put(root / f"{split}_masked.txt", "\n".join(names))
        put(root / f"{split}.txt", "\n".join(STEMS))


def typed(error: str) -> dict[str, str]:
    """The options that a message says to type."""
    found = _WORDS.search(error)
    assert found, error
    words = dict(word.split("=", 1) for word in shlex.split(found[1]))
    return {key.removeprefix("data."): value for key, value in words.items()}


def masks_of(splits: Splits) -> dict[str, list[list[int]]]:
    return {
        role: [sorted(int(mask.sum()) for mask in getattr(splits, role)[place].masks)
               for place in range(len(getattr(splits, role)))]
        for role in ("train", "val", "test")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (pairs("*.jpg", "*.png", WHITE), ONE),
        (pairs("*_rgb.png", "*_label.png"), TWO),
        (leaves, TWO),
        (pairs("train/*_sat.jpg", "train/*_mask.png", np.dstack([WHITE] * 3)), ONE),
        (pairs("*.bmp", "*_anno.bmp"), TWO),
        (pairs("images/*.tif", "masks/*.gif", WHITE), ONE),
        (pairs("images/*.tif", "labels/*.tif", LABELS.astype(np.float32)), TWO),
        (lvis, TWO[:1]),
        (stacks, TWO),
        (lambda root: stacks(root, 0, lambda masks: masks * np.uint8(255)), TWO),
    ],
    ids=[
        "Crack500",
        "rgb and label",
        "CVPPP",
        "DeepGlobe",
        "GlaS",
        "masks as GIF",
        "ImageJ's 32 bits",
        "LVIS",
        "WGISD",
        "WGISD, objects first",
    ],
)
def test_they_are_read(write: Write, expected: Any, tmp_path: Path, opened: Open) -> None:
    write(tmp_path)
    found = masks_of(opened(tmp_path))
    areas = sorted(int(mask.sum()) for mask in expected)
    assert all(one == areas for of_split in found.values() for one in of_split)
    assert sum(map(len, found.values())) >= 4


def test_lists_of_names_are_the_splits_of_stacks(tmp_path: Path, opened: Open) -> None:
    stacks(tmp_path)
    splits = opened(tmp_path / "data", "mask_stack")
    assert len(splits.train) + len(splits.val) == 3
    assert splits.test.ids == (f"{STEMS[3]}.png",)
    put(tmp_path / "test_masked.txt", STEMS[0])
    with pytest.raises(DataError, match=f"test_masked.txt: {STEMS[0]} is in the list of train too"):
        opened(tmp_path / "data", "mask_stack")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(__file__).parent / "evil was here",))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda masks: masks[:-1], "has the shape .*, and its image is"),
        (lambda masks: masks[..., 0], "has the shape .*; masks are .*, objects"),
        (lambda masks: masks * np.arange(1, 3, dtype=np.uint8), "has values other than 0 and 2; each mask takes two"),
        (lambda masks: masks.astype(np.float32), "has float32 values; save masks as bool or uint8"),
        (lambda masks: masks & np.array([True, False]), "mask 1. is empty; take it out of the array"),
        (lambda masks: np.array([Evil()], object), "has object values"),
    ],
)
def test_stacks_that_are_none_are_refused(edit: Callable[[Any], Any], said: str, tmp_path: Path, opened: Open) -> None:
    stacks(tmp_path, edit=edit)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)
    assert not (Path(__file__).parent / "evil was here").exists()


def test_archives_that_are_none_are_refused_before_they_take_memory(tmp_path: Path, opened: Open) -> None:
    stacks(tmp_path)
    file = tmp_path / "data" / f"{STEMS[0]}.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="is damaged or no .npz file"):
        opened(tmp_path)
    np.savez(file, np.stack(TWO, 2), np.stack(TWO, 2))
    with pytest.raises(DataError, match="has 2 arrays; save the masks of its image as one"):
        opened(tmp_path)
    with zipfile.ZipFile(file, "w") as archive:  # says that it is large, and is not
        header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': ({H}, {W}, {10**9})}}".ljust(117) + "\n"
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(DataError, match="1000000000 masks of .* need .* GiB"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("write", "counts"),
    [
        (in_splits("%_img/*.jpg", "%_lab/*.png", "train", "test"), (3, 1, 4)),
        (in_splits("tiff/%/*.tiff", "tiff/%_labels/*.tif", "train", "val", "test"), (4, 4, 4)),
        (pairs("Original/*.tif", "Ground Truth/*.tif", WHITE), (2, 1, 1)),
        (pairs("01/t*.png", "01_GT/SEG/man_seg*.png", names=("000", "001", "002", "003")), (2, 1, 1)),
        (in_splits("%/pictures/*_x.png", "%/manual/*_manual1.gif", "train", "test"), None),
        (pairs("01_x/*_x.png", "truth/*_manual1.gif", WHITE, ("1", "2", "3", "4")), (2, 1, 1)),
        (livecell, (2, 2, 2)),
    ],
    ids=["DeepCrack", "Massachusetts", "CVC-ClinicDB", "Cell Tracking Challenge", "other names", "DRIVE", "LIVECell"],
)
def test_what_is_said_reads_them(
    write: Write, counts: tuple[int, int, int] | None, tmp_path: Path, opened: Open
) -> None:
    write(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    if counts is None:  # names that have nothing in common are not guessed
        assert " type data=" not in str(caught.value)
        return
    found = masks_of(opened(tmp_path, **typed(str(caught.value))))
    assert tuple(map(len, found.values())) == counts
    areas = {tuple(sorted(int(mask.sum()) for mask in masks)) for masks in (ONE, TWO, TWO[:1])}
    assert {tuple(one) for of_split in found.values() for one in of_split} <= areas


def test_folders_of_other_splits_are_not_called_unread(tmp_path: Path, opened: Open) -> None:
    in_splits("%_img/*.jpg", "%_lab/*.png", "train", "test")(tmp_path)
    splits = opened(tmp_path, "folder", images="{split}_img", masks="{split}_lab")
    assert not any("not read" in note for note in splits.notes)
    pairs("train_img/*.jpg", "other/*.png")(tmp_path)
    splits = opened(tmp_path, "folder", images="{split}_img", masks="{split}_lab")
    assert sum("not read: other (4 files)" in note for note in splits.notes) == 2


@pytest.mark.parametrize("manual", ["1st_manual", "manual (1)"])
def test_a_field_of_view_beside_what_may_be_the_objects_is_not_taken_for_them(
    manual: str, tmp_path: Path, opened: Open
) -> None:
    view = np.zeros((H, W), np.uint8)
    view[4:-4, 4:-4] = 255
    names = ("21", "22", "23", "24")
    pairs("images/*_training.tif", "mask/*_training_mask.gif", view, names)(tmp_path)
    assert any("as a field of view is" in note for note in opened(tmp_path).notes)
    pairs("images/*_training.tif", f"{manual}/*_manual1.gif", WHITE, names)(tmp_path)
    with pytest.raises(DataError, match=r"not read: .* .4 files.. The masks that are read are nearly") as caught:
        opened(tmp_path)
    told = [shlex.split(words) for words in re.findall(r"data=folder (.*?)(?: or |\.$)", str(caught.value))]
    assert [word[0] for word in told] == ["data.images=images"] * 2
    first, second = ((word[0].partition("=")[2], word[1].partition("=")[2].strip("'")) for word in told)
    assert (first, second) == (("images", manual), ("images", "mask"))
    assert masks_of(opened(tmp_path, "folder", images=first[0], masks=first[1]))["test"] == [[int(ONE[0].sum())]]
    assert masks_of(opened(tmp_path, "folder", images=second[0], masks=second[1]))["test"] == [[int(view.sum()) // 255]]


@pytest.mark.parametrize("labels", [True, False])
def test_a_test_split_without_labels_says_how_to_do_without(labels: bool, tmp_path: Path, opened: Open) -> None:
    pairs("train/images/*.png", "train/masks/*.png", WHITE)(tmp_path)
    images(tmp_path / "test" / "images")
    if labels:
        (tmp_path / "test" / "masks").mkdir()
    with pytest.raises(DataError, match="or set some training images aside in place of test, with data.test=null"):
        opened(tmp_path)
    assert len(opened(tmp_path, test=None).test) == 1


def test_names_that_begin_with_splits_are_noticed(tmp_path: Path, opened: Open) -> None:
    pairs("*.bmp", "*_anno.bmp", names=("train_1", "train_2", "train_3", "testA_1"))(tmp_path)
    notes = [one.text for one in opened(tmp_path).noticed if one.kind == "unused_split"]
    assert [note.partition(": ")[2] for note in notes] == [
        "names begin with test and train, but are parted anew; put files into folders called so to keep their splits"
    ]
    pairs("*.bmp", "*_anno.bmp", names=("trainer_1",))(tmp_path)
    assert not any(one.kind == "unused_split" for one in opened(tmp_path).noticed)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train_val", "TEST"), "data.train=train_val data.test=TEST"),
        (("testcrop", "traincrop", "valcrop"), "data.train=traincrop data.val=valcrop data.test=testcrop"),
        (("a", "b"), "data.train=a data.val=b"),
    ],
)
def test_folders_called_like_splits_are_those(
    folders: tuple[str, ...], said: str, tmp_path: Path, opened: Open
) -> None:
    for folder in folders:
        pairs(f"{folder}/images/*.png", f"{folder}/masks/*.png", WHITE)(tmp_path)
    with pytest.raises(DataError, match=f"they are read with data.root={re.escape(str(tmp_path))} {said}[.]"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.xml", '<Annotations><Annotation Id="1"><Regions><Region/>', "Aperio ImageScope.* in QuPath and export Geo"),
        ("a.xml", "<ASAP_Annotations><Annotations/>", "ASAP, which is not read"),
        (
            "train.json",
            '{"videos": [], "annotations": [{"segmentations": []}]}',
            "YouTube-VIS.* each frame as an image",
        ),
        (
            "labels/a.json",
            '{"features": {"xy": [{"wkt": "POLYGON"}]}}',
            "xView2.* convert it to COCO with segmentation",
        ),
    ],
)
def test_annotations_that_are_not_read_are_named(file: str, text: str, said: str, tmp_path: Path, opened: Open) -> None:
    images(tmp_path / "pictures")
    put(tmp_path / file, text)
    with pytest.raises(DataError, match=f"{file} is of {said}"):
        opened(tmp_path)


def test_coloured_masks_are_not_proposed(tmp_path: Path, opened: Open) -> None:
    coloured = np.dstack([LABELS * np.uint8(9), LABELS, WHITE])
    in_splits("%/pictures/*.png", "%/Instance_masks/*_instance_id_RGB.png", "train", "val", values=coloured)(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert " type data=" not in str(caught.value)
    grey = np.dstack([LABELS] * 3)
    in_splits("%/pictures/*.png", "%/Instance_masks/*_instance_id_RGB.png", "train", "val", values=grey)(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert list(map(len, masks_of(opened(tmp_path, **typed(str(caught.value)))).values())) == [3, 4, 1]
