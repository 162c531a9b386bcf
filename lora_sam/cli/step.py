"""The command line of the steps after training: `python -m lora_sam.<verb> [key=value ...]`."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from lora_sam.cli import BUG, full_errors, main, report
from lora_sam.cli.jobs import plain_with_options
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.errors import ConfigError, LoraSamError

# steps whose first word, where it is not key=value, is the value of this option
_FIRST_WORD = {"embeddings": "action"}
_HELP = {"--help", "-h"}


def steps() -> dict[str, str]:
    """What each command that is not training does: the first line of its file in `conf/`, by its name.

    Raises:
        ConfigError: there are no configuration files.
    """
    found = {}
    for path in sorted(conf_directory().glob("*.yaml"), key=lambda path: path.stem):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^_target_:", text, re.MULTILINE):
            found[path.stem] = text.partition("\n")[0].removeprefix("# ")
    return found


def run_step(verb: str, program: str, arguments: Sequence[str]) -> int:
    """Run one step with the options of `conf/<verb>.yaml`.

    Args:
        verb: A key of `steps`.
        program: How the command was called.
        arguments: The words after it.

    Returns:
        Exit code: 0; 1 after a bug; 2 after a user's mistake; 3 where a check that was asked for did not hold; 130
        after Ctrl-C; 143 after SIGTERM.
    """
    try:
        conf = conf_directory()
    except ConfigError as error:
        return report([str(error)])
    if _HELP.intersection(arguments):
        print(usage(verb, program, conf))
        return 0
    status = 0

    @hydra.main(version_base="1.3", config_path=str(conf), config_name=verb)
    def step(config: DictConfig) -> None:
        nonlocal status
        status = max(status, _perform(config))

    if verb in _FIRST_WORD and arguments and re.fullmatch(r"\w[\w-]*", arguments[0]):
        arguments = [f"{_FIRST_WORD[verb]}={arguments[0]}", *arguments[1:]]
    sys.argv = [program, *arguments]
    return main(step, conf=conf, config_name=verb) or status


def _perform(config: DictConfig) -> int:
    from lora_sam.core.config import step_from

    try:
        return int(step_from(plain_with_options(config)).perform() or 0)
    except LoraSamError as error:
        if full_errors():
            raise
        return report(str(error).splitlines())
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception:
        if full_errors():
            raise
        traceback.print_exc()
        return BUG


def usage(verb: str, program: str, conf: Path) -> str:
    """The help of a verb: what it does, and every option with its default and meaning, from its docstring."""
    from lora_sam.core.config import class_of_step

    values = OmegaConf.load(conf / f"{verb}.yaml")
    assert isinstance(values, DictConfig)
    cls = class_of_step(values.get("_target_"))
    # from Python 3.13 on a docstring has lost its indentation already
    purpose, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")
    lines = [
        *_wrapped(" ".join(purpose.split())),
        "",
        f"  {program} [key=value ...]",
        "",
        "Options and their defaults:",
    ]
    for name, meaning in _meanings(attributes):
        missing = OmegaConf.is_missing(values, name)
        lines.append(f"  {name}={'...' if missing else as_typed(values.get(name))}")
        lines += [f"      {line}" for line in _wrapped(f"{meaning} Has to be given." if missing else meaning, 6)]
    lines += ["", *_wrapped(f"{program} --cfg job [key=value ...] shows the options in use and stops.")]
    return "\n".join(lines)


def _meanings(attributes: str) -> list[tuple[str, str]]:
    """(name, meaning) for each entry of a docstring's section `Attributes`."""
    found = re.split(r"\n {4}(\w+): ", "\n" + attributes.strip("\n").rstrip())
    return [(name, " ".join(meaning.split())) for name, meaning in zip(found[1::2], found[2::2], strict=True)]


def as_typed(value: Any) -> str:
    """A plain value as Hydra reads it; text as it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)) or OmegaConf.is_list(value):
        return "[" + ",".join(as_typed(item) for item in value) + "]"
    return str(value)


def _wrapped(text: str, indented: int = 0) -> list[str]:
    import textwrap

    from lora_sam.core.console import text_width

    # options such as data.root, and paths, stay whole
    return textwrap.wrap(text, text_width(106) - indented, break_long_words=False, break_on_hyphens=False)
