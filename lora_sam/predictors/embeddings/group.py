"""The rows of one group as a process sees them: where they are, and which of them it has found good."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.predictors.embeddings.index import Index, Place
from lora_sam.predictors.embeddings.layout import (
    INDEX,
    LEASE,
    CacheMiss,
    CacheUnavailable,
    RowSpec,
    describe,
    private_directory,
    unavailable,
)
from lora_sam.predictors.embeddings.locks import FileLock, directory_lock
from lora_sam.predictors.embeddings.shards import Shards, checksum

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# how finely it is known when a row was wanted last, so that runs which follow each other write nothing
_USED_SECONDS = 600.0


class OpenGroup:
    """A group of rows, open in the process that uses it; opened by the first method that needs it, closed by `close`.

    Attributes:
        path: Directory of the group.
        spec: What its rows have in common.
        index: Which row is where, on disk.
        shards: The rows.
        places: What was in the index when it was read last.
        damaged: Rows that this process found damaged.
        notes: What the user should know about the state in which the group was found.
    """

    def __init__(self, directory: Path, spec: RowSpec, *, counts_as_use: bool) -> None:
        self.path = directory / spec.name
        self.spec = spec
        self.index = Index(self.path / INDEX)
        self.shards = Shards(self.path, spec, "")
        self.places: dict[str, Place] = {}
        self.damaged = 0
        self.notes: list[str] = []
        self._counts_as_use = counts_as_use
        self._process: int | None = None
        self._lease: FileLock | None = None
        self._verified: dict[str, int] = {}
        self._signature = (0, 0)

    def ready(self) -> None:
        """Have the files open in this process. Raises `CacheUnavailable`."""
        if self._process != os.getpid():
            self._open()

    def close(self) -> None:
        """Let others remove the group."""
        if self._lease is not None:
            if self._process == os.getpid():
                self._note_use()
            self._lease.close()
        self._process = None
        self._lease = None
        self.shards = Shards(self.path, self.spec, "")
        self.places, self._verified = {}, {}

    def refresh(self) -> None:
        """Know what is in the index now. Raises `CacheUnavailable`."""
        self._signature = self.index.signature()
        generation, self.places = self.index.read()
        if generation != self.shards.generation:
            self.shards = Shards(self.path, self.spec, generation)
            self._verified = {}

    def refresh_if_changed(self) -> None:
        """The same, unless the file of the index looks as it did."""
        if self.index.signature() != self._signature:
            self.refresh()

    def verify(self, keys: Iterable[str], on_rows: Callable[[int, int], None] | None = None) -> None:
        """Check the rows of some keys that were not checked in this process, in the order in which they lie on disk."""
        due = [(place, key) for key in keys if (place := self.places.get(key)) is not None]
        damaged = {}
        for number, (place, key) in enumerate(sorted(due), start=1):
            if self._verified.get(key) != place.slot:
                try:
                    self._good_row(key, place)
                except (OSError, CacheMiss):
                    damaged[key] = place
            if on_rows is not None:
                on_rows(number, len(due))
        self._forget(damaged)

    def row(self, key: str, place: Place) -> torch.Tensor:
        """A row as it is on the disk, float16 or float32 [numbers]. Must not be written to.

        Its checksum is verified the first time in a process.

        Raises:
            CacheMiss: it is damaged.
        """
        try:
            if self._verified.get(key) == place.slot:
                return self.shards.view(place.slot)
            return self.shards.as_numbers(self._good_row(key, place))
        except (OSError, CacheMiss) as error:
            self._forget({key: place})
            raise CacheMiss(f"row {key} is damaged: {error}") from error

    def forget_verified(self) -> None:
        """Have every row checked again."""
        self._verified.clear()

    def touch(self, keys: Iterable[str]) -> None:
        """Note that rows are wanted now, where the directory can be written."""
        before = time.time() - _USED_SECONDS
        due = [key for key in keys if (place := self.places.get(key)) is not None and place.used < before]
        if due and self._counts_as_use:
            with suppress(CacheUnavailable):  # may be read-only
                self.index.touch(due)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else has the group open, which stays so within.

        For the holder of the directory's lock, without which somebody could open it meanwhile.
        """
        assert self._lease is not None
        try:
            yield self._lease.exclusive()
        finally:
            self._lease.shared()

    def free(self, slots: Sequence[int], alone: bool) -> None:
        """Let slots, and those whose rows are forgotten, be used again, if nobody else may still read them."""
        if alone:
            self.index.free(slots)
            self.refresh()
            # a row that is made again may get the same slot
            self._verified = {key: slot for key, slot in self._verified.items() if key in self.places}

    def _open(self) -> None:
        self.close()
        try:
            self._take()
        except BaseException:
            self.close()
            raise
        self._process = os.getpid()

    def _take(self) -> None:
        with unavailable(self.path.parent):
            private_directory(self.path.parent)
            with directory_lock(self.path.parent):
                self.path.mkdir(mode=0o700, exist_ok=True)
                if not stat.S_ISDIR(self.path.lstat().st_mode):
                    raise CacheUnavailable(f"{self.path} is not a directory; remove it.")
                describe(self.path, self.spec)
                self._lease = FileLock(self.path / LEASE)
                self._lease.shared()
                self._note_use()
                self._open_index()

    def _open_index(self) -> None:
        """For the holder of the directory's lock."""
        found = self.index.open()
        self.refresh()
        if found != "sound":
            with suppress(OSError):
                self.shards.remove_others()
        if found == "damaged":
            self.notes.append(
                f"the index of {self.path} was damaged and is now {self.path / 'index.damaged'}; its embeddings "
                "are made anew."
            )
        _, _, waiting = self.index.counts()
        if waiting:
            with suppress(CacheUnavailable), self.alone() as alone:  # may be read-only
                self.free([], alone)

    def _note_use(self) -> None:
        if self._counts_as_use:
            with suppress(OSError):  # may be read-only
                os.utime(self.path / LEASE)

    def _good_row(self, key: str, place: Place) -> NDArray[np.uint8]:
        """The bytes of a row, with the right checksum. Raises `OSError` or `CacheMiss`."""
        row = self.shards.load(place.slot)
        if checksum(key, row) != place.checksum:
            raise CacheMiss("its checksum is another")
        self._verified[key] = place.slot
        return row

    def _forget(self, damaged: Mapping[str, Place]) -> None:
        if not damaged:
            return
        self.damaged += len(damaged)
        for key in damaged:
            self.places.pop(key, None)
            self._verified.pop(key, None)
        with suppress(CacheUnavailable):  # another time, if it cannot be written now
            self.index.drop(damaged)
