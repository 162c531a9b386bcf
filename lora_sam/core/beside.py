"""What is written beside its place until it is whole: held by who writes it, swept up once that process is gone."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

_fcntl: ModuleType | None
try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _fcntl = None

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.lora_sam-tmp")
"""Name of what is written beside its place; the first group is that of the place."""


def beside(path: Path, *, directory: bool) -> tuple[Path, int | None]:
    """A new file or directory beside `path`, and a lock on it while it is written.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.lora_sam-tmp")
        if directory:
            temporary.mkdir(0o700)
        else:
            temporary.touch(exist_ok=False)  # with the mode of any other new file, where mkstemp's would be 0600
        try:
            return temporary, hold(temporary)
        except FileNotFoundError:  # somebody took it for a leftover before it was locked
            continue


def hold(path: Path) -> int | None:
    """Lock `path` for this process; None on a system without locks.

    Raises:
        FileNotFoundError: it is gone, or somebody else holds it.
    """
    if _fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BlockingIOError:
        pass
    except FileNotFoundError:
        os.close(descriptor)
        raise
    except OSError:  # this file system has no locks
        os.close(descriptor)
        return None
    os.close(descriptor)
    raise FileNotFoundError(path)


def let_go(descriptor: int | None) -> None:
    """Release what `hold` gave."""
    if descriptor is not None:
        os.close(descriptor)


def leftovers(directory: Path) -> list[tuple[Path, str]]:
    """Temporary files and directories in `directory`, with the names of what they were to become."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = ((name, TEMPORARY.fullmatch(name)) for name in names)
    return [(directory / name, match[1]) for name, match in found if match is not None]


def remove_leftover(leftover: Path, name: str) -> None:
    """Remove one unless it is being written, or nobody can tell; what it has moved aside comes back first."""
    try:
        held = hold(leftover)
    except OSError:
        return
    if held is None:
        return
    try:
        path, replaced = leftover.with_name(name), leftover / "replaced"
        if replaced.exists() and not os.path.lexists(path):
            content = leftover / "content"  # whole: it is synced before anything is moved
            os.replace(content if content.exists() else replaced, path)
            sync(path.parent)
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    except OSError:  # read-only: it is in nobody's way
        pass
    finally:
        let_go(held)


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Inside this context no other process is in it for `directory`; without locks in the file system it may be."""
    lock = None
    with suppress(OSError):  # who writes into it will say so
        directory.mkdir(parents=True, exist_ok=True)
    while directory.is_dir():
        try:
            lock = hold(directory)
            break
        except FileNotFoundError:  # somebody else holds it
            time.sleep(0.02)
    try:
        yield
    finally:
        let_go(lock)
