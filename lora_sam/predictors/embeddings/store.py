"""What the frozen part of the image encoder makes of images, kept on disk and shared by processes.

A directory per `RowSpec` holds a file per row, by the digest of the image's pixels. A row is written beside its place
and renamed, so whoever is killed leaves rows that are whole or not there, and nobody sees a row change. Every read
checks the digest that a row carries.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lora_sam.predictors.embeddings import signs
from lora_sam.predictors.embeddings.eviction import make_room, remove_old
from lora_sam.predictors.embeddings.layout import (
    BUILDERS,
    USERS,
    CacheMiss,
    CacheUnavailable,
    RowSpec,
    RowTooLarge,
    make_group,
    own_directory,
    unavailable,
)
from lora_sam.predictors.embeddings.rows import as_stored, read_row, row_path, rows_of, touch, write_row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Make = Callable[[list[int]], Mapping[str, NDArray[np.float32]]]

__all__ = ["CacheMiss", "CacheUnavailable", "EmbeddingCache", "RowSpec", "RowTooLarge"]

# how long what others add may go unnoticed; many rows are listed less often, so that it takes a fiftieth of the time
_RECOUNT_SECONDS, _RECOUNT_SHARE = 10.0, 50
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 0.5


class EmbeddingCache:
    """The rows of one group. May be pickled: the copy is used in whatever process it is.

    Attributes:
        directory: The cache directory, which holds all groups.
        spec: What the rows have in common.
        max_bytes: Largest size of the whole directory.
        damaged: Rows that this process found damaged; they are made again like those that are missing.
        notes: What the user should know about the state in which the directory was found.
    """

    def __init__(self, directory: Path, spec: RowSpec, *, max_bytes: int) -> None:
        """Nothing is opened before it is needed; `open` does it at once.

        Args:
            directory: The cache directory.
            spec: What the rows have in common.
            max_bytes: Largest size of the whole directory.
        """
        self.directory = directory
        self.spec = spec
        self.max_bytes = max_bytes
        self.damaged = 0
        self.notes: list[str] = []
        self._group = directory / spec.name
        self._process: int | None = None
        self._user: signs.Sign | None = None
        self._wanted: set[str] = set()
        self._checked: set[str] = set()
        self._unreadable: set[str] = set()
        self._recount = 0.0

    @classmethod
    def open(cls, directory: Path, spec: RowSpec, *, max_bytes: int) -> Self:
        """Open the group of `spec`, and make it where there is none.

        Args:
            directory: The cache directory; made, for its owner alone, where there is none.
            spec: What the rows have in common.
            max_bytes: Largest size of the whole directory, all groups together.

        Raises:
            CacheUnavailable: it cannot be written, or holds something else.
        """
        cache = cls(directory, spec, max_bytes=max_bytes)
        cache._enter()
        return cache

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Positions in `keys`, the first of each key, that have no good row; the others count as used now.

        Every row that is there is read and checked, once in a process; what is damaged is removed.

        Raises:
            CacheUnavailable: the group cannot be opened.
        """
        self._enter()
        first: dict[str, int] = {}
        for position, key in enumerate(keys):
            first.setdefault(key, position)
        self._wanted.update(first)
        return [position for key, position in first.items() if not self._is_good(key)]

    def fill(
        self, keys: Sequence[str], make: Make, *, batch: int = 1, on_rows: Callable[[int, int], None] | None = None
    ) -> int:
        """Have a good row for every key. Of all processes one makes a row, while the others make other rows.

        Two may make the same row where one has shown no sign of life for `signs.PATIENCE_SECONDS`, or where two find
        that out of a third in the same moment. Both make the same numbers, and who is done last replaces the file.

        Room for all of them, under the limit and on the disk, is seen to before the first is made.

        Args:
            keys: Keys of rows; SHA-256 as hexadecimal digits.
            make: Makes the rows of some positions of `keys`: float32 [n, *shape] of every map by its name.
            batch: Largest number of positions given to `make`.
            on_rows: Called with how many of the rows that were missing at first are there, whoever made them, and how
                many those were.

        Returns:
            How many rows this process made.

        Raises:
            CacheUnavailable: there is no room, the disk is full, or the directory is read-only. Rows made before stay.
            RowTooLarge: a number does not fit in float16.
        """
        lacking = self.missing(keys)
        if not lacking:
            return 0
        self._make_room(len(lacking))
        with unavailable(self.directory):
            own_directory(self._group / BUILDERS)
        builders = signs.Builders(self._group / BUILDERS)
        todo, busy, made, told, wait = deque(lacking), deque[int](), 0, -1, _SHORTEST_WAIT
        while True:
            there = len(lacking) - len(todo) - len(busy)
            if on_rows is not None and told != there:
                on_rows(there, len(lacking))
            if there == len(lacking):
                return made
            told, claimed = there, dict[int, signs.Sign]()
            try:
                while todo and len(claimed) < batch:
                    with unavailable(self.directory):
                        sign = builders.claim(keys[todo[0]])
                    if sign is None:
                        busy.append(todo.popleft())
                        continue
                    claimed[position := todo.popleft()] = sign
                    if self._is_there(keys[position]):  # others have made it
                        claimed.pop(position).take_down()
                self._build([keys[position] for position in claimed], list(claimed), make)
            finally:
                for sign in claimed.values():
                    sign.take_down()
            made += len(claimed)
            if claimed:
                wait = _SHORTEST_WAIT
            elif not todo and busy:
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                todo, busy = busy, todo

    def read(self, key: str) -> dict[str, Tensor]:
        """A row: every map by its name, as float32 [*shape] of its own. Its digest is checked.

        Raises:
            CacheMiss: there is no such row, or it is damaged, or it cannot be read in this process.
        """
        import torch

        return {name: values.to(torch.float32, copy=True) for name, values in self._read(key).items()}

    def verify(self, on_rows: Callable[[int, int], None] | None = None) -> int:
        """Check every row now; those that are damaged are removed and counted. Returns how many were looked at.

        Args:
            on_rows: Called with how many have been looked at, and how many there are.

        Raises:
            CacheUnavailable: the group cannot be opened.
        """
        self._enter()
        keys = sorted(row.key for row in rows_of(self._group) if row.key is not None)
        for number, key in enumerate(keys, start=1):
            with suppress(CacheMiss):
                self._read(key)
            if on_rows is not None:
                on_rows(number, len(keys))
        return len(keys)

    def close(self) -> None:
        """Let others remove the rows; using it again opens it again."""
        if self._user is not None:
            self._user.take_down()
        self._process, self._user = None, None
        self._wanted.clear()
        self._checked.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "spec": self.spec, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _enter(self) -> None:
        """Have the group on disk, and others know that this process has it open."""
        if self._process == os.getpid():
            return
        self.close()
        with unavailable(self.directory):
            make_group(self.directory, self.spec)
            if (note := remove_old(self.directory)) is not None:
                self.notes.append(note)
        with suppress(OSError):  # may be read-only, or full
            own_directory(self._group / USERS)
            self._user = signs.put_up(self._group / USERS / secrets.token_hex(8))
        signs.sweep(self._group / USERS, self._group / BUILDERS)
        self._process = os.getpid()

    def _is_good(self, key: str) -> bool:
        """Whether there is a row that was checked in this process; it is wanted now."""
        try:
            touch(row_path(self._group, key))
            if key not in self._checked:
                self._read(key)
        except (OSError, CacheMiss):
            self._checked.discard(key)
            return False
        return True

    def _is_there(self, key: str) -> bool:
        return key not in self._unreadable and row_path(self._group, key).is_file()

    def _read(self, key: str) -> dict[str, Tensor]:
        try:
            row = read_row(self._group, self.spec, key)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._checked.discard(key)
            raise CacheMiss(f"no row {key}") from error
        except (OSError, CacheMiss) as error:
            self._forget(key, damaged=isinstance(error, CacheMiss))
            raise CacheMiss(f"row {key} is damaged: {error}") from error
        self._checked.add(key)
        return row

    def _forget(self, key: str, *, damaged: bool) -> None:
        """Have a row made again."""
        self._checked.discard(key)
        self.damaged += key not in self._unreadable
        self._unreadable.add(key)
        if damaged:
            with suppress(OSError):  # may be read-only
                row_path(self._group, key).unlink()
                self._unreadable.discard(key)

    def _build(self, keys: Sequence[str], positions: list[int], make: Make) -> None:
        """Make rows. For who has claimed them."""
        if not positions:
            return
        if time.monotonic() > self._recount:
            self._make_room(len(positions))
        rows = as_stored(make(positions), len(positions), self.spec)
        with unavailable(self.directory):
            for key, row in zip(keys, rows, strict=True):
                write_row(self._group, self.spec, key, row)
                self._unreadable.discard(key)

    def _make_room(self, rows: int) -> None:
        """Have room for so many more rows, in the group's directory."""
        begun = time.monotonic()
        with unavailable(self.directory):
            make_group(self.directory, self.spec)
            if not os.access(self._group, os.W_OK | os.X_OK):
                raise CacheUnavailable(
                    f"the embedding cache cannot be written: {self._group} is read-only; choose another place with "
                    "cache.directory=<directory>, or go without with trainer.cache=off."
                )
            user = "" if self._user is None else self._user.path.name
            make_room(self._group, self.spec, rows, max_bytes=self.max_bytes, wanted=self._wanted, user=user)
        took = time.monotonic() - begun
        self._recount = begun + max(_RECOUNT_SECONDS, _RECOUNT_SHARE * took)
