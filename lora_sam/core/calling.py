"""How commands are typed by who typed this one: what is advised then works as it stands."""

from __future__ import annotations

import os
import re
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


def quoted(value: str) -> str:
    """`value` as Hydra reads it back: quoted where it holds more than letters, digits and harmless signs."""
    if re.fullmatch(r"[\w./~-]+", value, re.ASCII):
        return value
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def typed_word(key: str, value: str | os.PathLike[str]) -> str:
    """`key=value` as it is typed in a shell, so that Hydra reads this value; `{split}` in it needs no quotes of its own
    (see `lora_sam.cli.overrides.with_quotes`)."""
    text = os.fspath(value)
    plain = r"(?:[\w./~-]|\{\w+\})+"
    if re.fullmatch(f"{plain}(?: {plain})*", text, re.ASCII):
        return f"'{key}={text}'" if re.search("[{ ]", text) else f"{key}={text}"
    typed = f"{key}={quoted(text)}"
    return shlex.quote(typed) if re.search(r'["$`\\!]', typed) else f'"{typed}"'


def data_words(**values: str | os.PathLike[str]) -> str:
    """Options of the data, as `data_words(root="my data")`, as they are typed."""
    return " ".join(typed_word(f"data.{key}", value) for key, value in values.items())
