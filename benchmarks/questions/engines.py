"""What becomes of a sweep under each engine where all is well, where a job fails, and where its command is killed?"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import run_side
from benchmarks.record import Figure, Outcome, figure
from benchmarks.sweeps.commands import BASE, ENGINES, EVERY_STEP, JOBS, steps_of, typed
from lora_sam.runs.sweep import read_sweep

QUESTION = "Launchers and sweepers x {all good, one job fails, the command is killed}: is each as documented?"
QUICK = False

FATES: dict[str, dict[str, str]] = {
    "all good": {},
    "one job fails": {"FAILING": "1"},
    "killed": {"KILLS": "1", "SLOW": "0.5"},
}
EXIT_CODES = {"all good": 0, "one job fails": 1, "killed": -signal.SIGKILL}
KILLS = 20


def measure(*, rehearse: bool) -> Outcome:
    """Every cell once, then a sweep that trains, killed at many points."""
    engines = ("basic",) if rehearse else tuple(ENGINES)
    cells = [cell(engine, fate) for engine in engines for fate in FATES]
    kills = run_side("sweep_kills", ["--kills", str(2 if rehearse else KILLS)], threads=1)
    return Outcome(
        settings={
            "jobs": JOBS,
            "commands": {name: ["python", "train.py", *BASE, *ENGINES[name]] for name in engines},
            "cells": "jobs leave what a run leaves, but do not train; killed: SIGKILL to the command from inside job 1",
            "kills": "a sweep of 3 jobs that trains (tiny_random, 4 steps), in one process, killed with SIGKILL at "
            "calls of rename, exchange, fsync and mkdir, evenly over all of them, before and after the call in turn",
        },
        checks={
            "every cell": "exit code, states, table and page after the first command; after `sweep=latest` all jobs "
            "are done, and each step of each job was done once",
            "every kill": "jobs that were done are compared by their files; in the end all jobs by the bits of weights "
            "and optimiser, by curves and by figures with those of a sweep that was left alone",
        },
        figures=figures(cells, kills["counts"]),
        details={"cells": cells, "kills": kills},
    )


def cell(engine: str, fate: str) -> dict[str, Any]:
    """One sweep of three jobs, and `sweep=latest` after it where something happened."""
    sys.stderr.write(f"  {engine}, {fate}\n")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        sweep = place / "swept"
        first = typed(place, *BASE, *ENGINES[engine], **FATES[fate])
        page = sweep / "sweep.html"
        checks = {"exit code of the first command": first.returncode == EXIT_CODES[fate]}
        if fate != "killed":
            checks["table"] = "val IoU" in first.stdout
            checks["page"] = page.is_file()
        if fate == "one job fails":
            checks["its line at once"] = "RuntimeError: a bug" in first.stderr
            checks["the others go on"] = _states(sweep) == ["done", "failed", "done"]
        last = first if fate == "all good" else typed(place, "sweep=latest")
        done = steps_of(sweep)
        checks |= {
            "exit code at the end": last.returncode == 0,
            "all jobs done": _states(sweep) == ["done"] * JOBS and read_sweep(sweep).state == "finished",
            "page at the end": page.is_file(),
            "no step missing": not set(EVERY_STEP) - set(done),
        }
        return {
            "engine": engine,
            "fate": fate,
            "as_documented": all(checks.values()) and done == EVERY_STEP,
            "checks": checks,
            "steps_done_twice": sum(count > 1 for count in done.values()),
        }


def _states(sweep: Path) -> list[str]:
    return [job.state for job in read_sweep(sweep).jobs]


def figures(cells: list[dict[str, Any]], kills: Mapping[str, int]) -> list[Figure]:
    """How many are as documented, and what must never be."""
    found = [
        figure("cells", f"engines x what happens: as documented, of {len(cells)}",
               sum(one["as_documented"] for one in cells), limit=len(cells), relation=">="),
        figure("twice", "steps done twice in all of them", sum(one["steps_done_twice"] for one in cells), limit=0),
        figure("kills", f"kill -9 of a sweep that trains, at points of {kills.get('points', 0)}",
               kills.get("kills", 0), limit=KILLS, relation=">="),
        figure("done_before", "jobs that were done when it was killed", kills.get("jobs done before a kill", 0)),
        figure("half_done", "jobs that were half done", kills.get("jobs half done at a kill", 0)),
    ]  # fmt: skip
    never = {
        "run twice": "jobs that were done and were run again",
        "other bits": "jobs with other bits than in a sweep that was left alone",
        "mixed": "jobs with other curves or figures than there",
        "lost": "sweeps that could not go on",
        "broken": "sweeps that could not be tried",
    }
    return found + [
        figure(name.replace(" ", "_"), what, kills.get(name, 0), limit=0) for name, what in never.items()
    ]  # fmt: skip


def rows(details: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows of the matrix, for the documents: an engine a row."""
    fates: list[str] = list(dict.fromkeys(one["fate"] for one in details["cells"]))
    of = {(one["engine"], one["fate"]): one for one in details["cells"]}
    shown = {True: "as documented", False: "**not as documented**"}
    engines = list(dict.fromkeys(engine for engine, _ in of))
    return ("engine", *fates), [
        (f"`{engine}`", *(shown[of[engine, fate]["as_documented"]] for fate in fates)) for engine in engines
    ]
