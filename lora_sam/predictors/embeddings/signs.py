"""Files that say that a process is at work: made by one process alone, touched every two seconds, gone when it is done.

They need no locks of the file system. Who was killed leaves one behind: on the same machine that is seen at once, from
elsewhere by its time, which stands still.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

BEAT_SECONDS = 2.0
GONE_SECONDS = 900.0
"""Who has not been heard of for so long is gone; clocks of machines may differ by less."""
PATIENCE_SECONDS = 20.0
"""Whoever makes a row and shows no sign of life for so long, by the watch of who waits, is not waited for."""


class Sign:
    """A file that others find until `take_down`, or until this process or this object is no more."""

    def __init__(self, path: Path, mark: bytes) -> None:
        self.path = path
        ended = threading.Event()
        self._take_down = weakref.finalize(self, _take_down, path, mark, os.getpid(), ended)
        threading.Thread(target=_beat, args=(path, ended), daemon=True).start()

    def take_down(self) -> None:
        """Remove the file, unless somebody else's is there by now."""
        self._take_down()


def put_up(path: Path) -> Sign | None:
    """Make the file; None where there is one. Raises `OSError`."""
    mark = f"{_machine()} {os.getpid()} {secrets.token_hex(8)}\n".encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    try:
        os.write(descriptor, mark)
    finally:
        os.close(descriptor)
    return Sign(path, mark)


def is_up(path: Path) -> bool:
    """Whether who made the file may still be there; what a process that has ended left is removed."""
    try:
        if time.time() - path.lstat().st_mtime < GONE_SECONDS and not killed(path):
            return True
        path.unlink()
    except OSError:
        pass
    return False


def sweep(*directories: Path) -> None:
    """Remove the signs that processes have left that are no more."""
    for directory in directories:
        with suppress(OSError):
            for name in os.listdir(directory):
                is_up(directory / name)  # else it is removed


def killed(path: Path) -> bool:
    """Whether who made the file has ended on this machine; False where that cannot be told. Raises `OSError`."""
    machine, _, rest = path.read_bytes().partition(b" ")
    number = rest.partition(b" ")[0]
    if os.name != "posix" or machine != _machine().encode() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


class Builders:
    """Who makes which row of a group, by signs in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, tuple[int, float]] = {}

    def claim(self, key: str) -> Sign | None:
        """The sign that this process makes the row of a key; None as long as another one makes it. Raises `OSError`."""
        path = self._directory / key
        sign = put_up(path)
        if sign is None and self._is_deserted(key):
            path.unlink(missing_ok=True)
            sign = put_up(path)
        return sign

    def _is_deserted(self, key: str) -> bool:
        path, now = self._directory / key, time.monotonic()
        try:
            beat = path.lstat().st_mtime_ns
            if killed(path):
                return True
        except FileNotFoundError:  # is done
            return False
        seen, since = self._seen.get(key, (None, now))
        if seen != beat:
            self._seen[key] = beat, now
        return seen == beat and now - since > PATIENCE_SECONDS


def _machine() -> str:
    """Where the number of a process means one process: the host, and on Linux the name space of its processes."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{space}".replace(" ", "_")


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _take_down(path: Path, mark: bytes, process: int, ended: threading.Event) -> None:
    ended.set()
    if process == os.getpid():  # in a forked child it is the parent's
        with suppress(OSError):
            if path.read_bytes() == mark:
                path.unlink()
