"""Common Semantic Segmentation, as OpenVINO Training Extensions and Datumaro read it: images and class masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.class_csv import read_class_values
from lora_sam.data.reading.class_table import ClassTable, read_dataset_meta, read_label_lines
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.label_map import LabelMap
from lora_sam.data.reading.pairs import Pairing, open_pairs
from lora_sam.data.reading.paths import inside
from lora_sam.data.splits import Splits

CLASS_FILES = ("dataset_meta.json", "labelmap.txt", "label_colors.txt", "_classes.csv", "class_dict.csv",
               "class_mapping.csv")  # fmt: skip
"""Files that may list the classes with their colours, the first that is there."""

NEEDS = ("images/*.<image>", "masks/*.<image>", "|".join(CLASS_FILES))
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class CommonSemantic(FormatOptions):
    """Images and class masks paired by file name without its ending, and a file that lists the classes.

    A mask has one colour per class (RGB or palette) or one value per class (grey). Background and `VOID` are no
    objects; a value or colour that is not listed is an error. If no split has a folder, but the folders without
    `{split}` are there, they are the training split.

    Attributes:
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name.
        masks: Directory of a split's masks, relative to `root`; `{split}` stands for the split's name.
        classes: File that lists the classes, relative to `root`; null takes `dataset_meta.json`, `labelmap.txt`,
            `label_colors.txt`, `_classes.csv`, `class_dict.csv` or V7's `class_mapping.csv`, of the split if it has
            its own, else of `root`.
        instances: `components`: every connected component of a class is one object; `classes`: every class of an image
            is one object.
    """

    images: str
    masks: str
    classes: str | None
    instances: Literal["components", "classes"]

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """

        def reader(
            root: Path, images: Path, files: Sequence[ImageFile], notes: Notes
        ) -> Callable[[ImageFile], ClassMask]:
            table = self._table(root, images)
            return lambda file: ClassMask(file, table, self.instances == "components", self.min_area)

        return open_pairs(self, Pairing(self.images, self.masks, "masks", "mask"), reader, seed)

    def _table(self, root: Path, images: Path) -> ClassTable:
        """The classes of the split with these images."""
        if self.classes is not None:
            return read_classes(inside(root, self.classes, "data.classes"))
        own = images.relative_to(root)
        for folder in dict.fromkeys((own, own.parent, Path())):
            for name in CLASS_FILES:
                file = inside(root, (folder / name).as_posix(), "data.classes")
                if file.exists():
                    return read_classes(file)
        raise DataError(
            f"{root}: has no {', '.join(CLASS_FILES[:-1])} or {CLASS_FILES[-1]}, so the classes of its masks are not "
            "known; add one, name it with data.classes=<file>, or read the masks without classes with data=folder."
        )


@dataclass(frozen=True)
class ClassMask:
    """One class mask, and how to read it.

    Attributes:
        path: The mask.
        table: What its values or colours mean.
        components: Whether every connected component of a class is an object of its own.
        min_area: Objects with fewer pixels are left out.
    """

    path: ImageFile
    table: ClassTable
    components: bool
    min_area: int

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `label_map` does."""
        return self.mapped(size).masks()

    def mapped(self, size: tuple[int, int]) -> LabelMap:
        """See `lora_sam.data.reading.labelled.StoredAsMap`."""
        return self.label_map(size)

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects with their classes, maybe none. Raises `DataError` as `ClassTable.read` does."""
        objects = self.table.objects(self.path, size)
        return (objects.components() if self.components else objects).without_small(self.min_area)


def read_classes(file: Path) -> ClassTable:
    """The classes in a JSON file as `dataset_meta.json`, in a table as Roboflow's `_classes.csv`, `class_dict.csv` or
    V7's `class_mapping.csv`, or in lines of text. Raises `DataError`."""
    if file.suffix.lower() == ".csv":
        return read_class_values(file)
    return read_dataset_meta(file) if file.suffix.lower() == ".json" else read_label_lines(file)
