"""Commands in processes of their own, which import what they need once for many tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
