"""Locks between processes that the kernel releases when their holder ends, however it ends."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from lora_sam.predictors.embeddings.layout import CacheUnavailable

_fcntl: ModuleType | None
try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _fcntl = None

DIRECTORY_LOCK = "lock"
PATIENCE_SECONDS = 20.0
_INTERVAL_SECONDS = 0.01
_BEAT_SECONDS = 2.0


class FileLock:
    """An open lock file (`flock`). Not held until `shared` or `exclusive`; closing it releases.

    Raises:
        CacheUnavailable: this system has no such locks.
        OSError: the file can be neither made nor read.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        _open.add(self)
        if _fcntl is None:
            raise CacheUnavailable(
                "the embedding cache needs file locks, which this operating system does not have; "
                "go without with trainer.cache=off."
            )
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:  # a directory that may only be read
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)

    def shared(self) -> None:
        """Hold it together with others, once nobody holds it alone."""
        assert _fcntl is not None
        _fcntl.flock(self._descriptor, _fcntl.LOCK_SH)

    def exclusive(self) -> bool:
        """Hold it alone, if that is possible now; whether it is. Where it is not, a share that was held is lost."""
        assert _fcntl is not None
        try:
            _fcntl.flock(self._descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def alive(self) -> Iterator[None]:
        """For the holder: let others see that it works, however long that takes. A stopped process is silent."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT_SECONDS):
                with suppress(OSError):
                    os.utime(self._descriptor)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def beats(self) -> int:
        """Changes while the holder is `alive`."""
        return os.fstat(self._descriptor).st_mtime_ns

    def release(self) -> None:
        """Let go, and keep the file open."""
        assert _fcntl is not None
        _fcntl.flock(self._descriptor, _fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go, unless a process that was forked in between has the file open too."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


_open: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_inherited() -> None:
    for lock in list(_open):
        lock.close()


# else a forked child would go on holding what its killed parent held
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Hold the whole cache directory: groups are opened, removed and emptied by one process at a time.

    Raises:
        CacheUnavailable: another process does not let go of it for `PATIENCE_SECONDS`.
        OSError: as `FileLock`.
    """
    lock = FileLock(directory / DIRECTORY_LOCK)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while not lock.exclusive():
            if time.monotonic() > end:
                raise CacheUnavailable(
                    f"another process has held {directory / DIRECTORY_LOCK} for {PATIENCE_SECONDS:.0f} s; end it, "
                    "choose another place with cache.directory=<directory>, or go without with trainer.cache=off."
                )
            time.sleep(_INTERVAL_SECONDS)
        yield
    finally:
        lock.close()
