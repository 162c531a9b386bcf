"""How commands are typed by who typed this one: what is advised then works as it stands."""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_sam.core.run_directory import from_here

SCRIPT = "python train.py"
# the word before the name of a command, such as `.venv/bin/lora-sam`; None where each is a module or a script
_console: str | None = None


@contextmanager
def called_as(console: str | None) -> Iterator[None]:
    """While it lasts, commands are `<console> <name>`; None: `python -m lora_sam.<name>`, and `python train.py`."""
    global _console
    before, _console = _console, console
    try:
        yield
    finally:
        _console = before


def console_typed(program: str) -> str:
    """The word that starts the console again from this directory.

    Args:
        program: `sys.argv[0]`: its path, or that of the module where Python was asked for one.
    """
    path = Path(program)
    if path.suffix == ".py":
        return "python -m lora_sam.cli"
    found = shutil.which(path.name)
    if path.name == program or (found is not None and os.path.abspath(found) == os.path.abspath(program)):
        return path.name
    return shlex.quote(from_here(path) if path.is_absolute() else program)


def typed_here(command: str) -> str:
    """Another command of this environment as it has to be typed: with its path where the shell would take another's."""
    name, *words = command.split(" ")
    own = Path(sysconfig.get_path("scripts"), name)
    if not own.exists() or os.path.abspath(shutil.which(name) or os.devnull) == str(own):
        return command
    return " ".join([shlex.quote(from_here(own)), *words])


def step_called(name: str) -> str:
    """How the command `name` is typed: `lora-sam predict`, or `python -m lora_sam.predict`."""
    if _console is None:
        return f"python -m lora_sam.{'data.check' if name == 'check' else name}"
    return f"{_console} {name}"


def training_called() -> str:
    """How training is typed: `lora-sam train`, or `python train.py` in a checkout."""
    return SCRIPT if _console is None else f"{_console} train"
