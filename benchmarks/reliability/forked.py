"""Work in a forked process that can be killed at every call that makes something last on the disk."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core import files
from lora_sam.core.errors import LoraSamError

REFUSED = 2
_LASTING = ("replace", "rename", "fsync", "mkdir")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code; None where a signal ended it.
        signal: That signal; None otherwise.
        answer: What the work returned, as JSON, or the message of a `LoraSamError`.
        points: Calls of rename, replace, exchange, fsync and mkdir.
        seconds: Wall time.
        said: The end of what it printed.
    """

    code: int | None
    signal: int | None
    answer: Any
    points: int
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """Whether it was killed before it ended."""
        return self.signal == signal.SIGKILL


@dataclass(frozen=True)
class Kill:
    """When a process is killed.

    Attributes:
        point: At which call, from 1; None for none.
        after: Whether the call is done first.
        seconds: Or so long after the start.
    """

    point: int | None = None
    after: bool = False
    seconds: float | None = None


def forked(work: Callable[[], Any], kill: Kill | None = None, *, temporary: Path | None = None) -> Ended:
    """Run `work` in a fork of this process, in a session of its own.

    Args:
        work: Returns something that JSON can hold.
        kill: When it is killed; None lets it end.
        temporary: Its `$TMPDIR`.
    """
    kill = kill or Kill()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(work, kill, writing, said.fileno(), temporary)
        os.close(writing)
        if kill.seconds is not None:
            time.sleep(kill.seconds)
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            content = pipe.read()
        status = os.waitpid(pid, 0)[1]
        said.seek(max(0, said.seek(0, 2) - 2000))
        text = said.read().decode(errors="replace")
    answer, points = json.loads(content) if content else (None, 0)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = None if ended_by is not None else os.waitstatus_to_exitcode(status)
    return Ended(code, ended_by, answer, points, time.perf_counter() - start, text)


@dataclass(frozen=True)
class Started:
    """A fork that goes on by itself; calling it waits for its exit code, negative for a signal."""

    pid: int

    def __call__(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def started(work: Callable[[], Any]) -> Started:
    """`work` in a fork that nobody waits for yet; what it says is dropped."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        _child(work, Kill(), nowhere, nowhere, None)
    return Started(pid)


def _child(work: Callable[[], Any], kill: Kill, writing: int, said: int, temporary: Path | None) -> None:
    code, answer, counted = 1, None, [0]
    try:
        os.setsid()
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = sys.stderr = os.fdopen(said, "w", buffering=1, closefd=False)  # whatever the parent has there
        if temporary is not None:
            os.environ["TMPDIR"] = str(temporary)
            tempfile.tempdir = None
        _watch(kill, counted)
        try:
            answer, code = work(), 0
        except LoraSamError as error:
            answer, code = str(error), REFUSED
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        os.write(writing, json.dumps([answer, counted[0]]).encode())
    except BaseException:  # nothing may go on in a fork
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(kill: Kill, counted: list[int]) -> None:
    """Count the calls that make something last, and end this process at one of them."""

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            counted[0] += 1
            here = counted[0] == kill.point
            if here and not kill.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **options)
            finally:
                if here:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counting

    for name in _LASTING:
        setattr(os, name, watched(getattr(os, name)))
    files._swap = watched(files._swap)  # it exchanges two names through the C library
