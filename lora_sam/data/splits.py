"""Which labelled images train, which validate and which test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from lora_sam.data.skipping import Ledger
from lora_sam.errors import DataError
from lora_sam.seeds import generator_for
from lora_sam.structures import Sample


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

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample."""
        return self.source[self.indices[index]]


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
    """

    train: SampleSource
    val: SampleSource
    test: SampleSource
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


class ReadSplit(Protocol):
    """How a format reads one split."""

    def __call__(self, split: str, notes: list[str]) -> SampleSource | None:
        """The samples of `split`, or None when there is no such split; may add notes. Raises `DataError`."""
        ...


def read_splits(
    read: ReadSplit,
    ledger: Ledger,
    *,
    train: str,
    val: str | None,
    test: str | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    place: Callable[[str], str],
) -> Splits:
    """Read the splits by name, and carve those that are absent out of train.

    An absent split gets `fraction` of the training images, at least one, by a permutation that depends on `seed` and
    the number of images only; which images test gets does not depend on whether val is absent too.

    Args:
        read: Reads one split.
        ledger: Where `read` counts what it skips; closed here.
        train: Name of the training split.
        val: Name of the validation split; None to carve it out of train.
        test: Name of the test split; None to carve it out of train.
        val_fraction: Share of the training images for an absent val.
        test_fraction: Share of the training images for an absent test.
        seed: Seed of the run.
        place: Where a split by that name is looked for, for messages.

    Raises:
        DataError: train is absent, a split is empty, nothing is left to train on, or too much was skipped.
    """
    notes: list[str] = []
    found = {name: read(name, notes) for name in dict.fromkeys((train, val, test)) if name is not None}
    skipped = ledger.close()
    for name, source in found.items():
        if source is not None and len(source) == 0:
            raise DataError(f"{place(name)}: the split {name!r} is empty: no image with a labelled object. Add some.")
    rest = found[train]
    if rest is None:
        raise DataError(f"{place(train)}: does not exist, so there is nothing to train on; docs/data.md shows layouts.")
    present = {"test": found[test] if test is not None else None, "val": found[val] if val is not None else None}
    fractions = {"test": test_fraction, "val": val_fraction}
    order = [int(index) for index in generator_for(seed, "split").permutation(len(rest))]
    carved: dict[str, SampleSource] = {}
    for role, source in present.items():
        if source is None:
            count = max(1, round(fractions[role] * len(rest)))
            taken, order = order[:count], order[count:]
            carved[role] = Subset(rest, tuple(sorted(taken)))
            notes.append(f"no {role} split: {len(taken)} of {len(rest)} training images were set aside for it")
    if not order:
        raise DataError(
            f"{place(train)}: {len(rest)} images are too few to set aside {' and '.join(carved)}; "
            "add images, give these splits, or lower data.val_fraction and data.test_fraction."
        )
    training: SampleSource = Subset(rest, tuple(sorted(order))) if carved else rest
    splits = {"train": training} | {role: source or carved[role] for role, source in present.items()}
    notes.extend(_shared_images(splits))
    return Splits(splits["train"], splits["val"], splits["test"], skipped, tuple(notes))


def _shared_images(splits: dict[str, SampleSource]) -> list[str]:
    notes = []
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(set(splits[first].ids) & set(splits[second].ids))
        if shared:
            notes.append(f"{len(shared)} images are in both {first} and {second} (e.g. {shared[0]}): figures flatter")
    return notes
