"""What becomes of a sweep under each engine where all is well, where a job fails, and where its command is killed.

`python -m benchmarks.engines` writes `benchmarks/engines.json`. The jobs leave what a run leaves, but do not train;
this looks at which of them run, how often, and what the sweep says of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lora_sam.core.files import write_text
from lora_sam.runs.sweep import read_sweep

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).with_suffix(".json")
JOBS, STEPS = 3, 3
GRID = ("method.rank=2,4,8",)
ENGINES = {
    "basic": GRID,
    "joblib": (*GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": (*GRID, "hydra/launcher=submitit_local"),
    "optuna": (
        *("method.rank=int(interval(2,16))", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"),
        "hydra.sweeper.prune=false",
    ),
    "seeds": ("method.rank=4", "seeds=3"),
}
FATES: dict[str, dict[str, str]] = {
    "killed": {"KILLS": "1", "SLOW": "0.5"},
    "one fails": {"FAILING": "1"},
    "all good": {},
}


def typed(place: Path, *words: str, **said: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command, in `place`."""
    path = os.pathsep.join([str(ROOT / "tests" / "cli" / "stand_in"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, **said}
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def cell(engine: str, fate: str) -> dict[str, Any]:
    """One sweep of three jobs, and `sweep=latest` after it where something happened."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        sweep = place / "swept"
        words = ("-m", "experiment=smoke", "method=lora", "tracker=none", "hydra.sweep.dir=swept", *ENGINES[engine])
        code, out, err = typed(place, *words, **FATES[fate])
        wanted = {"all good": 0, "one fails": 1, "killed": -signal.SIGKILL}[fate]
        first: dict[str, Any] = {
            "exit_code": code,
            "states": [job.state for job in read_sweep(sweep).jobs],
            "page": (sweep / "sweep.html").is_file(),
            "table": "val IoU" in out,
            "line_at_once": "RuntimeError: a bug" in err,
        }
        documented = code == wanted and (fate == "killed" or (first["page"] and first["table"]))
        if fate == "one fails":
            documented &= first["states"] == ["done", "failed", "done"] and first["line_at_once"]
        if fate != "all good":
            code, out, err = typed(place, "sweep=latest")
        found = read_sweep(sweep)
        steps = Counter((sweep / "steps.txt").read_text(encoding="utf-8").split())
        done = [job.state for job in found.jobs] == ["done"] * JOBS
        documented &= code == 0 and done and found.state == "finished" and (sweep / "sweep.html").is_file()
        documented &= len(steps) == JOBS * STEPS and max(steps.values()) == 1
        return {
            "engine": engine,
            "fate": fate,
            "first_command": first,
            "exit_code_at_the_end": code,
            "states_at_the_end": [job.state for job in found.jobs],
            "steps": len(steps),
            "steps_run_twice": sum(count > 1 for count in steps.values()),
            "as_documented": bool(documented),
            "seconds": round(time.perf_counter() - begun, 1),
        }


def main() -> int:
    """Measure every cell, and write down each that is done; 1 where one is not as documented."""
    cells = []
    for fate in FATES:
        for engine in ENGINES:
            cells.append(cell(engine, fate))
            print(f"{engine}, {fate}: {'as documented' if cells[-1]['as_documented'] else cells[-1]}", flush=True)
            content = {
                "what": "sweeps of three jobs without training: engines x what happens; killed: SIGKILL to the command",
                "as_documented": sum(one["as_documented"] for one in cells),
                "measured": len(cells),
                "of": len(ENGINES) * len(FATES),
                "steps_run_twice": sum(one["steps_run_twice"] for one in cells),
                "cells": cells,
            }
            write_text(RESULT, json.dumps(content, indent=1) + "\n")
    return 0 if all(one["as_documented"] for one in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
