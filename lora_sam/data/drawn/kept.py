"""Drawn sets that are kept on disk as COCO instances: made on first use, and the same for everybody."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from lora_sam.core.crops import rle_of
from lora_sam.core.seeds import generator_for
from lora_sam.data.coco import Coco
from lora_sam.data.drawn.generated import generated_directory
from lora_sam.data.splits import Splits

_SPLITS = ("train", "val", "test")
_IMAGES = "images/{split}"
_ANNOTATIONS = "annotations/instances_{split}.json"

Count = Annotated[int, Field(ge=1, le=10_000)]


@dataclass(frozen=True, kw_only=True)
class KeptDrawings(ABC):
    """Drawn images with the masks of one kind of object; a subclass draws them.

    The files are made on first use and are plain COCO: `data=coco data.root=<root>` reads them too.

    Attributes:
        root: Directory of the images and labels; generated when it is absent or empty.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        side: Height and width of an image in pixels.
        seed: Seed of the pictures; that of the run does not change them.
        max_objects_per_image: Training uses at most this many objects of an image per step; null for all.
    """

    name: ClassVar[str]
    """What is drawn; part of the seed and of the recipe kept with the files."""
    version: ClassVar[int]
    """One higher whenever the same settings give other pictures or labels."""
    category: ClassVar[str]
    """The class of all labelled objects."""

    root: Annotated[str, Field(min_length=1)]
    train: Count
    val: Count
    test: Count
    side: Annotated[int, Field(ge=128, le=4096)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """One picture, RGB uint8 [side, side, 3], and the masks of its objects, bool [N, side, side], N >= 1."""

    def open(self, seed: int) -> Splits:
        """Generate the files unless they are there, then read and check them as any COCO data set.

        Args:
            seed: Seed of the run; not used, all splits are there.

        Raises:
            DataError: `root` holds something else, is damaged, or cannot be written.
        """
        root = Path(self.root).expanduser()
        recipe = {"data": f"lora_sam {self.name}", "version": self.version, **dataclasses.asdict(self)}
        for key in ("root", "max_objects_per_image"):  # neither changes the files
            del recipe[key]
        written = generated_directory(root, recipe, self._write)
        splits = self._reader(root).open(seed)
        return dataclasses.replace(splits, notes=(*splits.notes, f"generated in {root}")) if written else splits

    def _reader(self, root: Path) -> Coco:
        return Coco(
            crowd="ignore",
            rings="union",
            scale="auto",
            bands=None,
            follow_links=False,
            tile=None,
            group=None,
            root=str(root),
            images=_IMAGES,
            annotations=_ANNOTATIONS,
            train="train",
            val="val",
            test="test",
            val_fraction=0.1,  # not used, as no split is absent
            test_fraction=0.1,
            few_images=0,
            on_error="raise",
            max_skipped=0.0,
            min_area=1,
            max_objects_per_image=self.max_objects_per_image,
            check="full",
        )

    def _write(self, root: Path) -> None:
        for split in _SPLITS:
            folder = root / _IMAGES.format(split=split)
            folder.mkdir(parents=True)
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for index in range(getattr(self, split)):
                picture, masks = self.draw(generator_for(self.seed, self.name, split, index))
                name = f"{index:04d}.png"
                Image.fromarray(picture).save(folder / name, compress_level=1)
                images.append({"id": index + 1, "file_name": name, "height": self.side, "width": self.side})
                for mask in masks:
                    annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **_instance(mask)})
            file = root / _ANNOTATIONS.format(split=split)
            file.parent.mkdir(exist_ok=True)
            categories = [{"id": 1, "name": self.category}]
            content = {"images": images, "annotations": annotations, "categories": categories}
            file.write_text(json.dumps(content), encoding="utf-8")


def _instance(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The part of a COCO annotation that describes `mask`, bool [H, W]."""
    from faster_coco_eval.core import mask as coco_mask

    rle = rle_of(mask)
    return {
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(coco_mask.area(rle)),
    }
