"""Does fine-tuning make SAM better on real images, and which method earns its place?"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.over_seeds import SEEDS, combined, per_image
from benchmarks.processes import run
from benchmarks.record import (
    ROOT,
    BenchmarkError,
    Figure,
    Outcome,
    commit,
    figure,
    read_result,
    result_path,
    usable_cores,
)
from lora_sam.evaluation.layout import validate_report

QUESTION = "Test IoU of base and fine-tuned SAM (nano) on nuclei and rings, box prompts"
QUICK = False

EXPERIMENTS = ("nuclei_lora", "nuclei_decoder", "nuclei_lora_only", "rings_lora")
MUST_BEAT_BASE = ("nuclei_lora", "nuclei_decoder")
TRAINING_SECONDS = 600.0


def measure(*, rehearse: bool) -> Outcome:
    """Run the experiments one after another, as a user would, and collect what they report."""
    packaged_nano()
    # absolute: the experiments run elsewhere
    environment = {**os.environ, "LORA_SAM_DATA": str(data_directory())}
    extra = ["trainer.max_steps=2", "trainer.validation_objects=2", "tracker=none"] if rehearse else []
    experiments = EXPERIMENTS[-1:] if rehearse else _wanted()
    seeds = SEEDS[:2] if rehearse else SEEDS
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in experiments:
            directory = Path(temporary)
            of_seed: dict[int, dict[str, Any]] = {}
            for seed in seeds:
                sys.stderr.write(f"  python train.py experiment={name} seed={seed}\n")
                words = [*extra, f"seed={seed}"]
                of_seed[seed] = fine_tune(name, directory / f"{name}_{seed}", words, environment, directory=directory)
            head, modified = commit()
            runs[name] = combined(of_seed) | {"commit": head + (" with changes" if modified else "")}
    if not rehearse:
        kept = _kept() if set(experiments) != set(EXPERIMENTS) else {}
        runs = {name: runs.get(name) or kept[name] for name in EXPERIMENTS}
    nuclei = {
        one["base"]["iou"]
        for name, combination in runs.items()
        if name.startswith("nuclei")
        for one in combination.get("seeds", {"": combination}).values()
    }
    if len(nuclei) > 1:
        raise BenchmarkError(f"the base of the nuclei experiments was measured differently: IoU {sorted(nuclei)}")
    return Outcome(
        settings={
            "experiments": list(experiments),
            "seeds": list(seeds),
            "overrides": extra,
            "threads": usable_cores(),
            "intervals": "95 %, over seeds and images: images for all runs together, errors of seeds by Student's t",
        },
        checks={"base IoU on nuclei": f"{nuclei.pop():.4f} in every experiment"} if nuclei else {},
        figures=_figures(runs),
        details={"runs": runs},
    )


def _wanted() -> tuple[str, ...]:
    """The experiments to run: all, or those in $BENCHMARK_EXPERIMENTS (a,b), beside the others' earlier results."""
    named = os.environ.get("BENCHMARK_EXPERIMENTS")
    if not named:
        return EXPERIMENTS
    wanted = tuple(named.split(","))
    if unknown := [name for name in wanted if name not in EXPERIMENTS]:
        raise BenchmarkError(f"BENCHMARK_EXPERIMENTS names {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    _kept()
    return wanted


def _kept() -> dict[str, dict[str, Any]]:
    path = result_path("finetune")
    if not path.is_file():
        raise BenchmarkError(f"{path.name} is not there yet: run all experiments once, without BENCHMARK_EXPERIMENTS")
    runs: dict[str, dict[str, Any]] = read_result(path).details["runs"]
    if missing := [name for name in EXPERIMENTS if name not in runs]:
        raise BenchmarkError(f"{path.name} lacks {', '.join(missing)}: run all experiments once")
    return runs


def fine_tune(
    name: str, output: Path, overrides: Sequence[str], environment: dict[str, str], *, directory: Path
) -> dict[str, Any]:
    """Run one experiment in `directory`, so that `outputs/latest` here stays, and gather its figures."""
    start = time.perf_counter()
    run(
        [sys.executable, str(ROOT / "train.py"), f"experiment={name}", f"hydra.run.dir={output}", *overrides],
        directory=directory,
        environment=environment,
        show_progress=True,
    )
    seconds = time.perf_counter() - start
    report = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    validate_report(report)
    facts = json.loads((output / "adapter" / "lora_sam.json").read_text(encoding="utf-8"))
    return collect(report, facts, wall_seconds=seconds)


def collect(report: dict[str, Any], facts: dict[str, Any], *, wall_seconds: float) -> dict[str, Any]:
    """What is kept of a run.

    Args:
        report: Its `evaluation.json`.
        facts: Its `adapter/lora_sam.json`.
        wall_seconds: Of the whole command: training, validation, and evaluation of base and tuned.
    """
    wanted = ("base", "tuned", "delta", "trainable_parameters", "total_parameters", "adapter_bytes")
    measured = ("seconds", "peak_memory_bytes", "images", "objects", "split", "seed")
    return {
        **{key: report[key] for key in (*wanted, *measured)},
        "per_image": per_image(report),
        "trainable_share": report["trainable_parameters"] / report["total_parameters"],
        "wall_seconds": round(wall_seconds, 1),
        "method": facts["method"],
        "steps": facts["steps"],
        "best_step": facts["best_step"],
        "validation_iou": facts["validation_iou"],
        "base_sha256": facts["base"]["sha256"],
    }


def _figures(runs: dict[str, dict[str, Any]]) -> list[Figure]:
    figures = []
    for name, one in runs.items():
        low, high = one["delta"]["iou_interval"]
        tuned = one["tuned"]
        figures.append(
            figure(f"{name}_iou", f"{name}: test IoU, tuned", tuned["iou"], interval=tuple(tuned["iou_interval"]))
        )
        limit = 0.0 if name in MUST_BEAT_BASE else None
        figures.append(
            figure(
                f"{name}_gain",
                f"{name}: lower end of the 95 % interval of tuned − base IoU",
                low,
                limit=limit,
                relation=">",
                interval=(low, high),
            )
        )
        limit = TRAINING_SECONDS if name in MUST_BEAT_BASE else None
        figures.append(figure(f"{name}_seconds", f"{name}: time of training", one["seconds"], unit="s", limit=limit))
    return figures
