"""The command line of the app: what it refuses before anything is served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def app(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share"], "--share lets others use this machine: add --auth USER:PASSWORD, or leave it out"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others use this machine: add --auth"),
        (["--share", "--no-auth"], "--share lets others use this machine: add --auth"),
        (["--auth", "me:x", "--no-auth"], "--auth and --no-auth are opposites"),
        (["--auth", "me"], "--auth is not USER:PASSWORD"),
        ([], "outputs: no finished run there; make one with `python train.py`"),
        (["run=gone"], "gone: no such run directory"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = app(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_neither_torch_nor_gradio(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['app.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'app.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    print({'torch', 'gradio'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "--outputs" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"
