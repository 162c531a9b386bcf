"""Start what is measured in fresh processes, and take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.record import ROOT, BenchmarkError

T = TypeVar("T")


def take_turns(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every side once per round, so that what else the machine does is shared by all; results by side."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            sys.stderr.write(f"  round {number + 1} of {rounds}: {name}\n")
            results[name].append(run())
    return results


def run_side(program: str, arguments: Sequence[str], *, threads: int) -> dict[str, Any]:
    """What `benchmarks/sides/<program>.py` prints as JSON in its last line, from a fresh process.

    Raises:
        BenchmarkError: it failed; says with which last line.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = run([sys.executable, "-m", f"benchmarks.sides.{program}", *arguments], environment=environment)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise BenchmarkError(f"benchmarks.sides.{program} printed no result: {done.stdout[-200:]!r}") from error
    return answer


def run(
    command: Sequence[str],
    *,
    directory: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    show_progress: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its errors are shown as they come with `show_progress`, else only if it fails.

    Raises:
        BenchmarkError: it ended with another status than 0.
    """
    done = subprocess.run(
        list(command),
        cwd=directory,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if show_progress else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or "").strip().splitlines()[-1:]
        shown = " ".join(Path(word).name if os.path.isabs(word) else word for word in command)
        raise BenchmarkError(f"`{shown}` ended with status {done.returncode}: {' '.join(last)}")
    return done


def seconds_of(command: Sequence[str], *, directory: Path = ROOT) -> float:
    """Wall time of a command, from start to end of its process. Raises `BenchmarkError` as `run` does."""
    start = time.perf_counter()
    run(command, directory=directory)
    return time.perf_counter() - start
