from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading import labelled
from lora_sam.data.reading.mask_files import MaskFile, MaskRules
from lora_sam.data.reading.skipping import collected

Make = Callable[..., Any]


def read(path: Path, values: np.ndarray, **rules: Any) -> tuple[np.ndarray, tuple[str, ...], int]:
    Image.fromarray(values).save(path)
    defaults = {"mask_values": "auto", "instances": "auto", "threshold": 128, "min_area": 1}
    stored = MaskFile(path, MaskRules(**(defaults | rules)))
    found = stored.label_map(values.shape[:2])
    names, small = found.names, found.too_small
    masks = stored.read(values.shape[:2])
    assert len(masks) == len(names)
    return masks, names, small


TWO_PARTS = np.zeros((6, 9), np.uint8)
TWO_PARTS[1:3, 1:3] = 1
TWO_PARTS[3, 3] = 1  # touches the first part by a corner
TWO_PARTS[4:6, 6:9] = 1


def test_pairs_become_samples(folder: Make, folder_set: Make) -> None:
    root = folder_set()
    splits = folder(root).open(0)
    assert splits.train.ids == tuple(f"train/images/train{index}.png" for index in range(3))
    assert splits.train.object_counts == (1, 1, 1)
    assert splits.val.sizes == ((20, 30),) * 3
    assert splits.skipped == splits.notes == ()
    sample = splits.train[2]
    assert sample.object_ids == ("1",)
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(root / sample.id)))
    np.testing.assert_array_equal(sample.masks[0], np.asarray(Image.open(root / "train/masks/train2.png")) > 0)


@pytest.mark.parametrize("foreground", [1, 255, 7])
def test_binary_masks_are_one_object_or_components(tmp_path: Path, foreground: int) -> None:
    values = TWO_PARTS * np.uint8(foreground)
    masks, names, _ = read(tmp_path / "m.png", values)
    np.testing.assert_array_equal(masks, [TWO_PARTS > 0])
    assert names == ("1",)
    np.testing.assert_array_equal(read(tmp_path / "m.png", values, instances="whole")[0], masks)
    masks, names, _ = read(tmp_path / "m.png", values, instances="components")
    assert names == ("1", "2")
    assert masks.sum(axis=(1, 2)).tolist() == [5, 6]
    assert not (masks[0] & masks[1]).any()


def test_a_mask_without_background_is_binary(tmp_path: Path) -> None:
    assert read(tmp_path / "m.png", np.full((3, 4), 255, np.uint8))[0].all()


def test_label_images_are_one_object_per_value(tmp_path: Path) -> None:
    values = TWO_PARTS.astype(np.uint16)
    values[4:6, 6:9] = 40_000
    values[0, 8] = 3
    masks, names, _ = read(tmp_path / "m.png", values)
    assert names == ("1", "3", "40000")
    np.testing.assert_array_equal(masks, [values == 1, values == 3, values == 40_000])
    masks, names, _ = read(tmp_path / "m.tif", values, instances="whole")
    np.testing.assert_array_equal(masks, [values > 0])
    values[5, 0] = 1
    masks, names, _ = read(tmp_path / "m.png", values, instances="components")
    assert names == ("1.1", "1.2", "3.1", "40000.1")
    assert masks.sum(axis=(1, 2)).tolist() == [5, 1, 1, 6]
    masks, names, small = read(tmp_path / "m.png", values, instances="components", min_area=2)
    assert names == ("1.1", "40000.1")
    assert masks.sum(axis=(1, 2)).tolist() == [5, 6]
    assert small == 2
    masks, names, _ = read(tmp_path / "m.png", TWO_PARTS, mask_values="labels")
    assert names == ("1",)


def test_label_255_beside_others_is_a_label(tmp_path: Path) -> None:
    values = np.repeat(np.array([[0, 50, 100, 255]], np.uint8), 3, axis=0)
    assert read(tmp_path / "m.png", values)[1] == ("50", "100", "255")


def test_jpeg_masks_are_cut_at_the_threshold(tmp_path: Path) -> None:
    values = np.zeros((32, 32), np.uint8)
    values[8:20, 4:28] = 255
    path = tmp_path / "m.jpg"
    masks, names, _ = read(path, values)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert names == ("1",)
    np.testing.assert_array_equal(masks[0], np.asarray(Image.open(path)) >= 128)
    np.testing.assert_array_equal(masks[0], values > 0)
    with pytest.raises(DataError, match=r"m\.jpg: JPEG blurs label values; save label masks as PNG or TIFF"):
        read(path, values, mask_values="labels")
    with pytest.raises(DataError, match=r"m\.jpg: an empty mask, without a pixel at or above data\.threshold=128"):
        read(path, values // 255 * np.uint8(100))


def test_soft_edges_of_a_single_file_are_not_taken_for_labels(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[5:15, 5:15] = 255
    values[5, 5:8] = (60, 130, 200)
    with pytest.raises(
        DataError, match=r"97% of the foreground is 255, with 3 values below it: set data\.mask_values=binary"
    ):
        read(tmp_path / "m.png", values)
    masks, _, _ = read(tmp_path / "m.png", values, mask_values="binary")
    assert masks.sum() == 99
    assert read(tmp_path / "m.png", values, mask_values="binary", threshold=201)[0].sum() == 97
    assert len(read(tmp_path / "m.png", values, mask_values="labels")[1]) == 4


def missing_image(root: Path) -> None:
    (root / "train/images/train1.png").unlink()


def missing_mask(root: Path) -> None:
    (root / "train/masks/train1.png").unlink()


def truncated_image(root: Path) -> None:
    path = root / "train/images/train1.png"
    path.write_bytes(path.read_bytes()[:300])


def truncated_mask(root: Path) -> None:
    path = root / "train/masks/train1.png"
    path.write_bytes(path.read_bytes()[:60])


def other_size(root: Path) -> None:
    Image.new("L", (30, 21), 255).save(root / "train/masks/train1.png")


def empty_mask(root: Path) -> None:
    Image.new("L", (30, 20)).save(root / "train/masks/train1.png")


def same_stem(root: Path) -> None:
    Image.new("L", (30, 20)).save(root / "train/masks/train1.tif")


def linked_out(root: Path) -> None:
    os.replace(root / "train/masks/train1.png", root.parent / "secret.png")
    (root / "train/masks/train1.png").symlink_to(root.parent / "secret.png")


BAD = [
    (
        missing_image,
        r"train/masks/train1\.png: has no image .*train/images/train1\.\(png, jpg, \.\.\.\); add it, or rem",
    ),
    (truncated_image, r"train/images/train1\.png: truncated or damaged"),
    (truncated_mask, r"train/masks/train1\.png: truncated or damaged"),
    (other_size, r"train/masks/train1\.png: is 30x21 pixels \(width x height\), but 30x20 in its image"),
    (same_stem, r"train/masks: train1\.png and train1\.tif have the same name but for the ending; keep one of them"),
    (linked_out, r"train1\.png: the path '.*' leads out of the data root through a symbolic link"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_bad_input_is_named_with_its_remedy(folder: Make, folder_set: Make, damage: Any, message: str) -> None:
    root = folder_set()
    damage(root)
    with pytest.raises(DataError, match=message) as raised:
        folder(root).open(0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_bad_input_can_be_skipped_and_is_listed(folder: Make, folder_set: Make, damage: Any, message: str) -> None:
    root = folder_set()
    damage(root)
    splits = folder(root, on_error="skip", max_skipped=0.2).open(0)
    assert len(splits.skipped) == 1
    assert re.search(message, splits.skipped[0])
    assert splits.train.ids == ("train/images/train0.png", "train/images/train2.png")
    with pytest.raises(DataError, match=r"1 of 9 images \(11\.1%\) would be skipped; data\.max_skipped allows 1\.0%"):
        folder(root, on_error="skip").open(0)


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (missing_mask, "train/images: 1 image without a mask was left out, e.g. train1"),
        (empty_mask, "train/images: 1 images without an object were left out"),
    ],
)
def test_images_without_an_object_are_left_out_and_counted(
    folder: Make, folder_set: Make, damage: Any, note: str
) -> None:
    root = folder_set()
    damage(root)
    with collected() as told:
        splits = folder(root).open(0)
    assert splits.train.ids == ("train/images/train0.png", "train/images/train2.png")
    assert [found.replace(f"{root}/", "") for found in splits.notes] == [note]
    assert [error.kind for error in told] == ["unlabelled_image"]
    for number in (0, 2):
        (root / f"train/masks/train{number}.png").unlink()
        Image.new("L", (30, 20)).save(root / f"train/masks/train{number}.png")
    with pytest.raises(DataError, match="is empty: no image with a labelled object"):
        folder(root).open(0)


def test_no_mask_has_the_name_of_an_image(folder: Make, folder_set: Make) -> None:
    root = folder_set()
    for path in (root / "train/masks").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(
        DataError, match=r"train/masks: no mask has the name of an image of .*train0\.png, \.\.\. and xtrain0"
    ):
        folder(root).open(0)
    for path in (root / "train/masks").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train/masks: has no masks for the images in .*correct data\.masks"):
        folder(root).open(0)


def test_images_are_not_their_own_labels(folder: Make, folder_set: Make) -> None:
    with pytest.raises(DataError, match=r"data\.images and data\.masks are the same folder"):
        folder(folder_set(), images="{split}/images", masks="{split}/images").open(0)


def test_nested_folders_are_paired_by_their_relative_paths(folder: Make, folder_set: Make) -> None:
    root = folder_set()
    for kind in ("images", "masks"):
        below = root / "train" / kind / "site B"
        below.mkdir()
        (root / "train" / kind / "train1.png").rename(below / "train0.png")  # the same base name, another picture
    splits = folder(root).open(0)
    assert splits.train.ids == ("train/images/site B/train0.png", "train/images/train0.png", "train/images/train2.png")
    (root / "train/masks/site B/train0.png").rename(root / "train/masks/train9.png")
    (root / "train/images/site B/train0.png").rename(root / "train/images/site B/train9.png")
    assert "train/images/site B/train9.png" in folder(root).open(0).train.ids  # the only one with that base name


def test_header_check_still_reads_masks(folder: Make, folder_set: Make) -> None:
    root = folder_set()
    truncated_image(root)
    splits = folder(root, check="header").open(0)
    with pytest.raises(DataError, match=r"train1\.png: truncated"):
        splits.train[1]
    other_size(root)
    with pytest.raises(DataError, match=r"train1\.png: is 30x21 pixels"):
        folder(root, check="header").open(0)


def test_too_many_masks_for_the_memory(folder: Make, folder_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "MAX_MASK_BYTES", 1000)
    with pytest.raises(DataError, match="2 masks of 30x20 pixels need"):
        folder(folder_set(), instances="components").open(0)


def test_small_objects_and_other_files_are_noted(folder: Make, folder_set: Make) -> None:
    root = folder_set()
    tiny = np.zeros((20, 30), np.uint8)
    tiny[0, 0] = 255
    Image.fromarray(tiny).save(root / "train/masks/train0.png")
    tiny[10:, 10:] = 255
    Image.fromarray(tiny).save(root / "train/masks/train1.png")
    (root / "train/images/readme.txt").write_text("")
    (root / "train/images/.hidden.png").write_text("")
    splits = folder(root, instances="components", min_area=2).open(0)
    assert splits.train.object_counts == (1, 2)
    assert [note.replace(str(root), "") for note in splits.notes] == [
        "/train/images: 1 entries that are not images were not read, e.g. readme.txt",
        "train/images/train0.png was left out: all its objects are smaller than data.min_area=2",
        "/train/images: 2 objects smaller than data.min_area=2 pixels were left out",
    ]


def test_folders_that_may_not_be_listed(folder: Make, folder_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    root = folder_set()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(
        DataError, match=r"train/images: cannot be listed \(Permission denied\); correct its permissions"
    ):
        folder(root).open(0)


def test_flat_folders_are_carved(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=10, splits=("train",)) / "train"
    splits = folder(root, val_fraction=0.2, test_fraction=0.3, few_images=0).open(5)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [5, 2, 3]
    assert splits.train.ids[0].startswith("images/train")
    assert splits.notes == (
        "no test split: 3 of 10 training images were set aside for it",
        "no val split: 2 of 10 training images were set aside for it",
    )
    swapped = folder(root, images="images/{split}", masks="masks/{split}", few_images=0).open(5)
    assert len(swapped.train) == 8
    fixed = folder(root, images="images", masks="masks", few_images=0).open(5)
    assert fixed.train.ids == swapped.train.ids


def test_places_that_are_not_there(folder: Make, folder_set: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: .*/nowhere does not exist"):
        folder(tmp_path / "nowhere").open(0)
    root = folder_set()
    shutil.rmtree(root / "val/masks")
    with pytest.raises(DataError, match=r"val/masks: is not a folder; put the masks there, or correct data\.masks"):
        folder(root).open(0)
    with pytest.raises(DataError, match="training/images: does not exist, so there is nothing to train on"):
        folder(root, train="training", val=None).open(0)
    with pytest.raises(DataError, match=r"data\.images: the path '/etc/train' is absolute"):
        folder(root, images="/etc/{split}").open(0)
    shutil.rmtree(root / "test/images")
    shutil.rmtree(root / "test/masks")
    for kind in ("images", "masks"):
        (root / "test" / kind).mkdir()
    with pytest.raises(DataError, match=r"test/images: the split 'test' is empty: no image with a labelled object"):
        folder(root, val=None).open(0)
