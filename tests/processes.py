"""Commands in processes of their own, which import what they need once for many tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT, Done

_SERVED = """
import contextlib, io, json, os, runpy, sys, traceback

for name in sys.argv[1:]:
    sys.modules[name] = None
for line in sys.stdin:
    place, sys.argv = json.loads(line)
    os.chdir(place)
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Commands:
    """A Python that runs `train.py` as often as it is asked to, one call after the other."""

    def __init__(self, without: str) -> None:
        """Start it.

        Args:
            without: A module whose import fails there.
        """
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LORA_SAM_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVED, without],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self, *words: str, cwd: Path) -> Done:
        """What became of `python train.py` with these words in `cwd`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(cwd), [str(ROOT / "train.py"), *words]]), file=self._process.stdin, flush=True)
        return Done(*json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        """Let it end by itself."""
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


def forked(work: Callable[[], int], said: Path, **environment: str) -> int:
    """Start a process that does `work`, which ends it with the code that it returns; returns its number.

    It has imported what this process has, which takes a new one ten seconds of the processor. One thread alone
    computes in it, as others do not come along.

    Args:
        work: What it does; a signal meets it as it would any process.
        said: File for what it prints.
        environment: What is set in its environment.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        import torch

        torch.set_num_threads(1)
        os.environ.update(environment)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(file, number)
        sys.stdout = sys.stderr = open(said, "a", buffering=1)  # noqa: SIM115  # until it ends
        code = work()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, seconds: float = 120) -> int:
    """The code that the process `child` ends with, or minus the signal that killed it; too late is a failure."""
    deadline = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG))[0] != child:
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def wait_for(there: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until `there` says so; too late is a failure."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)
