"""`status.json` of a run directory: what became of the job, and whether that still holds."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import read_json, write_text

FILE = "status.json"
KILLED = "killed"
REFUSED = ".refused"
"""In the directory of a sweep: a directory for each job whose own holds something that has to stay as it is."""
_LONGEST = 3000  # characters of an error: the whole file has to fit into the block that it has on the disk


def this_process() -> dict[str, Any]:
    """What tells this process from all others: machine, number, and when it began (a number is used again)."""
    return {"host": platform.node(), "pid": os.getpid(), "began": _began(os.getpid())}


@dataclass(frozen=True, kw_only=True)
class Status:
    """`status.json` of a run directory.

    Attributes:
        status: `running`, `completed`, `failed`, `interrupted` by a signal, or `pruned` by a sweeper; of a job that was
            refused also `changed`. A run that says `running` after its
            process has ended was killed: `read_status` says so.
        job: Number of the job in its sweep; None outside sweeps.
        overrides: What the user changed, as `key=value`.
        objective: Best validation IoU, 0 to 1; None unless completed.
        error: What went wrong; None unless failed.
        started: Seconds since 1970.
        seconds: How long it took; None while running.
        process: Which process it is: `host`, `pid`, and `began` where the system says when.
    """

    status: str
    job: int | None
    overrides: Sequence[str]
    objective: float | None = None
    error: str | None = None
    started: float
    seconds: float | None = None
    process: dict[str, Any] = field(default_factory=this_process)

    def ended(self, status: str, *, objective: float | None = None, error: str | None = None) -> Status:
        """The same job at its end."""
        seconds = round(time.time() - self.started, 3)
        return replace(self, status=status, objective=objective, error=error, seconds=seconds)

    def write(self, directory: Path) -> None:
        """Write `status.json`, on a full disk in the place of the one that is there.

        Raises:
            TrainingError: it cannot be written.
        """
        shorter = self if self.error is None else replace(self, error=self.error[:_LONGEST])
        text = json.dumps(asdict(shorter), indent=2) + "\n"
        try:
            write_text(directory / FILE, text)
        except LoraSamError:
            try:
                with (directory / FILE).open("r+b") as file:
                    file.write(text.encode())
                    file.truncate()
                return
            except OSError:
                pass
            raise


def refuse(sweep: Path, status: Status) -> None:
    """Note what became of a job of a sweep whose own directory must be left as it is. Raises as `Status.write`."""
    status.write(sweep / REFUSED / str(status.job))


def read_status(directory: Path) -> Status | None:
    """What became of the job in `directory`: `killed` where it says `running` and its process is gone.

    None where there is no such file, or one that is damaged.
    """
    try:
        values = read_json(directory / FILE, "")
        known = {one.name for one in fields(Status)}
        status = Status(**{"process": {}, **{key: value for key, value in values.items() if key in known}})
    except (LoraSamError, TypeError):
        return None
    return replace(status, status=KILLED) if status.status == "running" and is_gone(status.process) else status


def correct_status(directory: Path) -> None:
    """Write down that the job in `directory` was killed, if it was; a directory that may only be read stays."""
    status = read_status(directory)
    if status is not None and status.status == KILLED:
        with suppress(LoraSamError):
            status.write(directory)


def is_gone(process: Any) -> bool:
    """Whether a process of this machine has ended; False where nobody here can tell."""
    if not isinstance(process, dict) or process.get("host") != platform.node():
        return False
    pid = process.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        pass
    return process.get("began") != _began(pid)


def _began(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None where the system does not say."""
    try:
        # the name, in brackets, may hold anything
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if words[0] == "Z" else int(words[19])
    except (OSError, ValueError, IndexError):
        return None
