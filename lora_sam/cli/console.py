"""The command `lora-sam` of an installed package."""

from __future__ import annotations

import difflib
import sys

from lora_sam.cli import report
from lora_sam.cli.step import VERBS, run_step
from lora_sam.core.errors import ConfigError
from lora_sam.core.version import __version__

COMMANDS = {
    "demo": "train on drawn pictures of washers with the weights of the package, and compare with the base",
    "train": "fine-tune on your own images; lora-sam train --help lists every group and option",
    **VERBS,
    "embeddings": "what training keeps on disk of the frozen encoder: list, verify, prune",
}


def console() -> int:
    """Run the command that `sys.argv` names.

    Returns:
        Exit code: that of the command; 2 for an unknown one.
    """
    name, *arguments = sys.argv[1:] or [""]
    if name in ("--help", "-h"):
        print(_usage())
        return 0
    if name == "--version":
        print(f"lora-sam {__version__}")
        return 0
    if name not in COMMANDS:
        return report([_unknown(name)])
    if name in VERBS or name == "embeddings":
        return run_step(name, f"lora-sam {name}", arguments)
    try:
        from lora_sam.cli.train import DEMO, run_train  # looks for the configuration files
    except ConfigError as error:
        return report([str(error)])
    return run_train(f"{sys.argv[0]} {name}", [DEMO, *arguments] if name == "demo" else arguments)


def _usage() -> str:
    width = max(len(name) for name in COMMANDS)
    commands = "\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items())
    return (
        "Fine-tune Segment Anything on your own labelled images, with few trainable weights.\n\n"
        "usage: lora-sam <command> [group=option ...] [key=value ...]\n"
        "       lora-sam <command> --help\n"
        "       lora-sam --help | --version\n\n"
        f"{commands}"
    )


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    given = f"unknown command {name}{hint}" if name else "no command given."
    return f"{given} Commands: {', '.join(COMMANDS)}; lora-sam --help describes them"
