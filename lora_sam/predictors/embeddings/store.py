"""What the frozen part of the image encoder makes of images, kept on disk and shared by processes.

A directory per `RowSpec` holds rows of one size in files of many, and an index of which row is where. A row is on the
disk before the index names it, so whoever is killed leaves rows that are whole or not there. Nobody overwrites a row
that a process may read: slots are used again only while no other process has the group open.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lora_sam.predictors.embeddings.eviction import removable, remove, remove_leftovers, shortage
from lora_sam.predictors.embeddings.group import OpenGroup
from lora_sam.predictors.embeddings.index import Place, known_pixels, note_pixels
from lora_sam.predictors.embeddings.layout import (
    BUILDER,
    CacheMiss,
    CacheUnavailable,
    RowSpec,
    RowTooLarge,
    size_of,
    unavailable,
)
from lora_sam.predictors.embeddings.locks import PATIENCE_SECONDS, FileLock, directory_lock
from lora_sam.predictors.embeddings.shards import as_stored, checksum

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["CacheMiss", "CacheUnavailable", "EmbeddingCache", "RowSpec", "RowTooLarge"]

_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 0.5
_INDEX_BYTES = 256


class EmbeddingCache:
    """The rows of one group. May be pickled: the copy opens the files when it is used, in whatever process it is.

    Attributes:
        directory: The cache directory, which holds all groups.
        spec: What the rows have in common.
        max_bytes: Largest size of the whole directory.
    """

    def __init__(self, directory: Path, spec: RowSpec, *, max_bytes: int, counts_as_use: bool = True) -> None:
        """Nothing is opened before it is needed; `open` does it at once.

        Args:
            directory: The cache directory.
            spec: What the rows have in common.
            max_bytes: Largest size of the whole directory.
            counts_as_use: Whether this keeps group and rows from being the ones used least recently.
        """
        self.directory = directory
        self.spec = spec
        self.max_bytes = max_bytes
        self._counts_as_use = counts_as_use
        self._group = OpenGroup(directory, spec, counts_as_use=counts_as_use)
        self._wanted: set[str] = set()

    @classmethod
    def open(cls, directory: Path, spec: RowSpec, *, max_bytes: int) -> Self:
        """Open the group of `spec`, and make it where there is none.

        Args:
            directory: The cache directory; made, for its owner alone, where there is none.
            spec: What the rows have in common.
            max_bytes: Largest size of the whole directory, all groups together.

        Raises:
            CacheUnavailable: it cannot be written, has no locks, or holds something else.
        """
        cache = cls(directory, spec, max_bytes=max_bytes)
        cache._group.ready()
        return cache

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Positions in `keys`, the first of each key, that have no good row.

        The checksum of every row that is there is verified, once in a process; what is damaged is forgotten.

        Raises:
            CacheUnavailable: the index cannot be read.
        """
        self._group.ready()
        self._group.refresh()
        first = _first_positions(keys)
        self._wanted.update(first)
        self._group.verify(first)
        self._group.touch(first)
        return [position for key, position in first.items() if key not in self._group.places]

    def fill(
        self,
        keys: Sequence[str],
        make: Callable[[list[int]], NDArray[np.float32]],
        *,
        batch: int = 1,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> int:
        """Have a good row for every key. Of all processes one makes rows of a group at a time, each row once.

        Room for all of them, under the limit and on the disk, is seen to before the first is made.

        Args:
            keys: Keys of rows; SHA-256 as hexadecimal digits.
            make: Makes the rows of some positions of `keys`: float32 [n, *shape].
            batch: Largest number of positions given to `make`.
            on_rows: Called with how many of the rows that were missing at first are there, whoever made them, and how
                many those were.

        Returns:
            How many rows this process made.

        Raises:
            CacheUnavailable: there is no room, the disk is full, or the directory is read-only; or who makes rows now
                has been stopped for `PATIENCE_SECONDS`. Rows made before stay.
            RowTooLarge: a number does not fit in float16.
        """
        lacking = self.missing(keys)
        if not lacking:
            return 0
        self._make_room(len(lacking))
        total, made, wait = len(lacking), 0, _SHORTEST_WAIT
        told, pulse, end = None, None, math.inf
        with unavailable(self.directory):
            builder = FileLock(self._group.path / BUILDER)
        try:
            while lacking:
                if on_rows is not None and told != len(lacking):
                    on_rows(total - len(lacking), total)
                    told = len(lacking)
                if builder.exclusive():
                    try:
                        with builder.alive():
                            self._group.refresh()
                            todo = self._absent(keys, lacking)[:batch]
                            self._build(keys, todo, make)
                        made += len(todo)
                    finally:
                        builder.release()
                    wait, pulse = _SHORTEST_WAIT, None
                else:
                    if pulse != (pulse := (builder.beats(), len(lacking))):
                        end = time.monotonic() + PATIENCE_SECONDS
                    elif time.monotonic() > end:
                        raise CacheUnavailable(
                            f"another process holds {self._group.path / BUILDER} and has done nothing for "
                            f"{PATIENCE_SECONDS:.0f} s, as if it was stopped; end it, or choose another place with "
                            "cache.directory=<directory>"
                        )
                    time.sleep(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
                    self._group.refresh_if_changed()
                lacking = self._absent(keys, lacking)
        finally:
            builder.close()
        if on_rows is not None:
            on_rows(total, total)
        return made

    def read(self, key: str) -> torch.Tensor:
        """A row, as a float32 tensor [*shape] of its own.

        Raises:
            CacheMiss: there is no such row, or it is damaged, or the cache cannot be opened in this process.
        """
        import torch

        group = self._group
        try:
            group.ready()
            if key not in group.places:
                group.refresh_if_changed()
        except CacheUnavailable as error:
            raise CacheMiss(str(error)) from error
        place = group.places.get(key)
        if place is None:
            raise CacheMiss(f"no row {key}")
        return group.row(key, place).view(self.spec.shape).to(torch.float32, copy=True)

    def verify(self, on_rows: Callable[[int, int], None] | None = None) -> int:
        """Check every row now; those that are damaged are forgotten and counted. Returns how many were looked at.

        Args:
            on_rows: Called with how many have been looked at, and how many there are.

        Raises:
            CacheUnavailable: the index cannot be read.
        """
        self._group.ready()
        self._group.refresh()
        self._group.forget_verified()
        keys = tuple(self._group.places)
        self._group.verify(keys, on_rows)
        return len(keys)

    def known_pixels(self, file_digests: Sequence[str]) -> dict[str, str]:
        """Digest of the decoded pixels by the SHA-256 of the image file, for the files of which it was noted."""
        return known_pixels(self.directory, file_digests)

    def note_pixels(self, pixels: Mapping[str, str]) -> None:
        """Note the digest of the decoded pixels by the SHA-256 of the image file; one that cannot be is not."""
        note_pixels(self.directory, pixels)

    def close(self) -> None:
        """Let others remove the group; using it again opens it again."""
        self._group.close()

    @property
    def damaged(self) -> int:
        """Rows that this process found damaged; they are made again like those that are missing."""
        return self._group.damaged

    @property
    def notes(self) -> list[str]:
        """What the user should know about the state in which the group was found."""
        return self._group.notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "spec": self.spec,
            "max_bytes": self.max_bytes,
            "counts_as_use": self._counts_as_use,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _absent(self, keys: Sequence[str], positions: Iterable[int]) -> list[int]:
        return [position for position in positions if keys[position] not in self._group.places]

    def _build(self, keys: Sequence[str], todo: list[int], make: Callable[[list[int]], NDArray[np.float32]]) -> None:
        """Make rows and enter them. For the holder of the builder's lock."""
        if not todo:
            return
        self._make_room(len(todo))
        slots = self._group.index.allocate(len(todo))
        rows = as_stored(make(todo), len(todo), self.spec)
        with unavailable(self.directory):
            self._group.shards.write(slots, rows)
        now = time.time()
        places = {
            keys[position]: Place(slot, checksum(keys[position], row), now)
            for position, slot, row in zip(todo, slots, rows, strict=True)
        }
        self._group.index.add(places)
        self._group.places.update(places)

    def _make_room(self, rows: int) -> None:
        """Have room for so many more rows: other groups go first, then rows of this one that nobody wants now."""
        if not os.access(self._group.path, os.W_OK | os.X_OK):
            raise CacheUnavailable(
                f"the embedding cache cannot be written: {self._group.path} is read-only; choose another place with "
                "cache.directory=<directory>, or go without with trainer.cache=off."
            )
        _, again, _ = self._group.index.counts()
        size = self.spec.row_bytes + _INDEX_BYTES
        needed = max(0, rows - again) * size
        with unavailable(self.directory), directory_lock(self.directory):
            if shortage(self.directory, needed, self.max_bytes).bytes <= 0:
                return
            remove_leftovers(self.directory)
            found = shortage(self.directory, needed, self.max_bytes)
            with removable(self.directory, found.bytes, self._group.path) as others, self._group.alone() as alone:
                # where the group does not grow there is nothing that it could be refused
                lacking = max(0, min(found.bytes - sum(size_of(path) for path in others), needed))
                unwanted = self._unwanted(-(-lacking // size)) if alone else []
                if lacking > len(unwanted) * size:
                    raise CacheUnavailable(found.explained(self.directory, rows))
                for path in others:
                    remove(path)
                if unwanted:
                    self._group.free(unwanted, alone)

    def _unwanted(self, count: int) -> list[int]:
        """Slots of at most so many rows that this process has not asked for, those used least recently first."""
        found = sorted((place.used, place.slot) for key, place in self._group.places.items() if key not in self._wanted)
        return [slot for _, slot in found[:count]]


def _first_positions(keys: Sequence[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    return first
