"""Run one command and say how long it took, what it printed and how much memory it held at most."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer; 1 if the command failed. What it writes to standard error is shown as it comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    answer = watch(given.command, given.directory)
    print(json.dumps(answer))
    return int(answer["status"] != 0)


def watch(command: Sequence[str], directory: Path) -> dict[str, Any]:
    """Status, wall seconds and standard output of a command, and the peak of its resident memory.

    The peak is that of the largest process ever waited for by this one, so it means something once per process.
    """
    start = time.perf_counter()
    done = subprocess.run(
        list(command), cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "status": done.returncode,
        "seconds": seconds,
        "peak_bytes": peak if sys.platform == "darwin" else peak * 1024,
        "stdout": done.stdout,
    }


if __name__ == "__main__":
    sys.exit(main())
