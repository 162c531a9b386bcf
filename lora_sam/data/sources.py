"""What a source of labelled images can be asked without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lora_sam.core.structures import Sample


class SampleSource(Protocol):
    """Samples that can be counted and described without decoding them."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the samples, in order."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of every image in pixels."""
        ...

    @property
    def object_counts(self) -> Sequence[int] | None:
        """Number of objects of every sample, each at least 1; None where counting would mean drawing every image."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample."""
        ...


@runtime_checkable
class Classified(Protocol):
    """A source that knows the classes of its objects without decoding them."""

    @property
    def classes(self) -> Sequence[tuple[str, ...]]:
        """For every sample the class of each object; empty where the data has no classes."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """A source whose samples may be parts of something larger."""

    @property
    def groups(self) -> Sequence[str | None]:
        """What every sample is part of; see `lora_sam.core.structures.Sample.group`."""
        ...


@runtime_checkable
class LabelsApart(Protocol):
    """A source that reads labels without decoding the image they belong to."""

    def labels(self, index: int) -> Sample:
        """The sample with an image that is black: for whoever needs its size and labels only."""
        ...

    def file_digest(self, index: int) -> str | None:
        """SHA-256 of the image's file in hexadecimal; None where there is no such file."""
        ...


def labels_of(source: SampleSource, index: int) -> Sample:
    """The sample, with a black image where its source can read labels alone."""
    return source.labels(index) if isinstance(source, LabelsApart) else source[index]


def groups_of(source: SampleSource) -> tuple[str | None, ...]:
    """What every sample is part of; None for one that is a whole."""
    return tuple(source.groups) if isinstance(source, Grouped) else (None,) * len(source)


def file_digest_of(source: SampleSource, index: int) -> str | None:
    """SHA-256 of the image's file in hexadecimal; None where its source knows no file."""
    return source.file_digest(index) if isinstance(source, LabelsApart) else None
