"""A sweep of three jobs under every launcher and sweeper, each command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.record import ROOT
from benchmarks.sweeps.quick_run import LOG, STEPS

JOBS = 3
BASE = ("-m", "experiment=smoke", "method=lora", "tracker=none", "hydra.sweep.dir=swept")
GRID = ("method.rank=2,4,8",)
SEARCH = ("method.rank=int(interval(2,16))", "hydra/sweeper=optuna", f"hydra.sweeper.n_trials={JOBS}")
ENGINES = {
    "basic": GRID,
    "joblib": (*GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": (*GRID, "hydra/launcher=submitit_local"),
    "optuna": (*SEARCH, "hydra.sweeper.prune=false"),
    "seeds": ("method.rank=4", f"seeds={JOBS}"),
}
# has to be installed by hand: its launcher wants an older cloudpickle than joblib, so that no lock file can hold both
RAY = (*GRID, "hydra/launcher=ray")
EVERY_STEP = {f"{job}.{step}": 1 for job in range(JOBS) for step in range(STEPS)}


def typed(place: Path, *words: str, **said: str) -> subprocess.CompletedProcess[str]:
    """What became of `train.py` with these words in `place`; no job of it trains, in whichever process.

    Args:
        place: Working directory.
        words: After `python train.py`.
        said: Of the environment: what `quick_run` does other than well.
    """
    path = os.pathsep.join([str(Path(__file__).parent / "stand_in"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **said}
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def steps_of(sweep: Path) -> Counter[str]:
    """How often every step was done, by `job.step`."""
    return Counter((sweep / LOG).read_text(encoding="utf-8").split())
