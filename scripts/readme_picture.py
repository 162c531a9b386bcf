"""Draws the README's picture of a finished run: `python scripts/readme_picture.py latest docs/images/demo.png`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lora_sam.core.errors import LoraSamError
from lora_sam.core.run_directory import find_run
from scripts.figure_of_run import write_figure

USAGE = "usage: python scripts/readme_picture.py RUN OUT.png (RUN: a run directory, or latest)"


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 once the picture is written, 2 after a mistake."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    run, path = arguments[0], Path(arguments[1])
    try:
        size = write_figure(path, find_run(run))
    except LoraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
