"""The objects of one image as a map of numbers: one object per pixel, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


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

    def masks(self) -> NDArray[np.bool_]:
        """Bool [N, H, W]."""
        masks: NDArray[np.bool_] = self.labels[None] == np.arange(1, len(self.names) + 1, dtype=np.int32)[:, None, None]
        return masks

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


def numbered(values: NDArray[Any], wanted: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    """int32 map with i + 1 where `values` is `wanted[i]`, 0 where it is none of them; `wanted` ascends."""
    order = np.asarray(wanted, dtype=values.dtype)
    if not len(order):
        return np.zeros(values.shape, np.int32)
    place = np.searchsorted(order, values).clip(max=len(order) - 1)
    return np.where(order[place] == values, place + 1, 0).astype(np.int32)
