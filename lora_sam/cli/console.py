"""The command `lora-sam` of an installed package."""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Mapping

from lora_sam.cli import reader_gone, report
from lora_sam.cli.step import run_step, steps
from lora_sam.core.calling import called_as, console_typed
from lora_sam.core.console import text_width
from lora_sam.core.errors import ConfigError
from lora_sam.core.version import __version__

_TRAINING = {
    "demo": "train on drawn pictures of washers with the weights of the package, and compare with the base",
    "train": "fine-tune on your own images; lora-sam train --help lists every group and option",
    "sweep": "train every combination of values with commas, method.rank=4,16, and rank them",
}
_APP = {"app": "base and tuned in a browser, prompt by prompt"}
# in the order in which they are used; what is in none of them comes last
_GROUPS = {
    "Train": ("demo", "train", "check", "preview"),
    "Use": ("predict", "app"),
    "Find the best": ("sweep", "learning-curve", "select"),
    "Prove": ("evaluate", "robustness"),
    "Deploy": ("deploy", "merge", "export", "quantize", "pack", "push", "import-adapter", "export-adapter"),
}


def commands() -> dict[str, str]:
    """Every command with what it does. Raises `ConfigError` where the configuration files are missing."""
    return {**_TRAINING, **steps(), **_APP}


def console() -> int:
    """Run the command that `sys.argv` names.

    Returns:
        Exit code: that of the command; 2 for an unknown one.
    """
    name, *arguments = sys.argv[1:] or [""]
    typed = console_typed(sys.argv[0])
    try:
        with called_as(typed):
            code = _run(typed, name, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return reader_gone()
    return code


def _run(typed: str, name: str, arguments: list[str]) -> int:
    if name == "--version":
        print(f"lora-sam {__version__}")
        return 0
    try:
        known = commands()
    except ConfigError as error:
        return report([str(error)])
    if name in ("--help", "-h"):
        print(_usage(known))
        return 0
    if name not in known:
        return report([_unknown(name, known)])
    program = f"{typed} {name}"
    if name == "app":
        from lora_sam.cli.app import serve_app

        return serve_app(arguments, program)
    if name == "preview":
        from lora_sam.cli.preview import preview

        return preview(arguments, program)
    if name not in _TRAINING:
        return run_step(name, program, arguments)
    from lora_sam.cli.train import DEMO, run_train

    if name == "sweep":
        if not arguments:
            return report(
                [f"nothing varies; give choices with commas: {typed} sweep data.root=my_data method.rank=4,16"]
            )
        return run_train(f"{typed} train", ["-m", *arguments])
    chosen = name != "demo" or any(word.startswith("experiment=") for word in arguments)
    return run_train(f"{typed} {name}", arguments if chosen else [DEMO, *arguments])


def _usage(known: Mapping[str, str]) -> str:
    width = max(len(name) for name in known)
    grouped = {name for names in _GROUPS.values() for name in names}
    others = tuple(name for name in known if name not in grouped)
    parts = []
    for heading, names in {**_GROUPS, "Further": others}.items():
        lines = [_line(f"  {name:<{width}}  ", known[name]) for name in names if name in known]
        if lines:
            parts.append("\n".join([heading, *lines]))
    listed = "\n\n".join(parts)
    return (
        "Fine-tune Segment Anything on your own labelled images.\n\n"
        "usage: lora-sam <command> [group=option ...] [key=value ...]\n"
        "       lora-sam <command> --help\n"
        "       lora-sam --help | --version\n\n"
        f"{listed}"
    )


def _line(name: str, purpose: str) -> str:
    columns = text_width(120)
    return textwrap.fill(purpose, columns, initial_indent=name, subsequent_indent=" " * len(name))


def _unknown(name: str, known: Mapping[str, str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    given = f"unknown command {name}{hint}" if name else "no command given."
    return f"{given} Commands: {', '.join(known)}; lora-sam --help describes them"
