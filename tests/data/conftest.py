"""Tiny data sets written to a temporary directory, and the configuration classes with the defaults of conf/."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lora_sam.core.structures import Sample
from lora_sam.data.augmentation import Augmentation
from lora_sam.data.coco import Coco
from lora_sam.data.folder import Folder
from lora_sam.data.splits import Splits

CONF = Path(__file__).parents[2] / "conf"


def configured(kind: type, file: str, **changes: Any) -> Any:
    fields = yaml.safe_load((CONF / file).read_text())
    fields.pop("_target_")
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in (fields | changes).items()}
    return kind(**fields)


@pytest.fixture
def coco() -> Callable[..., Coco]:
    return lambda root, **changes: configured(Coco, "data/coco.yaml", root=str(root), **changes)


@pytest.fixture
def folder() -> Callable[..., Folder]:
    return lambda root, **changes: configured(Folder, "data/folder.yaml", root=str(root), **changes)


@pytest.fixture
def opened(option: Callable[..., Any]) -> Callable[..., Splits]:
    """Opens a folder as `data=auto` does, or another option, with no care for few images."""

    def make(root: Path, data: str = "auto", **changes: Any) -> Splits:
        splits: Splits = option(f"data/{data}", root=str(root), **{"few_images": 0, **changes}).open(0)
        return splits

    return make


@pytest.fixture
def augmentation() -> Callable[..., Augmentation]:
    return lambda option="none", **changes: configured(Augmentation, f"augmentation/{option}.yaml", **changes)


@pytest.fixture
def coco_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes splits of `count` images of 20 x 30 pixels with two objects each; `edit` changes the train JSON."""

    def write(count: int = 3, splits: tuple[str, ...] = ("train", "val", "test"), edit: Any = None) -> Path:
        root = tmp_path / "set"
        for number, split in enumerate(splits):
            (root / "images" / split).mkdir(parents=True)
            (root / "annotations").mkdir(exist_ok=True)
            content: dict[str, Any] = {"images": [], "annotations": []}
            for index in range(count):
                name = f"{split}{index}.png"
                draws = np.random.default_rng((number, index))
                Image.fromarray(draws.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
                    root / "images" / split / name
                )
                content["images"].append({"id": index, "file_name": name, "height": 20, "width": 30})
                for part in range(2):
                    left = 3 + 12 * part
                    polygon = [left, 4, left + 8, 4, left + 8, 14, left, 14]
                    annotation = {"id": 10 * index + part, "image_id": index, "iscrowd": 0}
                    content["annotations"].append(annotation | {"segmentation": [polygon], "bbox": [left, 4, 8, 10]})
            if split == "train" and edit is not None:
                edit(content, root)
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return write


@pytest.fixture
def folder_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes splits of `count` images of 20 x 30 pixels with a 0/255 mask of two squares each."""

    def write(count: int = 3, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
        root = tmp_path / "set"
        for number, split in enumerate(splits):
            for kind in ("images", "masks"):
                (root / split / kind).mkdir(parents=True)
            for index in range(count):
                draws = np.random.default_rng((number, index))
                pixels = draws.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / "images" / f"{split}{index}.png")
                mask = np.zeros((20, 30), np.uint8)
                mask[4:14, 3:11] = mask[4:14, 15:23] = 255
                Image.fromarray(mask).save(root / split / "masks" / f"{split}{index}.png")
        return root

    return write


@pytest.fixture
def sample() -> Sample:
    """40 x 60 pixels, three squares whose colour says which object they are."""
    image = np.zeros((40, 60, 3), np.uint8)
    masks = np.zeros((3, 40, 60), np.bool_)
    for index, (top, left) in enumerate(((2, 3), (5, 40), (25, 20))):
        masks[index, top : top + 10, left : left + 12 + index] = True
        image[masks[index]] = 80 * (index + 1)
    return Sample("images/a.png", image, masks, ("7", "8", "9"))
