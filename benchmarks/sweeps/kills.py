"""kill -9 on a sweep that trains, at calls that make something last on the disk: what is run twice, mixed or lost."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability.forked import Kill, forked
from benchmarks.reliability.jobs import TINY, Tally, digest_of_state

STEPS = 4
WORDS = ("-m", *TINY, f"trainer.max_steps={STEPS}", "method.rank=1,2,3", "hydra.sweep.dir=swept")
JOBS = 3


def measure(root: Path, kills: int) -> Tally:
    """Kill the sweep at `kills` points, evenly over all that there are, before and after a call in turn.

    After each the sweep goes on, and is compared with one that was left alone.
    """
    tally = Tally()
    alone = root / "alone"
    ended = forked(_command(alone, WORDS))
    if ended.code or ended.answer:
        tally.wrong("broken", f"alone: {ended.said[-300:]}")
        return tally
    wanted = [_end_of(alone / "swept" / str(job)) for job in range(JOBS)]
    tally.add("points", ended.points)
    for number in range(kills):
        kill = Kill(round(1 + number * (ended.points - 1) / max(1, kills - 1)), after=bool(number % 2))
        _killed(root / f"killed_{number}", kill, wanted, tally)
    return tally


def _killed(place: Path, kill: Kill, wanted: Sequence[dict[str, Any]], tally: Tally) -> None:
    sweep = place / "swept"
    tally.add("kills", int(forked(_command(place, WORDS), kill).killed))
    before = {job: _files(sweep / str(job)) for job in range(JOBS) if _is_done(sweep / str(job))}
    tally.add("jobs done before a kill", len(before))
    begun = sum((sweep / str(job) / "checkpoints/last/state.safetensors").is_file() for job in range(JOBS))
    tally.add("jobs half done at a kill", begun - len(before))
    # where the kill came before the sweep was noted there is nothing to go on with: the same command begins it
    words = ("sweep=latest",) if (place / "multirun/latest").exists() else WORDS
    ended = forked(_command(place, words))
    if ended.code or ended.answer:
        tally.wrong("lost", f"{kill}: {ended.said[-300:]}")
        return
    for job, files in before.items():
        if _files(sweep / str(job)) != files:
            tally.wrong("run twice", f"{kill}: job {job}")
    for job, end in enumerate(wanted):
        found = _end_of(sweep / str(job))
        if found["bits"] != end["bits"]:
            tally.wrong("other bits", f"{kill}: job {job}")
        if found != end:
            tally.wrong("mixed", f"{kill}: job {job}: {found} for {end}"[:300])
    shutil.rmtree(place)


def _command(place: Path, words: Sequence[str]) -> Callable[[], int]:
    """The training command in `place`."""
    place.mkdir(exist_ok=True)

    def call() -> int:
        from lora_sam.cli.train import run_train

        os.chdir(place)
        return run_train("train.py", words)

    return call


def _is_done(job: Path) -> bool:
    from lora_sam.runs.status import read_status

    status = read_status(job)
    return status is not None and status.status == "completed"


def _files(job: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a job was run again: when its files were written, and which they are."""
    found = {path: path.stat() for path in job.rglob("*") if path.is_file() and ".hydra" not in path.parts}
    return {str(path.relative_to(job)): (one.st_mtime_ns, one.st_ino) for path, one in found.items()}


def _end_of(job: Path) -> dict[str, Any]:
    """What a job has come to: the bits of its state, how often each step is among its curves, and its figures."""
    lines = [json.loads(line) for line in (job / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    report = json.loads((job / "evaluation.json").read_text(encoding="utf-8"))
    return {
        "bits": digest_of_state(job),
        "steps": Counter(f"{line['step']} {' '.join(sorted(line))}" for line in lines),
        "validation": report["validation"]["iou"],
        "test": report["tuned"]["iou"],
    }
