from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.labels import LabelFile, Labels, read_npy
from lora_sam.data.reading.mask_files import MaskFile, MaskRules

CONF = Path(__file__).parents[2] / "conf" / "data" / "labels.yaml"


def labels(root: Path, **changes: Any) -> Labels:
    values = yaml.safe_load(CONF.read_text())
    values.pop("_target_")
    return Labels(**{**values, "root": str(root), **changes})


LABELS = np.zeros((20, 30), np.int32)
LABELS[2:6, 2:6] = LABELS[2:6, 8:12] = 5
LABELS[10:18, 2:10] = 255
LABELS[10:18, 20:28] = 300


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    root = tmp_path / "cells"
    for number, split in enumerate(("train", "val", "test")):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(2):
            draws = np.random.default_rng((number, index))
            Image.fromarray(draws.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
                root / split / f"images/{index}.png"
            )
            np.save(root / split / f"labels/{index}.npy", LABELS)
    return root


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.int64, ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_integer_type(tmp_path: Path, dtype: Any, order: Any) -> None:
    np.save(tmp_path / "a.npy", np.array(LABELS, dtype=dtype, order=order))
    found = LabelFile(tmp_path / "a.npy", components=False, min_area=1).label_map((20, 30))
    assert found.names == ("5", "255", "300")
    np.testing.assert_array_equal(found.masks(), [value == LABELS for value in (5, 255, 300)])


def test_small_types_and_booleans(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (LABELS > 0))
    found = LabelFile(tmp_path / "a.npy", components=True, min_area=1).label_map((20, 30))
    assert found.names == ("1", "2", "3", "4")
    np.save(tmp_path / "a.npy", np.minimum(LABELS, 255).astype(np.uint8))
    assert LabelFile(tmp_path / "a.npy", components=False, min_area=40).label_map((20, 30)).names == ("255",)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_pictures_of_labels(tmp_path: Path, ending: str) -> None:
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / f"a{ending}")
    file = LabelFile(tmp_path / f"a{ending}", components=True, min_area=1)
    assert file.label_map((20, 30)).names == ("5.1", "5.2", "255.1", "300.1")
    np.testing.assert_array_equal(file.read((20, 30))[2], LABELS == 255)


def test_one_value_is_a_label_and_255_no_edge(tmp_path: Path) -> None:
    values = np.where(LABELS == 300, 255, 0).astype(np.uint8)
    values[0, 0], values[0, 2], values[0, 4] = 3, 4, 6
    Image.fromarray(values).save(tmp_path / "a.png")
    assert LabelFile(tmp_path / "a.png", components=False, min_area=1).label_map((20, 30)).names == (
        "3",
        "4",
        "6",
        "255",
    )


def test_splits_and_flat_folders(cells: Path) -> None:
    splits = labels(cells).open(0)
    assert splits.notes == splits.skipped == ()
    assert splits.train.ids == ("train/images/0.png", "train/images/1.png")
    assert splits.val[1].object_ids == ("5", "255", "300")
    swapped = cells.parent / "swapped"
    for kind in ("images", "labels"):
        (swapped / kind).mkdir(parents=True)
        for split in ("train", "val", "test"):
            (cells / split / kind).rename(swapped / kind / split)
    assert labels(swapped, images="images/{split}", labels="labels/{split}").open(0).test.ids[0] == "images/test/0.png"
    flat = cells.parent / "flat"
    for kind in ("images", "labels"):
        (flat / kind).mkdir(parents=True)
        for split in ("train", "val", "test"):
            for path in (swapped / kind / split).iterdir():
                path.rename(flat / kind / f"{split}{path.name}")
    carved = labels(flat, few_images=0).open(0)
    assert [len(carved.train), len(carved.val), len(carved.test)] == [4, 1, 1]


def test_images_without_an_object_are_counted(cells: Path) -> None:
    np.save(cells / "train/labels/0.npy", np.zeros((20, 30), np.uint16))
    splits = labels(cells).open(0)
    assert splits.train.ids == ("train/images/1.png",)
    assert splits.notes == (f"{cells}/train/images: 1 images without an object were left out",)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(__file__).parent / "evil was here",))


def header(text: str, values: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    length = len(padded).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + padded + values


def plain(descr: str, shape: str) -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"


def array(values: Any, *, allow_pickle: bool = False) -> Callable[[Path], None]:
    return lambda path: np.save(path, values, allow_pickle=allow_pickle)


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)  # type: ignore[return-value]


def looped(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


BAD: list[tuple[Callable[[Path], None], str]] = [
    (
        array(np.array([Evil()], dtype=object), allow_pickle=True),
        r"1\.npy: holds pickled Python objects.* never loaded; save",
    ),
    (raw(pickle.dumps(Evil())), r"1\.npy: is damaged or no \.npy file .*; save it again with numpy\.save"),
    (raw(header(plain("|O", "(20, 30)"))), r"1\.npy: holds pickled Python objects"),
    (raw(b""), r"1\.npy: is damaged or no \.npy file"),
    (raw(b"\x93NUMPY\x01\x00"), r"1\.npy: is damaged or no \.npy file"),
    (raw(header("not a mapping")), r"1\.npy: is damaged or no \.npy file"),
    (raw(header("[" * 3000)), r"1\.npy: is damaged or no \.npy file"),
    (raw(header("{" + " " * 9000 + "}")), r"1\.npy: is damaged or no \.npy file"),
    (raw(header(plain("<i4", "(20, 30)"), b"\0" * 99)), r"1\.npy: .*\(99 bytes of values, 2400 expected\)"),
    (raw(header(plain("<i4", "(20, 30)"), version=b"\x03\x00")), r"1\.npy: is damaged .*version 3\.0"),
    (
        raw(header(plain("<i4", "(99999999, 99999999)"))),
        r"1\.npy: is 99999999x99999999 pixels .*, but 30x20 in its image",
    ),
    (raw(header(plain("<i4", "(-20, 30)"))), r"1\.npy: "),
    (
        raw(header(plain("<i4", "(20, 30, 1)"), b"\0" * 2400)),
        r"1\.npy: has the shape \(20, 30, 1\); save one label image",
    ),
    (
        array(np.zeros((30, 20), np.int32)),
        r"1\.npy: is 20x30 pixels .* 30x20 in its image\. Was it labelled without its EXIF",
    ),
    (array(np.zeros((20, 30), np.complex64)), r"1\.npy: has complex64 values; save labels as uint8, uint16 or int32"),
    (array(np.full((20, 30), 0.5)), r"1\.npy: a mask with float64 values that are no whole numbers \(0\.5\)"),
    (array(np.full((20, 30), -1, np.int8)), r"1\.npy: has negative values \(-1\); use 0 for background"),
    (looped, r"1\.npy' (cannot be used|leads out)|1\.npy: cannot be read|label image .*1\.\(png"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_bad_arrays_are_named_with_their_remedy(cells: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(cells / "train/labels/1.npy")
    with pytest.raises(DataError, match=message) as raised:
        labels(cells).open(0)
    assert "\n" not in str(raised.value)
    assert not (Path(__file__).parent / "evil was here").exists()
    assert labels(cells, on_error="skip", max_skipped=0.2).open(0).train.ids == ("train/images/0.png",)


def test_bad_pictures_and_pairs(cells: Path) -> None:
    file = cells / "train/labels/1.npy"
    file.unlink()
    assert any("1 image without a label image was left out, e.g. 1" in note for note in labels(cells).open(0).notes)
    Image.fromarray(LABELS.astype(np.uint8)).save(file.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"1\.jpg: JPEG blurs label values; save label images as PNG, TIFF or \.npy"):
        labels(cells).open(0)
    file.with_suffix(".jpg").unlink()
    Image.fromarray(LABELS.astype(np.float32) / 2).save(file.with_suffix(".tif"))
    with pytest.raises(DataError, match=r"1\.tif: a mask with float32 values"):
        labels(cells).open(0)
    np.save(file, LABELS)
    with pytest.raises(DataError, match=r"1\.npy and 1\.tif have the same name but for the ending"):
        labels(cells).open(0)
    with pytest.raises(
        DataError, match=r"train/masks: is not a folder; put the label images there, or correct data\.labels"
    ):
        labels(cells, labels="{split}/masks").open(0)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.npy: cannot be read \(No such file or directory\); restore it"):
        read_npy(tmp_path / "a.npy", (2, 2))


def test_values_that_are_left_out_are_neither_object_nor_background(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    file = LabelFile(tmp_path / "a.npy", components=False, min_area=40, ignored=(255,))
    np.testing.assert_array_equal(file.ignored_pixels((20, 30)), (LABELS == 255) | (LABELS == 5))
    assert LabelFile(tmp_path / "a.npy", components=False, min_area=1).ignored_pixels((20, 30)) is None
    mask = tmp_path / "a.png"
    Image.fromarray(LABELS.clip(0, 255).astype(np.uint8)).save(mask)
    rules = MaskRules("labels", "auto", 128, 1, ignore=(255,))
    np.testing.assert_array_equal(MaskFile(mask, rules).ignored_pixels((20, 30)), LABELS >= 255)
    small = MaskRules("labels", "auto", 128, 40)
    np.testing.assert_array_equal(MaskFile(mask, small).ignored_pixels((20, 30)), LABELS == 5)
    assert MaskFile(mask, MaskRules("labels", "auto", 128, 1)).ignored_pixels((20, 30)) is None
