"""Data sets without a fault, to be damaged in one way each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.structures import Sample
from lora_sam.data.check.examination import Examination, examine
from lora_sam.data.splits import Splits

COUNTS = {"train": 12, "val": 3, "test": 5}
HEIGHT, WIDTH = 48, 64


def pixels(*seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def square(left: float, top: float, width: float = 20, height: float = 16, cut: float = 0) -> dict[str, Any]:
    """An upright rectangle, one corner of which may be `cut`."""
    corners = [left, top, left + width, top, left + width, top + height, left + cut, top + height]
    return {"segmentation": [corners], "bbox": [left, top, width, height]}


@pytest.fixture
def coco_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes `counts` images of 48 x 64 pixels with two squares each; `edit(content, root)` changes the train JSON.

    A corner of each is `cut`; `cut=0` makes them upright rectangles, as boxes are.
    """

    def write(edit: Callable[[Any, Path], None] | None = None, counts: dict[str, int] = COUNTS, cut: float = 2) -> Path:
        root = tmp_path / "coco"
        (root / "annotations").mkdir(parents=True)
        for number, (split, count) in enumerate(counts.items()):
            (root / "images" / split).mkdir(parents=True)
            content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "square"}]}
            for index in range(count):
                name = f"{index}.png"
                Image.fromarray(pixels(number, index)).save(root / "images" / split / name)
                content["images"].append({"id": index, "file_name": name, "height": HEIGHT, "width": WIDTH})
                for part in range(2):
                    entry = {"id": 10 * index + part, "image_id": index, "category_id": 1, "iscrowd": 0}
                    content["annotations"].append(entry | square(6 + 28 * part, 10, cut=cut))
            if split == "train" and edit is not None:
                edit(content, root)
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return write


@pytest.fixture
def folder_set(tmp_path: Path) -> Callable[[], Path]:
    """Writes images of 48 x 64 pixels with a binary mask of one square each."""

    def write() -> Path:
        root = tmp_path / "folder"
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:26, 6:26] = 255
        for number, (split, count) in enumerate(COUNTS.items()):
            for kind in ("images", "masks"):
                (root / split / kind).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(pixels(number, index)).save(root / split / "images" / f"{index}.png")
                Image.fromarray(mask).save(root / split / "masks" / f"{index}.png")
        return root

    return write


@pytest.fixture
def examined(option: Callable[..., Any]) -> Callable[..., Examination]:
    """Examines a data set with the defaults of an option file."""

    def look(root: Path, data: str = "coco", *, most: int | None = None, **changes: Any) -> Examination:
        return examine(option(f"data/{data}", root=str(root), **changes), root.resolve(), 0, most)

    return look


@dataclass(frozen=True)
class Drawn:
    """Samples in memory."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [sample.size for sample in self.samples]

    @property
    def object_counts(self) -> list[int]:
        return [len(sample.masks) for sample in self.samples]

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@dataclass(frozen=True)
class Memory:
    """A data set in memory, with the classes of each image of a split."""

    classes: dict[str, list[tuple[str, ...]]]
    max_objects_per_image: int | None = None

    def open(self, seed: int) -> Splits:
        splits = {
            split: Drawn(tuple(_sample(split, number, names) for number, names in enumerate(images)))
            for split, images in self.classes.items()
        }
        return Splits(splits["train"], splits["val"], splits["test"], (), ("kept in memory",))


def _sample(split: str, number: int, classes: tuple[str, ...]) -> Sample:
    masks = np.zeros((len(classes), HEIGHT, WIDTH), np.bool_)
    for row in range(len(classes)):
        masks[row, 4 * row : 4 * row + 3, 5:25] = True
    image = pixels(len(split), number, len(split))
    return Sample(f"{split}/{number}.png", image, masks, tuple(str(row) for row in range(len(classes))), classes)
