from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError

Option = Callable[..., Any]
SIZE = (24, 32)


@pytest.fixture
def datumaro() -> Any:
    return pytest.importorskip("datumaro", reason="the package datumaro is not installed")


@pytest.fixture
def export(datumaro: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes one split of three images in a format of datumaro, each with one mask, one polygon and one box."""

    def make(name: str, subset: str = "train", *, boxes_only: bool = False) -> Path:
        rng = np.random.default_rng(1)
        items = []
        for index in range(3):
            mask = np.zeros(SIZE, bool)
            mask[2 : 9 + index, 3:12] = True
            annotations = [datumaro.Bbox(20, 15, 6, 7, label=2, id=3)]
            if not boxes_only:
                annotations.append(datumaro.Mask(mask, label=1, id=1))
                annotations.append(datumaro.Polygon([15, 2, 25, 2, 25, 10, 15, 10], label=2, id=2))
            picture = datumaro.components.media.Image.from_numpy(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))
            items.append(datumaro.DatasetItem(f"p{index}", subset=subset, media=picture, annotations=annotations))
        dataset = datumaro.Dataset.from_iterable(items, categories=["background", "cell", "nucleus"])
        dataset.export(str(tmp_path / name), name, save_media=True)
        return tmp_path / name

    return make


def test_without_the_package_the_error_says_how_to_install_it(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datumaro", None)
    with pytest.raises(DataError, match=r"pip install datumaro, or poetry install --extras datumaro\.$"):
        option("data/datumaro_import", root=str(tmp_path), format="cityscapes").open(0)


def test_an_unknown_format_is_answered_with_near_names(option: Option, datumaro: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no importer 'cityscape'; did you mean cityscapes"):
        option("data/datumaro_import", root=str(tmp_path), format="cityscape").open(0)
    with pytest.raises(DataError, match=r"no importer 'qqq'; it knows ade20k2017, .*yolo\.$"):
        option("data/datumaro_import", root=str(tmp_path), format="qqq").open(0)


@pytest.mark.parametrize("name", ["label_me", "cvat", "datumaro"])
def test_masks_and_polygons_are_objects_and_boxes_are_noted(
    option: Option, export: Callable[..., Path], name: str
) -> None:
    splits = option("data/datumaro_import", root=str(export(name)), format=name, few_images=0).open(0)
    sample = splits.train[0]
    assert len(splits.train) == len(splits.val) == len(splits.test) == 1
    assert set(sample.classes) == {"cell", "nucleus"}
    index = int(Path(sample.id).stem[-1])
    expected = np.zeros((2, *SIZE), bool)
    expected[0, 2 : 9 + index, 3:12] = expected[1, 2:10, 15:25] = True
    order = np.argsort([name == "nucleus" for name in sample.classes])
    np.testing.assert_array_equal(sample.masks[order], expected)
    assert "train: 3 boxes without a mask are not objects" in splits.notes


@pytest.mark.parametrize("name", ["cityscapes", "camvid", "kitti_segmentation", "voc"])
def test_segmentation_formats_give_masks(option: Option, export: Callable[..., Path], name: str) -> None:
    splits = option("data/datumaro_import", root=str(export(name)), format=name, few_images=0).open(0)
    sample = splits.train[0]
    index = int(Path(sample.id).stem.split("_")[0][-1])
    expected = np.zeros(SIZE, bool)
    expected[2 : 9 + index, 3:12] = True
    assert sample.classes == ("cell",)
    np.testing.assert_array_equal(sample.masks[0], expected)


def test_the_only_subset_trains_and_others_are_noted(option: Option, export: Callable[..., Path]) -> None:
    root = export("datumaro", subset="all")
    splits = option("data/datumaro_import", root=str(root), format="datumaro").open(0)
    assert splits.notes[0] == "train: taken from the subset all"
    (root / "annotations/train.json").write_bytes((root / "annotations/all.json").read_bytes())
    (root / "images/all").rename(root / "images/train")
    other = json.loads((root / "annotations/all.json").read_text()) | {"items": [{"id": "x", "annotations": []}]}
    (root / "annotations/all.json").write_text(json.dumps(other))
    splits = option("data/datumaro_import", root=str(root), format="datumaro").open(0)
    assert "the subset all is not used" in splits.notes


def test_nothing_is_fetched(option: Option, export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(option("data/datumaro_import", root=str(export("label_me")), format="label_me").open(0).train)


def test_data_that_datumaro_cannot_read(option: Option, export: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"nothing: datumaro (cannot read it as cvat|finds nothing there as cvat)"):
        option("data/datumaro_import", root=str(tmp_path / "nothing"), format="cvat").open(0)
    root = export("datumaro")
    (root / "annotations/train.json").write_text("{")
    with pytest.raises(DataError, match="datumaro cannot read it as datumaro"):
        option("data/datumaro_import", root=str(root), format="datumaro").open(0)
    root = export("yolo", boxes_only=True)
    with pytest.raises(DataError, match=r"the subset 'train' of yolo \(train\): the split 'train' is empty"):
        option("data/datumaro_import", root=str(root), format="yolo").open(0)


def test_bad_items_stop_or_are_skipped(option: Option, export: Callable[..., Path], tmp_path: Path) -> None:
    root = export("cityscapes")
    victim = next(root.rglob("p1_leftImg8bit*"))
    Image.new("RGB", (5, 5)).save(victim)

    def open_(**changes: Any) -> Any:
        return option("data/datumaro_import", root=str(root), format="cityscapes", **changes).open(0)

    with pytest.raises(DataError, match=r"cityscapes item p1 of train: annotation 1 has an RLE of size \[24, 32\]"):
        open_()
    outside = tmp_path / "outside.png"
    victim.rename(outside)
    victim.symlink_to(outside)
    with pytest.raises(DataError, match="leads out of the data root through a symbolic link"):
        open_()
    victim.unlink()
    with pytest.raises(DataError, match="cityscapes item p1 of train has no image file"):
        open_()
    with pytest.raises(DataError, match=r"1 of 3 images \(33\.3%\) would be skipped"):
        open_(on_error="skip")


def test_warnings_of_datumaro_become_notes(
    option: Option, datumaro: Any, export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = export("datumaro")
    original = datumaro.Dataset.import_from

    def warn(*arguments: Any, **options: Any) -> Any:
        for number in range(5):
            logging.warning("item %d is\n broken", number)
        return original(*arguments, **options)

    monkeypatch.setattr(datumaro.Dataset, "import_from", warn)
    notes = option("data/datumaro_import", root=str(root), format="datumaro").open(0).notes
    assert notes[:4] == (*(f"datumaro: 'item {number} is broken'" for number in range(3)), "datumaro: 2 more warnings")
    assert not [handler for handler in logging.getLogger().handlers if type(handler).__name__ == "Collector"]
