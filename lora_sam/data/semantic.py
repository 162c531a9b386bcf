"""All objects of a class as one: semantic segmentation with instance tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Sample
from lora_sam.data.contents import fingerprint_of
from lora_sam.data.sources import Classified, SampleSource, file_digest_of, groups_of, labels_of
from lora_sam.data.splits import Splits

WHOLE = "object"
"""Name of the one object of an image whose objects have no classes."""


@dataclass(frozen=True)
class ClassMasks:
    """A source whose samples have one object for every class that is in the image: the union of its masks.

    Objects without classes are all of one. Classes are in alphabetical order; their names are the ids of the objects.
    """

    source: SampleSource

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.source)

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the samples, in order."""
        return self.source.ids

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of every image in pixels."""
        return self.source.sizes

    @cached_property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """For every sample the classes in it; empty where the data has none."""
        if not isinstance(self.source, Classified):
            return ((),) * len(self.source)
        return tuple(tuple(sorted(set(classes))) for classes in self.source.classes)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """What every sample is part of; None for one that is a whole."""
        return groups_of(self.source)

    @cached_property
    def object_counts(self) -> tuple[int, ...] | None:
        """Number of classes of every sample."""
        return tuple(max(1, len(classes)) for classes in self.classes)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample. Raises `DataError` as the other source does."""
        return _united(self.source[index])

    def labels(self, index: int) -> Sample:
        """See `lora_sam.data.sources.LabelsApart`."""
        return _united(labels_of(self.source, index))

    def file_digest(self, index: int) -> str | None:
        """See `lora_sam.data.sources.LabelsApart`."""
        return file_digest_of(self.source, index)

    def fingerprint(self, index: int, *, thorough: bool) -> tuple[str, str]:
        """See `lora_sam.data.contents.Fingerprinted`."""
        return fingerprint_of(self.source, index, thorough=thorough)


def _united(sample: Sample) -> Sample:
    if not sample.classes:
        whole: NDArray[np.bool_] = np.any(sample.masks, axis=0)[None]
        return replace(sample, masks=whole, object_ids=(WHOLE,))
    names = tuple(sorted(set(sample.classes)))
    of_class = np.array(sample.classes)
    masks = np.stack([sample.masks[of_class == name].any(axis=0) for name in names])
    return replace(sample, masks=masks, object_ids=names, classes=names)


def by_class(splits: Splits) -> Splits:
    """The same splits with one object for every class of an image."""
    train, val, test = (ClassMasks(source) for source in (splits.train, splits.val, splits.test))
    return replace(splits, train=train, val=val, test=test)
