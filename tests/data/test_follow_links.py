"""Links out of the data root: refused with the remedy, followed where the user says so, never in a circle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError


def pairs(root: Path, count: int = 3) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        mask = np.zeros((20, 30), np.uint8)
        mask[2:9, 3 : 9 + index] = 255
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")


@pytest.fixture
def opened(option: Callable[..., Any]) -> Callable[..., Any]:
    return lambda root, **changes: option("data/auto", root=str(root), **changes).open(0)


@pytest.mark.parametrize("linked", ["files", "folder"])
def test_images_on_another_disk(tmp_path: Path, opened: Callable[..., Any], linked: str) -> None:
    pairs(tmp_path / "disk")
    root = tmp_path / "set"
    root.mkdir()
    shutil.copytree(tmp_path / "disk/masks", root / "masks")
    if linked == "folder":
        (root / "images").symlink_to(tmp_path / "disk/images")
    else:
        (root / "images").mkdir()
        for file in (tmp_path / "disk/images").iterdir():
            (root / "images" / file.name).symlink_to(file)
    with pytest.raises(DataError, match=r"through a symbolic link; .* set data\.follow_links=true"):
        opened(root)
    splits = opened(root, follow_links=True, few_images=0)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 3
    expected = np.asarray(Image.open(tmp_path / "disk" / splits.train.ids[0]))
    assert np.array_equal(splits.train[0].image, expected)


def test_a_circle_of_links_ends(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = tmp_path / "set"
    pairs(root)
    (root / "images/again").symlink_to(root / "images")
    (root / "images/self.png").symlink_to(root / "images/self.png")
    (root / "masks/self.png").symlink_to(root / "masks/self.png")
    with pytest.raises(DataError, match=r"self\.png"):
        opened(root, follow_links=True)
    for name in ("images", "masks"):
        (root / name / "self.png").unlink()
    assert sorted(opened(root, follow_links=True, val="train", test="train").train.ids) == [
        f"images/{index}.png" for index in range(3)
    ]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_what_annotations_name_stays_below_the_root(tmp_path: Path, opened: Callable[..., Any], name: str) -> None:
    root = tmp_path / "set"
    pairs(root)
    shutil.copy(root / "images/0.png", tmp_path / "secret.png")
    shutil.rmtree(root / "masks")
    coco = {
        "images": [{"id": 1, "file_name": name, "width": 30, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]], "area": 49,
             "bbox": [2, 2, 7, 7], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "a"}],
    }  # fmt: skip
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"has '\.\.'|is absolute|no image|does not exist|not under"):
        opened(root, follow_links=True, val="train", test="train")
