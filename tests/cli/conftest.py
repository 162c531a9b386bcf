"""The training command in this process, and a run that does not train."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from lora_sam.cli.train import run_train
from tests.conftest import CommandLine, Done


@pytest.fixture
def command_line(
    quiet_logging: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    """Calls the training command in `tmp_path`; names and values say what else is in its environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*words: str, **said: str) -> Done:
        for key, value in {"FAILING": "", "KILLS": "", **said}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        try:
            code = run_train("train.py", words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take milliseconds."""
    from benchmarks.sweeps.quick_run import quick_run

    module = ModuleType("lora_sam.cli.run")
    module.run = quick_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lora_sam.cli.run", module)
