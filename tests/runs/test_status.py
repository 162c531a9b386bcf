"""`status.json`: true after a kill, on a full disk, and where it is damaged or from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lora_sam.core.errors import TrainingError
from lora_sam.runs import status as module
from lora_sam.runs.status import Status, correct_status, read_status

RUNNING = Status(status="running", job=None, overrides=["a=1"], started=0.0)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    RUNNING.write(tmp_path)
    assert read_status(tmp_path) == RUNNING  # this process is not gone
    ended = RUNNING.ended("completed", objective=0.5)
    ended.write(tmp_path)
    assert read_status(tmp_path) == ended
    correct_status(tmp_path)
    assert read_status(tmp_path) == ended


def test_a_killed_run_is_not_running(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from lora_sam.runs.status import Status\n"
        "Status(status='running', job=None, overrides=[], started=time.time()).write(Path(sys.argv[1]))\n"
        "print('written', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    found = read_status(tmp_path)
    assert found is not None
    assert found.status == "running"
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert (found := read_status(tmp_path)) is not None  # nobody has asked for its exit code yet
    assert found.status == "killed"
    process.communicate()
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "running"
    correct_status(tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "killed"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "running"),
        ({"began": 1}, "killed"),  # the number is that of another process now
        ({"pid": 2**22 + 1}, "killed"),  # more than Linux gives
        ({"pid": "x"}, "running"),
        ({"pid": -1}, "running"),
        ({"host": "elsewhere", "pid": 2**22 + 1}, "running"),  # nobody here can tell
    ],
)
def test_the_process_of_a_status(changes: dict[str, object], expected: str, tmp_path: Path) -> None:
    dataclasses.replace(RUNNING, process={**RUNNING.process, **changes}).write(tmp_path)
    found = read_status(tmp_path)
    assert found is not None
    assert found.status == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"status": "running"}'])
def test_a_damaged_one_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path) is None
    assert read_status(tmp_path / "nowhere") is None


def test_those_of_earlier_and_later_versions_are_read(tmp_path: Path) -> None:
    values = {key: value for key, value in dataclasses.asdict(RUNNING).items() if key != "process"}
    (tmp_path / "status.json").write_text(json.dumps({**values, "new": 1}))
    found = read_status(tmp_path)
    assert found == dataclasses.replace(RUNNING, process={})


def test_a_full_disk_does_not_keep_it_from_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RUNNING.write(tmp_path)

    def full(path: Path, text: str) -> None:
        raise TrainingError("full")

    monkeypatch.setattr(module, "write_text", full)
    RUNNING.ended("failed", error="x" * 10_000).write(tmp_path)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.status, found.error) == ("failed", "x" * 3000)
    assert (tmp_path / "status.json").stat().st_size < 4096  # the block that it has
    with pytest.raises(TrainingError, match="full"):
        RUNNING.write(tmp_path / "nowhere")
