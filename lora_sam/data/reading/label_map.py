"""The objects of one image as a map of numbers: one object per pixel, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.thin_arrays import thin_zeros

_MOST_COUNTED = 2**20  # larger values are sorted instead of counted


@dataclass(frozen=True)
class LabelMap:
    """N objects that do not overlap.

    Attributes:
        labels: int32 [H, W]: 0 for background, i + 1 for object i.
        names: Names of the N objects.
        classes: Class of each object; empty where there are no classes.
        too_small: Number of objects that were left out because of their area.
    """

    labels: NDArray[np.int32]
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    too_small: int = 0

    def masks(self, rows: NDArray[np.integer[Any]] | None = None) -> NDArray[np.bool_]:
        """Bool [N, H, W], or of the objects at `rows` alone, in that order."""
        wanted = range(len(self.names)) if rows is None else rows.tolist()
        windows = self._windows
        rows_used = sum(windows[row][0].stop - windows[row][0].start for row in wanted if windows[row] is not None)
        masks = thin_zeros((len(wanted), *self.labels.shape), rows_used / max(1, len(wanted) * len(self.labels)))
        for mask, row in zip(masks, wanted, strict=True):
            if (window := windows[row]) is not None:
                mask[window] = self.labels[window] == row + 1
        return masks

    def windows(self, rows: NDArray[np.integer[Any]] | None = None) -> MaskWindows | None:
        """What lies in the boxes of the masks, or of those at `rows`; None where one of all is empty."""
        windows = self._windows
        if any(window is None for window in windows):
            return None
        wanted = range(len(self.names)) if rows is None else rows.tolist()
        slices = [windows[row] for row in wanted]
        boxes = [(across.start, down.start, across.stop, down.stop) for down, across in slices]
        parts = tuple(self.labels[windows[row]] == row + 1 for row in wanted)
        return MaskWindows(self.labels.shape[:2], np.array(boxes, np.float32).reshape(-1, 4), parts)

    @cached_property
    def _windows(self) -> list[Any]:
        """Rows and columns of each object, as slices; None for one without a pixel."""
        from scipy import ndimage

        return list(ndimage.find_objects(self.labels, max_label=len(self.names)))

    def components(self) -> LabelMap:
        """Every object split into its components, connected through sides or corners.

        They are called "7.1", "7.2", ..., or "1", "2", ... when there was one object, of no class.
        """
        from scipy import ndimage

        parts = np.zeros_like(self.labels)
        names: list[str] = []
        classes: list[str] = []
        alone = len(self.names) == 1 and not self.classes
        for index, window in enumerate(ndimage.find_objects(self.labels)):
            found, count = ndimage.label(self.labels[window] == index + 1, structure=np.ones((3, 3)))
            parts[window] += np.where(found > 0, found + len(names), 0).astype(np.int32)
            names += [str(part) if alone else f"{self.names[index]}.{part}" for part in range(1, count + 1)]
            classes += [self.classes[index]] * count if self.classes else []
        return replace(self, labels=parts, names=tuple(names), classes=tuple(classes))

    def without_small(self, min_area: int) -> LabelMap:
        """The objects of at least `min_area` pixels, numbered anew; the others are counted."""
        areas = np.bincount(self.labels.ravel(), minlength=len(self.names) + 1)[1:]
        kept = areas >= min_area
        if kept.all():
            return self
        numbers = np.concatenate(([0], np.where(kept, np.cumsum(kept), 0))).astype(np.int32)
        rows = np.flatnonzero(kept)
        return LabelMap(
            numbers[self.labels],
            tuple(self.names[row] for row in rows),
            tuple(self.classes[row] for row in rows) if self.classes else (),
            self.too_small + len(areas) - len(rows),
        )


def stored_values(values: NDArray[Any]) -> NDArray[Any]:
    """The values that occur, ascending, as `numpy.unique` gives them, which sorts all pixels for it."""
    if not _is_countable(values):
        return np.unique(values)
    return np.flatnonzero(np.bincount(values.ravel())).astype(values.dtype)


def _is_countable(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" and values.dtype != np.uint64 and _in_table(values)


def _in_table(values: NDArray[Any]) -> bool:
    return values.size > 0 and int(values.min()) >= 0 and int(values.max()) < _MOST_COUNTED


def numbered(values: NDArray[Any], wanted: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    """int32 map with i + 1 where `values` is `wanted[i]`, 0 where it is none of them; `wanted` ascends."""
    order = np.asarray(wanted, dtype=values.dtype)
    if not len(order):
        return np.zeros(values.shape, np.int32)
    if _is_countable(values) and _in_table(order):
        numbers = np.zeros(max(int(values.max()), int(order[-1])) + 1, np.int32)
        numbers[order] = np.arange(1, len(order) + 1)
        looked_up: NDArray[np.int32] = numbers[values]
        return looked_up
    place = np.searchsorted(order, values).clip(max=len(order) - 1)
    return np.where(order[place] == values, place + 1, 0).astype(np.int32)
