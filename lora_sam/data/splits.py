"""Which labelled images train, which validate and which test."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lora_sam.core.groups import Parts
from lora_sam.core.structures import Sample
from lora_sam.data.contents import fingerprint_of
from lora_sam.data.noticed import Notes, Noticed
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.data.sources import Classified, SampleSource, file_digest_of, groups_of, labels_of

SPLIT_WORD = re.compile(r"(?<![a-z])(?:train|training|val|valid|validation|test|testing)(?![a-z])", re.IGNORECASE)
"""A split in the name of a file."""

_SPELLINGS = {"train": ("training",), "val": ("valid", "validation"), "test": ("testing",)}


@dataclass(frozen=True)
class Subset:
    """Some samples of another source."""

    source: SampleSource
    indices: tuple[int, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the samples, in order."""
        return tuple(self.source.ids[index] for index in self.indices)

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every image in pixels."""
        return tuple(self.source.sizes[index] for index in self.indices)

    @cached_property
    def object_counts(self) -> tuple[int, ...] | None:
        """Number of objects of every sample, where the other source knows it."""
        counts = self.source.object_counts
        return None if counts is None else tuple(counts[index] for index in self.indices)

    @cached_property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """For every sample the class of each object; empty where the data has no classes."""
        if not isinstance(self.source, Classified):
            return ((),) * len(self.indices)
        return tuple(self.source.classes[index] for index in self.indices)

    @cached_property
    def groups(self) -> tuple[str | None, ...]:
        """What every sample is part of; None for one that is a whole."""
        groups = groups_of(self.source)
        return tuple(groups[index] for index in self.indices)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample."""
        return self.source[self.indices[index]]

    def labels(self, index: int) -> Sample:
        """See `LabelsApart`."""
        return labels_of(self.source, self.indices[index])

    def file_digest(self, index: int) -> str | None:
        """See `LabelsApart`."""
        return file_digest_of(self.source, self.indices[index])

    def fingerprint(self, index: int, *, thorough: bool) -> tuple[str, str]:
        """See `lora_sam.data.contents.Fingerprinted`."""
        return fingerprint_of(self.source, self.indices[index], thorough=thorough)


@dataclass(frozen=True)
class Splits:
    """A data set that was opened and checked.

    Attributes:
        train: Samples to train on; not empty.
        val: Samples that choose the best checkpoint; not empty.
        test: Samples for the final table; not empty.
        skipped: One message for every image or object that was skipped because of an error.
        notes: What a user should know about how the labels were read: splits that were carved out of train, objects
            and images that were left out on purpose, images in two splits.
        scale: How values of more than 8 bits become grey levels; None where no image has such.
        parts: What samples are parts of; None where each is a whole.
        noticed: Those of the notes that say what may be wrong, with their kinds.
    """

    train: SampleSource
    val: SampleSource
    test: SampleSource
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    scale: PixelScale | None = None
    parts: Parts | None = None
    noticed: tuple[Noticed, ...] = ()

    def with_more(self, more: Notes) -> Splits:
        """The same data with further notes."""
        return replace(self, notes=(*self.notes, *more.texts), noticed=(*self.noticed, *more.noticed))

    def to_json(self) -> dict[str, Any]:
        """Content of `splits.json`: ids by split, and the scale of pixels where there is one."""
        return {**split_ids(self), **({} if self.scale is None else {"scale": self.scale.to_json()})}


def split_ids(splits: Splits) -> dict[str, list[str]]:
    """Ids of the samples of train, val and test: what a run writes down, so that its splits can be had again."""
    return {role: list(getattr(splits, role).ids) for role in ("train", "val", "test")}


def class_counts(source: SampleSource) -> dict[str, int]:
    """Number of objects of every class, the most frequent first; empty where the data has no classes."""
    if not isinstance(source, Classified):
        return {}
    counts = Counter(name for classes in source.classes for name in classes)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def spellings(split: str) -> tuple[str, ...]:
    """The name of a split, and how else it may be spelled."""
    return split, *_SPELLINGS.get(split, ())
