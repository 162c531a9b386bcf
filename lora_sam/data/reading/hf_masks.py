"""Which columns of a Hugging Face table hold images and masks, and the objects of one row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading.coco_masks import EncodedMasks, encode
from lora_sam.data.reading.hf_tables import Cell, Table
from lora_sam.data.reading.labelled import StoredMasks
from lora_sam.data.reading.mask_files import MaskFile, MaskRules
from lora_sam.data.reading.numbers import is_number
from lora_sam.data.reading.paths import shown

IMAGE_NAMES = ("image", "img", "photo", "picture")
"""Columns taken for the image, in this order."""

MASK_NAMES = (
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentation_mask",
    "ground_truth", "objects",
)  # fmt: skip
"""Columns taken for the masks, in this order, when they hold such."""

_CLASS_NAMES = ("category", "category_id", "label", "class")

Kind = Literal["picture", "pictures", "objects"]


@dataclass(frozen=True)
class Columns:
    """Where the images and masks of a table are.

    Attributes:
        image: Column of pictures.
        mask: Column of masks.
        kind: What the masks are.
        class_column: The class of objects, where they have one.
        class_names: Names of the classes by their number, where they are numbers with names.
    """

    image: str
    mask: str
    kind: Kind
    class_column: str | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """The N objects of one row: what the masks are read from, names, classes, and how many were left out."""

    masks: StoredMasks
    names: tuple[str, ...]
    classes: tuple[str, ...]
    too_small: int
    crowds: int = 0


@dataclass(frozen=True)
class MaskPictures:
    """Pictures with one object each, which may overlap."""

    files: tuple[MaskFile, ...]

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `MaskFile.read` does."""
        return np.concatenate([file.read(size) for file in self.files])


def find_columns(features: Any, image: str | None, mask: str | None, place: str) -> Columns:
    """The columns with images and with masks.

    Args:
        features: `datasets.Features`: types by column.
        image: Column of the images, or None to find it.
        mask: Column of the masks, or None to find it.
        place: Whose columns, for messages.

    Raises:
        DataError: a column is not there, holds something else, or none or several could be meant.
    """
    kinds = {name: _kind(feature) for name, feature in features.items()}
    known = ", ".join(f"{name} ({kind or 'other'})" for name, kind in kinds.items()) or "none"
    for key, column in (("image_column", image), ("mask_column", mask)):
        if column is not None and column not in kinds:
            raise DataError(f"data.{key}: {place} has no column {shown(column)}; there are {known}.")
    if mask is None:
        mask = next((name for name in MASK_NAMES if kinds.get(name) and name != image), None)
        if mask is None:
            raise DataError(f"{place}: no column is known to hold masks: {known}; name it with data.mask_column=...")
    if image is None:
        pictures = [name for name, kind in kinds.items() if kind == "picture" and name != mask]
        likely = [name for name in IMAGE_NAMES if name in pictures] or pictures
        if not likely or (len(likely) > 1 and likely[0] not in IMAGE_NAMES):
            raise DataError(f"{place}: no column is known to hold images: {known}; name it with data.image_column=...")
        image = likely[0]
    kind = kinds[mask]
    if kind is None or kinds[image] != "picture" or image == mask:
        raise DataError(
            f"{place}: images in {image} and masks in {mask} cannot be read ({known}); it takes pictures, and masks as "
            "pictures, lists of pictures, or objects with a segmentation.",
            "unreadable_file",
        )
    return Columns(image, mask, kind, *(_classes(features[mask]) if kind == "objects" else ()))


def read_row(table: Table, row: int, columns: Columns, size: tuple[int, int], rules: MaskRules) -> Stored:
    """The objects of one row, maybe none.

    Args:
        table: The table.
        row: Number of the row.
        columns: Where its masks are.
        size: (height, width) of its image in pixels.
        rules: How a mask picture becomes objects.

    Raises:
        DataError: a mask is missing, damaged, or has another size.
    """
    if columns.kind == "objects":
        return _read_objects(table, row, columns, size, rules.min_area)
    if columns.kind == "picture":
        file = MaskFile(Cell(table, row, columns.mask), rules)
        found = file.label_map(size)
        return Stored(file, found.names, found.classes, found.too_small)
    count = len(table.value(row, columns.mask) or ())
    single = replace(rules, mask_values="binary", instances="whole")
    files = [MaskFile(Cell(table, row, columns.mask, place), single) for place in range(count)]
    kept = [str(place + 1) for place, file in enumerate(files) if file.label_map(size).names]
    masks = MaskPictures(tuple(files[int(name) - 1] for name in kept))
    return Stored(masks, tuple(kept), (), count - len(kept))


def _read_objects(table: Table, row: int, columns: Columns, size: tuple[int, int], min_area: int) -> Stored:
    owner = f"{table.place}: row {row}, {columns.mask}"
    names, counts, classes = [], [], []
    too_small = crowds = 0
    for place, entry in enumerate(_entries(table.value(row, columns.mask), owner)):
        number = f"{owner}[{place}]"
        if entry.get("iscrowd") in (1, True):
            crowds += 1
            continue
        box = entry.get("bbox")
        if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
            raise DataError(f"{number} has the box {shown(box)}; it takes four finite numbers.", "bad_box")
        try:
            encoded, area = encode(_segmentation(entry.get("segmentation")), size)
        except DataError as error:
            raise DataError(f"{number} {error}.", error.kind) from error
        if area < min_area:
            too_small += 1
            continue
        identifier = entry.get("id")
        names.append(str(place + 1) if identifier is None else str(identifier))
        counts.append(encoded)
        if columns.class_column is not None:
            classes.append(_class(entry.get(columns.class_column), columns.class_names, number))
    if len(set(names)) < len(names):
        names = [str(position + 1) for position in range(len(names))]
    return Stored(EncodedMasks(tuple(counts)), tuple(names), tuple(classes), too_small, crowds)


def _entries(value: object, owner: str) -> list[dict[str, Any]]:
    """Objects as a list of mappings, out of that or of a mapping of lists."""
    if value is None:
        return []
    if isinstance(value, dict):
        columns = {key: column for key, column in value.items() if column is not None}
        lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
        if not lengths:
            return []
        if len(lengths) > 1 or -1 in lengths:
            raise DataError(f"{owner}: {', '.join(columns)} are not lists of one length; write the data set again.")
        return [{key: column[place] for key, column in columns.items()} for place in range(lengths.pop())]
    assert isinstance(value, list)  # by the type of the column
    if not all(isinstance(entry, dict) for entry in value):
        raise DataError(f"{owner}: has an object that is null; remove it.", "bad_annotation")
    return value


def _segmentation(value: object) -> object:
    """As COCO has it: one flat polygon becomes a list of polygons, and bytes become text."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return [value]
    if isinstance(value, dict) and isinstance(value.get("counts"), bytes):
        return value | {"counts": value["counts"].decode("latin-1")}
    return value


def _class(value: object, names: tuple[str, ...], owner: str) -> str:
    if value is None:
        return "unlabelled"
    if not names:
        return str(value)
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise DataError(
            f"{owner} has the class {shown(value)}; there are {len(names)}, and 0 is the first.", "bad_annotation"
        )
    return names[value]


def _kind(feature: Any) -> Kind | None:
    """What a column holds, if it can be used."""
    if _is_picture(feature):
        return "picture"
    inner = _inner(feature)
    if inner is not None and _is_picture(inner):
        return "pictures"
    fields = feature if isinstance(feature, dict) else inner
    return "objects" if isinstance(fields, dict) and "segmentation" in fields else None


def _is_picture(feature: Any) -> bool:
    from datasets import Image, Value

    if isinstance(feature, dict) and set(feature) == {"bytes", "path"}:
        feature = feature["bytes"]
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))


def _inner(feature: Any) -> Any:
    """The type of the elements of a list, None for anything else."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", None)


def _classes(feature: Any) -> tuple[str | None, tuple[str, ...]]:
    """The column of the classes of objects, and their names."""
    fields = feature if isinstance(feature, dict) else _inner(feature)
    column = next((name for name in _CLASS_NAMES if name in fields), None)
    kind = None if column is None else fields[column]
    names = getattr(kind, "names", None) or getattr(_inner(kind), "names", None)
    return column, tuple(names or ())
