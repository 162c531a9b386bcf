"""The objects in a mask file: one binary object, connected components, or one object per label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.images import is_jpeg, read_mask
from lora_sam.data.labelled import size_mismatch
from lora_sam.errors import DataError

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

    path: Path
    rules: MaskRules

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `objects` does."""
        labels, names, _ = self.objects(size)
        masks: NDArray[np.bool_] = labels[None] == np.arange(1, len(names) + 1, dtype=np.int32)[:, None, None]
        return masks

    def objects(self, size: tuple[int, int]) -> tuple[NDArray[np.int32], tuple[str, ...], int]:
        """The label map of the objects, their names, and how many were too small.

        Returns:
            int32 [H, W] with 0 for background and i + 1 for object i; the names of the N objects, from the stored
            values ("7", or "7.2" for its second component; "1", "2", ... in binary masks); the number of objects left
            out because they have fewer than `min_area` pixels.

        Raises:
            DataError: the mask cannot be read, has another size, no foreground, or values that may mean two things.
        """
        values = read_mask(self.path)
        if values.shape != size:
            raise size_mismatch(str(self.path), values.shape, "in its image", size)
        stored = np.unique(values)
        if self._is_binary(values, stored):
            soft = is_jpeg(self.path) or np.count_nonzero(stored) > 1
            labels = (values >= self.rules.threshold if soft else values != 0).astype(np.int32)
            labelled: list[str] = ["1"]
        else:
            foreground = stored[stored != 0]
            labels = np.where(values == 0, 0, np.searchsorted(foreground, values) + 1).astype(np.int32)
            labelled = [str(int(value)) for value in foreground]
        if not labels.any():
            hint = f" at or above data.threshold={self.rules.threshold}" if stored[-1] else ""
            raise DataError(f"{self.path}: an empty mask, without a pixel{hint}; label an object, or remove the pair.")
        if self.rules.instances == "whole":
            labels, labelled = (labels != 0).astype(np.int32), ["1"]
        elif self.rules.instances == "components":
            labels, labelled = _components(labels, labelled)
        return _without_small(labels, labelled, self.rules.min_area)

    def _is_binary(self, values: NDArray[Any], stored: NDArray[Any]) -> bool:
        if is_jpeg(self.path):
            if self.rules.mask_values == "labels":
                raise DataError(f"{self.path}: JPEG blurs label values; save label masks as PNG or TIFF.")
            return True
        if self.rules.mask_values != "auto":
            return self.rules.mask_values == "binary"
        foreground = stored[stored != 0]
        if len(foreground) > 2 and foreground[-1] == 255:
            share = np.count_nonzero(values == 255) / np.count_nonzero(values)
            if share > _SOFT_SHARE:
                raise DataError(
                    f"{self.path}: {share:.0%} of the foreground is 255, with {len(foreground) - 1} values below it: "
                    "set data.mask_values=binary if these are soft edges, or data.mask_values=labels."
                )
        return len(foreground) <= 1


def _components(labels: NDArray[np.int32], names: list[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Split every label into its components, connected through sides or corners."""
    from scipy import ndimage

    parts = np.zeros_like(labels)
    part_names: list[str] = []
    for index, window in enumerate(ndimage.find_objects(labels)):
        components, count = ndimage.label(labels[window] == index + 1, structure=np.ones((3, 3)))
        parts[window] += np.where(components > 0, components + len(part_names), 0).astype(np.int32)
        single = len(names) == 1
        part_names += [str(part) if single else f"{names[index]}.{part}" for part in range(1, count + 1)]
    return parts, part_names


def _without_small(
    labels: NDArray[np.int32], names: list[str], min_area: int
) -> tuple[NDArray[np.int32], tuple[str, ...], int]:
    areas = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:]
    kept = areas >= min_area
    if kept.all():
        return labels, tuple(names), 0
    renumbered = np.concatenate(([0], np.where(kept, np.cumsum(kept), 0))).astype(np.int32)
    return renumbered[labels], tuple(name for name, keep in zip(names, kept, strict=True) if keep), int((~kept).sum())
