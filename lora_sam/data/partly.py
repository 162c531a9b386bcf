"""Samples with some of their objects: the others never become arrays, which in dense images are most of the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Sample
from lora_sam.data.sources import SampleSource, labels_of
from lora_sam.data.splits import Subset


@runtime_checkable
class ReadsSome(Protocol):
    """A source that reads some objects of a sample without the others."""

    def some(
        self, index: int, rows: NDArray[np.int64], *, decode: bool, union: bool
    ) -> tuple[Sample, NDArray[np.bool_] | None]:
        """See `some_of`."""
        ...


@dataclass(frozen=True)
class _Place:
    source: SampleSource
    index: int


def some_of(
    source: SampleSource, index: int, rows: NDArray[np.int64], *, decode: bool = True, union: bool = False
) -> tuple[Sample, NDArray[np.bool_] | None]:
    """The sample with the objects at `rows`, and the pixels [H, W] of all its objects if these are wanted.

    The same, bit for bit, as `source[index].only(rows)` and the union of `source[index].masks`.

    Args:
        source: Of samples.
        index: Which of them.
        rows: Places of the objects, in order.
        decode: Whether pixels are needed; the image is black otherwise, where the source can leave it out.
        union: Whether the pixels of all objects are wanted.

    Raises:
        DataError: as the source does.
    """
    place = _Place(source, index)
    while isinstance(place.source, Subset):
        place = _Place(place.source.source, place.source.indices[place.index])
    if isinstance(place.source, ReadsSome):
        return place.source.some(place.index, rows, decode=decode, union=union)
    whole = place.source[place.index] if decode else labels_of(place.source, place.index)
    return whole.only(rows), np.any(whole.masks, axis=0) if union else None
