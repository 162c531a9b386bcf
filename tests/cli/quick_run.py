"""A run of three steps that leaves what a run leaves, fails and kills where the environment says so."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.places import write_splits
from lora_sam.runs.sweep import read_sweep
from lora_sam.training.settings import Settings
from lora_sam.training.stopping import Pruned
from tests.runs.sweeps import evaluation

STEPS = 3


def quick_run(
    settings: Settings,
    *,
    config: dict[str, Any],
    output_dir: Path,
    goes_on: bool = False,
    should_stop: Callable[[int, float], str | None] | None = None,
    **told: Any,
) -> float:
    """The higher the rank, the better; a line `job.step` in `steps.txt` of the sweep for every step."""
    job, sweep = output_dir.name, output_dir.parent
    if job in os.environ.get("FAILING", "").split(","):
        raise RuntimeError("a bug")
    directory = RunDirectory(output_dir)
    directory.saved_config.write_text(json.dumps(config))
    write_splits(directory, settings.open_data(), config)
    directory.last.parent.mkdir(parents=True, exist_ok=True)
    value = config["method"]["rank"] / 100
    for step in range(int(directory.last.read_text()) if goes_on else 0, STEPS):
        with (sweep / "steps.txt").open("a") as file:
            file.write(f"{job}.{step}\n")
        directory.last.write_text(str(step + 1))
        if should_stop is not None and (reason := should_stop(step + 1, value)):
            raise Pruned(reason, value)
        flag = sweep / "killed"
        if job == os.environ.get("KILLS") and step == 1 and not flag.exists():
            flag.touch()
            os.kill(read_sweep(sweep).process["pid"], signal.SIGKILL)
        if job == os.environ.get("DIES") and step == 1 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("SLOW", "0")))
    directory.evaluation.write_text(json.dumps(evaluation([value], test=0.5)))
    directory.adapter.mkdir(exist_ok=True)
    return value
