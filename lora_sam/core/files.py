"""Where files are kept, and how they are written so that a crash loses nothing: beside, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from lora_sam.core.beside import beside, leftovers, let_go, remove_leftover, sync
from lora_sam.core.errors import AdapterError, TrainingError

MAX_JSON_BYTES = 2**24
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h
_RESUME = "Free some space or choose another place with hydra.run.dir=..., then go on with resume=latest."
FIGURES = "Free some space, or have the figures written elsewhere with output=<file>."
"""Remedy where the figures of a step cannot be written into the run."""


def user_cache() -> Path:
    """What can be made or fetched again is kept here: `lora_sam` under `$XDG_CACHE_HOME`, else under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lora_sam"


@contextmanager
def atomic_path(path: Path, remedy: str = _RESUME) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    On success, what processes that were killed have left in the directory goes as well.

    Args:
        path: The file.
        remedy: What the user can do where it cannot be written; ends the error message.

    Raises:
        TrainingError: the disk is full or the directory cannot be written (names the directory and what is free).
    """
    temporary: Path | None = None
    held = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, held = beside(path, directory=False)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
        remove_leftovers(path.parent)
    except OSError as error:
        raise _cannot_write(path, error, remedy) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        let_go(held)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path` that replaces `path` on success and is removed on failure.

    Where the system can exchange two names at once, `path` is the old or the new at every moment. Elsewhere it may be
    missing after a crash, and is put back by whoever asks for it next (`recover`).

    Raises:
        TrainingError: the disk is full or the directory cannot be written.
    """
    try:
        with directory_beside(path) as content:
            yield content
            for entry in (*content.rglob("*"), content):
                sync(entry)
            _exchange(content, path, content.with_name("replaced"))
            sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


@contextmanager
def directory_beside(path: Path) -> Iterator[Path]:
    """An empty directory on the disk of `path`, removed afterwards if it is still there.

    On success, what processes that were killed have left beside `path` goes as well.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary, held = beside(path, directory=True)
    try:
        content = temporary / "content"
        content.mkdir()
        yield content
        remove_leftovers(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        let_go(held)


def recover(path: Path) -> None:
    """Put a directory back that is missing because a process was killed between moving the old one and the new one.

    Only where names cannot be exchanged; nothing happens where `path` is there, or somebody writes it now.
    """
    if os.path.lexists(path):
        return
    for leftover, name in leftovers(path.parent):
        if name == path.name:
            remove_leftover(leftover, name)


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that are gone were writing into `directory`; one that still writes holds a lock on it."""
    for leftover, name in leftovers(directory):
        remove_leftover(leftover, name)


def write_text(path: Path, text: str, remedy: str = _RESUME) -> None:
    """Write UTF-8 text atomically. Raises `TrainingError` as `atomic_path` does."""
    with atomic_path(path, remedy) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The mapping in a JSON file, which may come from elsewhere.

    Args:
        path: The file.
        remedy: What the user can do if it is damaged; ends the error message.

    Raises:
        AdapterError: it cannot be read, is larger than 16 MiB, or holds something else.
    """
    try:
        size = path.stat().st_size
        values = json.loads(path.read_text(encoding="utf-8")) if size <= MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(values, dict):
        reason = "not a mapping" if size <= MAX_JSON_BYTES else f"{size} bytes, at most {MAX_JSON_BYTES} are read"
        raise AdapterError(f"{path} is damaged ({reason}); {remedy}")
    return values


def followed(path: Path) -> Path:
    """The path with all links followed; links in a circle are followed as far as they lead.

    Of a circle `Path.resolve` makes a RuntimeError before Python 3.13, and nothing from then on.
    """
    return Path(os.path.realpath(path))


def last_part(path: str) -> str:
    """The last part of a path of whichever system, as text: what follows the last slash or backslash; "" after one."""
    return path.replace("\\", "/").rpartition("/")[2]


def without_ending(path: str) -> str:
    """A path with `/` less the ending of its last part: `a/b.png` is `a/b`, and `..png`, where `Path` stumbles, `.`."""
    return path.removesuffix(PurePosixPath(path).suffix)


def walked(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from `root` down with the names of its folders and of its files; links to folders are not followed.

    Who takes names from the list of folders keeps them from being walked, as with `os.walk`. What cannot be listed
    `Path.rglob` leaves out without a word: for a lack of permission always, from Python 3.13 on for whatever reason.

    Raises:
        OSError: a folder cannot be listed, or `root` is none.
    """

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=refuse):
        yield Path(folder), folders, files


def sha256_of(path: Path) -> str:
    """SHA-256 of the whole file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_sha256(path: Path) -> str | None:
    """SHA-256 that `path` had when a step wrote it, from the `manifest.json` beside it or one directory up, or None."""
    for directory in path.absolute().parents[:2]:
        try:
            files = read_json(directory / "manifest.json", "").get("files")
        except AdapterError:  # not there, or not of a step
            continue
        found = files.get(path.absolute().relative_to(directory).as_posix()) if isinstance(files, dict) else None
        if isinstance(found, str):
            return found
    return None


def check_sha256(path: Path, recorded: str, remedy: str) -> None:
    """Raise `AdapterError` if the file is not the one that was written.

    Args:
        path: The file.
        recorded: The SHA-256 it had then.
        remedy: What the user can do; ends the error message.
    """
    found = sha256_of(path)
    if found != recorded:
        raise AdapterError(
            f"{path} is not what was saved: its SHA-256 is {found[:12]}, it was {recorded[:12]} when it was written; "
            f"{remedy}"
        )


def _exchange(new: Path, path: Path, replaced: Path) -> None:
    """Rename `new` to `path`; what was there is at `new` or `replaced` then. A failure leaves `path` as it was."""
    if _swap(new, path):
        return
    if path.exists():
        os.replace(path, replaced)
    try:
        os.replace(new, path)
    except BaseException:
        if replaced.exists():
            os.replace(replaced, path)
        raise


def _swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where one is missing or the system cannot, and nothing has changed."""
    import ctypes

    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    names = (ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other)))
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0)


def _cannot_write(path: Path, error: OSError, remedy: str = _RESUME) -> TrainingError:
    try:
        free = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free there"
    except OSError:
        free = "free space unknown"
    reason = error.strerror or str(error)
    return TrainingError(f"cannot write {path}: {reason} ({free}). {remedy}")


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
