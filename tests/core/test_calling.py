"""Commands are advised in the words in which one was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_sam.core import calling
from lora_sam.core.calling import called_as, console_typed, step_called, training_called
from lora_sam.runs.manifest import command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `.venv/bin/lora-sam` in it."""
    program = tmp_path / ".venv" / "bin" / "lora-sam"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return program


def test_a_path_stays_the_path_that_works_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert console_typed(".venv/bin/lora-sam") == ".venv/bin/lora-sam"
    assert console_typed(str(place)) == ".venv/bin/lora-sam"
    monkeypatch.chdir("/")
    assert console_typed(str(place)).endswith("/.venv/bin/lora-sam")


def test_what_the_shell_finds_needs_no_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{place.parent}:/usr/bin")
    assert console_typed(str(place)) == console_typed(".venv/bin/lora-sam") == "lora-sam"
    assert console_typed("/x/lora_sam/cli/__main__.py") == "python -m lora_sam.cli"


def test_steps_and_training_are_advised_as_they_were_called() -> None:
    assert (step_called("predict"), step_called("check")) == (
        "python -m lora_sam.predict",
        "python -m lora_sam.data.check",
    )
    assert training_called() == "python train.py"
    with called_as(".venv/bin/lora-sam"):
        assert command("export", "latest", precision="fp32") == ".venv/bin/lora-sam export run=latest precision=fp32"
        assert (step_called("check"), training_called()) == (".venv/bin/lora-sam check", ".venv/bin/lora-sam train")
    assert training_called() == "python train.py"


def test_what_to_type_reaches_this_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`pip` of a shell where no environment is active would install for another Python."""
    ours, theirs = tmp_path / "mine" / ".venv" / "bin", tmp_path / "usr"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
        (folder / "pip").touch(mode=0o755)
    monkeypatch.setattr(calling.sysconfig, "get_path", lambda name: str(ours))
    monkeypatch.setenv("PATH", str(theirs))
    monkeypatch.chdir(ours.parents[1])
    assert calling.typed_here("pip install 'a[b]'") == ".venv/bin/pip install 'a[b]'"
    assert calling.typed_here("uv add a") == "uv add a"
    monkeypatch.chdir(theirs)
    assert calling.typed_here("pip install a") == f"{ours}/pip install a"
    monkeypatch.setenv("PATH", f"{ours}:{theirs}")
    assert calling.typed_here("pip install a") == "pip install a"
