"""Which row of a group is where: a table of slots in SQLite."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from lora_sam.core.files import sync
from lora_sam.predictors.embeddings.layout import DAMAGED_INDEX, FORMAT_VERSION, CacheUnavailable

_WAIT_SECONDS = 10.0
_TABLES = """
CREATE TABLE about(generation TEXT NOT NULL);
CREATE TABLE slots(
    slot INTEGER PRIMARY KEY, key TEXT UNIQUE, checksum INTEGER, used REAL, reusable INTEGER NOT NULL DEFAULT 0
);
"""


Opened = Literal["sound", "made", "damaged"]
"""In which state the table of slots was found."""


class IndexDamaged(CacheUnavailable):
    """The file is not a table of slots; opening the group begins it anew."""


class Place(NamedTuple):
    """Where a row is, its checksum, and when it was wanted last (seconds since 1970)."""

    slot: int
    checksum: int
    used: float


class Index:
    """The slots of a group. A slot has a key, or had one and waits until nobody can read it, or can be used again.

    Connections last as long as one method, so an index may be used by any thread and after a fork. All methods raise
    `CacheUnavailable` where the file is locked or damaged, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Opened:
        """Make the table where there is none. For one process at a time.

        One that is damaged is moved aside, and with it go its rows: those of the new one are of another generation.
        """
        try:
            self._check()
        except FileNotFoundError:
            self._make()
            return "made"
        except IndexDamaged:
            os.replace(self.path, self.path.with_name(DAMAGED_INDEX))
            # belongs to what was moved; SQLite would play it back into the new file
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
            self._make()
            return "damaged"
        return "sound"

    def _check(self) -> None:
        found = self.path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise IndexDamaged(_damaged(self.path, "not a file"))
        if found.st_size == 0:  # who made it was killed
            raise FileNotFoundError(self.path)
        with self._connected() as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise IndexDamaged(_damaged(self.path, "inconsistent"))
            _generation(self.path, connection)

    def _make(self) -> None:
        self.path.touch(mode=0o600)
        with self._connected() as connection:
            insert = f"INSERT INTO about VALUES ('{secrets.token_hex(4)}')"
            connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}{insert}; COMMIT;")
        sync(self.path.parent)

    def read(self) -> tuple[str, dict[str, Place]]:
        """The generation of the rows, which the names of their files have, and the place of each by its key."""
        with self._connected() as connection:
            connection.execute("BEGIN")
            found = connection.execute("SELECT key, slot, checksum, used FROM slots WHERE key IS NOT NULL")
            return _generation(self.path, connection), {key: Place(*place) for key, *place in found if _is_place(place)}

    def signature(self) -> tuple[int, int]:
        """Something that differs after most changes, to be had without reading."""
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def allocate(self, count: int) -> list[int]:
        """Slots for new rows, those first that can be used again. For the one builder of the group."""
        with self._connected() as connection:
            again = connection.execute("SELECT slot FROM slots WHERE reusable ORDER BY slot LIMIT ?", (count,))
            slots = [int(slot) for (slot,) in again]
            (last,) = connection.execute("SELECT max(slot) FROM slots").fetchone()
        following = 0 if last is None else last + 1
        return [*slots, *range(following, following + count - len(slots))]

    def add(self, places: Mapping[str, Place]) -> None:
        """Enter rows that are whole and on the disk."""
        values = [(place.slot, key, place.checksum, place.used) for key, place in places.items()]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, 0)", values)

    def drop(self, places: Mapping[str, Place]) -> None:
        """Forget rows; others may still read their slots."""
        values = [(key, place.slot, place.checksum) for key, place in places.items()]
        with self._writing() as connection:
            connection.executemany("UPDATE slots SET key = NULL WHERE key = ? AND slot = ? AND checksum = ?", values)

    def touch(self, keys: Iterable[str]) -> None:
        """Note that rows are wanted now."""
        now = time.time()
        with self._writing() as connection:
            connection.executemany("UPDATE slots SET used = ? WHERE key = ?", [(now, key) for key in keys])

    def free(self, slots: Sequence[int]) -> None:
        """Let the given slots, and all that have no key, be used again. Only while nobody else has the group open."""
        with self._writing() as connection:
            connection.executemany("UPDATE slots SET key = NULL WHERE slot = ?", [(slot,) for slot in slots])
            connection.execute("UPDATE slots SET reusable = 1 WHERE key IS NULL")

    def counts(self) -> tuple[int, int, int]:
        """Numbers of rows, of slots that can be used again, and of slots that wait for that."""
        with self._connected() as connection:
            rows, again, all_slots = connection.execute(
                "SELECT count(key), coalesce(sum(reusable), 0), count(*) FROM slots"
            ).fetchone()
        return rows, again, all_slots - rows - again

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection; what was begun and not committed is taken back when it closes."""
        with connected(self.path) as connection:
            yield connection


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an SQLite file that is there, in autocommit mode, its errors as ours."""
    try:
        place = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(place, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        if "no such" in str(error):  # table or column
            raise IndexDamaged(_damaged(path, str(error))) from error
        raise CacheUnavailable(
            f"the embedding cache cannot use {path}: {error}; see that its disk is neither full nor read-only, choose "
            "another with cache.directory=<directory>, or go without with trainer.cache=off."
        ) from error
    except sqlite3.DatabaseError as error:
        raise IndexDamaged(_damaged(path, str(error))) from error


def _generation(path: Path, connection: sqlite3.Connection) -> str:
    """Part of names of files, so nothing else than eight hexadecimal digits will do."""
    found = connection.execute("SELECT generation FROM about").fetchall()
    with suppress(ValueError, TypeError, IndexError):
        generation: str = found[0][0]
        if len(found) == 1 and bytes.fromhex(generation).hex() == generation and len(generation) == 8:
            return generation
    raise IndexDamaged(_damaged(path, "the generation of its rows is not known"))


def _is_place(values: Sequence[object]) -> bool:
    slot, checksum, used = values
    return isinstance(slot, int) and isinstance(checksum, int) and isinstance(used, float) and slot >= 0


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}); whoever opens these embeddings next begins them anew."


MEMO = "pixels.sqlite"
_MEMO_TABLE = "CREATE TABLE IF NOT EXISTS pixels(decoder TEXT, file TEXT, pixels TEXT, PRIMARY KEY (decoder, file))"
_AT_ONCE = 500


def known_pixels(directory: Path, files: Sequence[str]) -> dict[str, str]:
    """Digest of the decoded pixels by the SHA-256 of the image file, for those of `files` that are known."""
    known: dict[str, str] = {}
    path = directory / MEMO
    if path.is_symlink() or not path.is_file():
        return known
    decoder = _decoder()
    with suppress(CacheUnavailable), connected(path) as connection:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT file, pixels FROM pixels WHERE decoder = ? AND file IN ({marks})"
            known.update(connection.execute(query, (decoder, *some)))
    return {file: pixels for file, pixels in known.items() if isinstance(pixels, str)}


def note_pixels(directory: Path, pixels: Mapping[str, str]) -> None:
    """Add to the memo; one that is damaged begins anew, and where it cannot be written nothing happens."""
    path = directory / MEMO
    values = [(_decoder(), file, digest) for file, digest in pixels.items()]
    with suppress(CacheUnavailable, OSError):
        if path.is_symlink():
            return
        for _ in range(2):
            try:
                path.touch(mode=0o600)
                with connected(path) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute(_MEMO_TABLE)
                    connection.executemany("INSERT OR REPLACE INTO pixels VALUES (?, ?, ?)", values)
                    connection.execute("COMMIT")
                return
            except IndexDamaged:
                path.with_name(f"{MEMO}-journal").unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def _decoder() -> str:
    """What decodes: another version may give other pixels."""
    return f"{FORMAT_VERSION}, pillow {version('pillow')}"
