"""A run of three steps that leaves what a run leaves, and fails, dies or kills where the environment says so."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.metrics import METRICS, PER_OBJECT_METRICS, SIZES
from lora_sam.runs.places import write_splits
from lora_sam.runs.sweep import read_sweep
from lora_sam.training.settings import Settings
from lora_sam.training.stopping import Pruned

STEPS = 3
LOG = "steps.txt"


def quick_run(
    settings: Settings,
    *,
    config: dict[str, Any],
    output_dir: Path,
    goes_on: bool = False,
    should_stop: Callable[[int, float], str | None] | None = None,
    point: Callable[[], None] = lambda: None,
    **told: Any,
) -> float:
    """The higher the rank, the better; a line `job.step` in `steps.txt` of the sweep for every step.

    `FAILING=1,2` of the environment names jobs that fail, `KILLS=1` one that kills the command of the sweep once,
    `DIES=1` one whose own process is killed once, `SLOW=0.5` the seconds of a step.

    Args:
        settings: Of the job.
        config: As `lora_sam.cli.run.run` takes it.
        output_dir: Of the job, in that of the sweep.
        goes_on: Whether it goes on from its last state.
        should_stop: As `lora_sam.cli.run.run` takes it.
        point: Called wherever a kill leaves something else.
        told: What else a run is told, which makes no difference here.
    """
    job, sweep = output_dir.name, output_dir.parent
    point()
    if job in os.environ.get("FAILING", "").split(","):
        raise RuntimeError("a bug")
    directory = RunDirectory(output_dir)
    directory.saved_config.write_text(json.dumps(config))
    write_splits(directory, settings.open_data(), config)
    directory.last.parent.mkdir(parents=True, exist_ok=True)
    value = float(config["method"]["rank"]) / 100
    for step in range(int(directory.last.read_text()) if goes_on else 0, STEPS):
        with (sweep / LOG).open("a") as file:
            file.write(f"{job}.{step}\n")
        point()
        directory.last.write_text(str(step + 1))
        point()
        if should_stop is not None and (reason := should_stop(step + 1, value)):
            raise Pruned(reason, value)
        if step == 1:
            _kill(os.environ.get("KILLS") == job, sweep, lambda: int(read_sweep(sweep).process["pid"]))
            _kill(os.environ.get("DIES") == job, sweep, os.getpid)
        time.sleep(float(os.environ.get("SLOW", "0")))
    report = evaluation([value, value], test=0.5)
    report["validation"]["asked"] = config["prompt"]["_target_"]
    directory.evaluation.write_text(json.dumps(report))
    directory.adapter.mkdir(exist_ok=True)
    point()
    return value


def _kill(wanted: bool, sweep: Path, pid: Callable[[], int]) -> None:
    """Kill a process, once in a sweep."""
    flag = sweep / "killed"
    if wanted and not flag.exists():
        flag.touch()
        os.kill(pid(), signal.SIGKILL)


def figures(value: float) -> dict[str, Any]:
    """One side of `evaluation.json` in which every figure is `value`."""
    sizes = {size: {"objects": 0, "iou": None, "dice": None} for size in SIZES}
    return {
        **dict.fromkeys(METRICS, value),
        **{f"{name}_median": value for name in PER_OBJECT_METRICS},
        **{f"{name}_interval": [value, value] for name in METRICS},
        "by_size": sizes,
    }


def evaluation(
    validation: Sequence[float], test: float = 0.5, *, parameters: int = 1000, kept_step: int = 9, ids: str = "abcdefgh"
) -> dict[str, Any]:
    """`evaluation.json` of a job whose validation images, of two objects each, have these figures."""
    images = [{"id": ids[n], "objects": 2, "iou": value} for n, value in enumerate(validation)]
    mean = float(np.mean(validation))
    return {
        "schema_version": 1,
        "split": "test",
        "base": figures(0.25),
        "tuned": figures(test),
        "delta": figures(test - 0.25),
        "trainable_parameters": parameters,
        "total_parameters": 10_000,
        "adapter_bytes": 4 * parameters,
        "seconds": 3.0,
        "peak_memory_bytes": None,
        "images": 2,
        "objects": 4,
        "prompt": {},
        "seed": 0,
        "per_image": [{"id": name, "objects": 2, "base_iou": 0.25, "tuned_iou": test} for name in "xy"],
        "validation": {
            "base": 0.2,
            "trained": mean,
            "kept_step": kept_step,
            "iou": mean,
            "iou_interval": [max(0.0, mean - 0.05), min(1.0, mean + 0.05)],
            "per_image": images,
        },
    }
