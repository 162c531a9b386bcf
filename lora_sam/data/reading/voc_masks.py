"""The objects of an image in the masks of Pascal VOC."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading.class_table import (
    VOID,
    VOID_COLOUR,
    ClassTable,
    colour_codes,
    packed,
    voc_colour,
)
from lora_sam.data.reading.images import is_jpeg, pixel_kind
from lora_sam.data.reading.label_map import LabelMap, numbered
from lora_sam.data.reading.labelled import check_size
from lora_sam.data.reading.mask_values import read_mask


@dataclass(frozen=True)
class VocMasks:
    """The masks of one image, and how to read them.

    Attributes:
        objects: Mask in `SegmentationObject`, or None to make objects out of classes.
        classes: Mask in `SegmentationClass`, or None where objects have no class.
        table: What its values or colours mean.
        components: Whether every connected component of a class is an object of its own; without `objects` only.
        min_area: Objects with fewer pixels are left out.
    """

    objects: Path | None
    classes: Path | None
    table: ClassTable = field(repr=False)
    components: bool
    min_area: int

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `label_map` does."""
        return self.mapped(size).masks()

    def mapped(self, size: tuple[int, int]) -> LabelMap:
        """See `lora_sam.data.reading.labelled.StoredAsMap`."""
        objects = self._class_objects(size) if self.objects is None else segmented_objects(self.objects, size)
        return objects.without_small(self.min_area)

    def ignored_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """The void of VOC, between objects and background, and objects that are too small, bool [H, W]."""
        objects = self._class_objects(size) if self.objects is None else segmented_objects(self.objects, size)
        path = self.objects or self.classes
        assert path is not None
        coloured = pixel_kind(path) == "colour"
        void = (colour_codes(path) if coloured else read_mask(path)) == (VOID_COLOUR if coloured else VOID)
        small = (objects.labels != 0) & (objects.without_small(self.min_area).labels == 0)
        neither: NDArray[np.bool_] = (void & (objects.labels == 0)) | small
        return neither if neither.any() else None

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects with their classes, maybe none.

        Raises:
            DataError: a mask cannot be read, is a JPEG, has another size, an unknown class, or an object without one.
        """
        if self.objects is None:
            return self._class_objects(size).without_small(self.min_area)
        objects = segmented_objects(self.objects, size)
        if self.classes is not None and objects.names:
            objects = LabelMap(objects.labels, objects.names, self._classes_of(objects, self.classes, size))
        return objects.without_small(self.min_area)

    def _class_objects(self, size: tuple[int, int]) -> LabelMap:
        assert self.classes is not None
        objects = self.table.objects(self.classes, size)
        return objects.components() if self.components else objects

    def _classes_of(self, objects: LabelMap, path: Path, size: tuple[int, int]) -> tuple[str, ...]:
        """For each object the class that most of its pixels have, of two as frequent the first of the table."""
        numbers = self.table.read(path, size)
        columns = len(self.table.names) + 1
        counts = np.bincount((objects.labels.astype(np.int64) * columns + numbers).ravel())
        counts = np.resize(np.pad(counts, (0, -len(counts) % columns)), (-(-len(counts) // columns), columns))[1:, 1:]
        for name, row in zip(objects.names, counts, strict=True):
            if not row.any():
                raise DataError(
                    f"{path}: has no class for object {name} of {self.objects}; fill it there, or set "
                    "data.instances=classes."
                )
        return tuple(self.table.names[int(row.argmax())] for row in counts)


def segmented_objects(path: Path, size: tuple[int, int]) -> LabelMap:
    """The objects of a mask in `SegmentationObject`, named by their index in VOC's palette; maybe none.

    Raises:
        DataError: it cannot be read, is a JPEG, or has another size than (H, W) = `size`.
    """
    if is_jpeg(path):
        raise DataError(f"{path}: JPEG blurs the indices of objects; save masks as PNG.", "ambiguous_mask")
    check_size(path, size)
    coloured = pixel_kind(path) == "colour"
    values = colour_codes(path) if coloured else read_mask(path)
    stored = np.unique(values)
    stored = stored[(stored != 0) & (stored != (VOID_COLOUR if coloured else VOID))]
    if not coloured:
        return LabelMap(numbered(values, stored), tuple(str(int(value)) for value in stored))
    palette = {packed(voc_colour(index)): index for index in range(256)}
    indices = [palette.get(int(value)) for value in stored]
    names = [
        f"#{int(value):06x}" if index is None else str(index) for value, index in zip(stored, indices, strict=True)
    ]
    # in the order of the indices, as a palette image would have them
    order = sorted(range(len(names)), key=lambda row: (indices[row] is None, indices[row] or 0, row))
    places = np.zeros(len(names) + 1, np.int32)
    places[np.array(order, dtype=np.intp) + 1] = np.arange(1, len(names) + 1)
    return LabelMap(places[numbered(values, stored)], tuple(names[row] for row in order))
