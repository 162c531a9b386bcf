"""The objects in a mask file: one binary object, connected components, or one object per label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading.images import ImageFile, is_jpeg, read_mask
from lora_sam.data.reading.label_map import LabelMap, numbered
from lora_sam.data.reading.labelled import check_size

MaskValues = Literal["auto", "binary", "labels"]
Instances = Literal["auto", "whole", "components"]

_SOFT_SHARE = 0.8  # of a mask's foreground at 255, with more values below: rather a soft edge than labels


@dataclass(frozen=True)
class MaskRules:
    """How the values of mask files become objects; fields as in `lora_sam.data.folder.Folder`."""

    mask_values: MaskValues
    instances: Instances
    threshold: int
    min_area: int


@dataclass(frozen=True)
class MaskFile:
    """One mask file, and how to read it."""

    path: ImageFile
    rules: MaskRules

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `label_map` does."""
        return self.label_map(size).masks()

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects, named by the stored values ("7", or "7.2" for its second component; "1", ... in binary masks).

        Raises:
            DataError: the mask cannot be read, has another size, no foreground, or values that may mean two things.
        """
        check_size(self.path, size)
        values = read_mask(self.path)
        stored = np.unique(values)
        if self._is_binary(values, stored):
            soft = is_jpeg(self.path) or np.count_nonzero(stored) > 1
            objects = LabelMap((values >= self.rules.threshold if soft else values != 0).astype(np.int32), ("1",))
        else:
            foreground = stored[stored != 0]
            objects = LabelMap(numbered(values, foreground), tuple(str(int(value)) for value in foreground))
        if not objects.labels.any():
            hint = f" at or above data.threshold={self.rules.threshold}" if stored[-1] else ""
            raise DataError(
                f"{self.path}: an empty mask, without a pixel{hint}; label an object, or remove the pair.", "empty_mask"
            )
        if self.rules.instances == "whole":
            objects = LabelMap((objects.labels != 0).astype(np.int32), ("1",))
        elif self.rules.instances == "components":
            objects = objects.components()
        return objects.without_small(self.rules.min_area)

    def _is_binary(self, values: NDArray[Any], stored: NDArray[Any]) -> bool:
        if is_jpeg(self.path):
            if self.rules.mask_values == "labels":
                raise DataError(
                    f"{self.path}: JPEG blurs label values; save label masks as PNG or TIFF.", "ambiguous_mask"
                )
            return True
        if self.rules.mask_values != "auto":
            return self.rules.mask_values == "binary"
        foreground = stored[stored != 0]
        if len(foreground) > 2 and foreground[-1] == 255:
            share = np.count_nonzero(values == 255) / np.count_nonzero(values)
            if share > _SOFT_SHARE:
                raise DataError(
                    f"{self.path}: {share:.0%} of the foreground is 255, with {len(foreground) - 1} values below it: "
                    "set data.mask_values=binary if these are soft edges, or data.mask_values=labels.",
                    "ambiguous_mask",
                )
        return len(foreground) <= 1
