"""Does tuning pay where it pays most: masks that nobody asked for?"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.questions.finetune import fine_tune
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "Nuclei without prompts, trained on all images: base and tuned"
QUICK = False

ON_NUCLEI = ("data=coco", "tracker=none")
MEASURED_ON = 40  # of 470 tiles of the test images, a fixed draw, since a grid on all of them takes hours of a core


Job: TypeAlias = tuple[str, tuple[str, ...]]
"""Experiment and overrides of a training."""


def jobs(root: Path) -> dict[str, Job]:
    """The trainings by name; `root` is the set."""
    words = (*ON_NUCLEI, f"data.root={root}", "evaluate_clicks=false", f"evaluate_images={MEASURED_ON}")
    return {"all": ("nuclei_everything", words)}


def measure(*, rehearse: bool) -> Outcome:
    """Run every training as a user would; thresholds of base and tuned are chosen on the validation split."""
    wanted = jobs(data_directory() / "nuclei")
    runs = trained(wanted, rehearse=rehearse)
    return outcome_of(wanted, runs, same_base(runs), figures(runs))


def trained(wanted: Mapping[str, Job], *, rehearse: bool) -> dict[str, dict[str, Any]]:
    """What every training says of itself: seconds, steps, base, and its figures without prompts and after clicks."""
    packaged_nano()
    short = ("trainer.max_steps=1", "trainer.validation_objects=1", "evaluate_images=1") if rehearse else ()
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (experiment, words) in list(wanted.items())[: 1 if rehearse else None]:
            sys.stderr.write(f"  {name}: python train.py experiment={experiment} {' '.join(words)}\n")
            output = Path(temporary) / name
            run = fine_tune(experiment, output, [*words, *short], dict(os.environ), directory=Path(temporary))
            report = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
            parts = {key: report[key] for key in ("automatic", "clicks") if key in report}
            runs[name] = {key: run[key] for key in ("seconds", "steps", "best_step", "base_sha256")} | parts
    return runs


def outcome_of(
    wanted: Mapping[str, Job], runs: Mapping[str, Any], checks: Mapping[str, str], found: Sequence[Figure]
) -> Outcome:
    """The answer, with what was typed."""
    typed = {
        name: [experiment, *(word for word in words if not word.startswith("data.root="))]
        for name, (experiment, words) in wanted.items()
    }
    return Outcome(
        settings={"threads": usable_cores(), "jobs": typed},
        checks=dict(checks),
        figures=list(found),
        details={"runs": dict(runs)},
    )


def same_base(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """That the base found the same without prompts in all runs with one grid. Raises `BenchmarkError` if not."""
    bases: dict[int, set[float]] = {}
    for one in (run["automatic"] for run in runs.values() if "automatic" in run):
        bases.setdefault(one["points_per_side"], set()).add(round(one["ap_50"]["base"], 6))
    if torn := {grid: sorted(values) for grid, values in bases.items() if len(values) > 1}:
        raise BenchmarkError(f"the base was measured differently: AP at 0.5 by points per side {torn}")
    return {"base": ", ".join(f"AP at 0.5 {values.pop():.3f} with {grid} points" for grid, values in bases.items())}


def figures(runs: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """All images against their limits."""
    ap = runs["all"]["automatic"]["ap_50"]
    return [
        figure("all_base", "all images, no prompts: AP at 0.5, base", ap["base"], interval=tuple(ap["base_interval"])),
        figure("all_tuned", "all images, no prompts: AP at 0.5, tuned (goal 0.65)", ap["tuned"],
               interval=tuple(ap["tuned_interval"])),
        figure("all_gain", "all images, no prompts: AP at 0.5, tuned − base", ap["delta"], relation=">=", limit=0.2,
               interval=tuple(ap["delta_interval"])),
        figure("all_seconds", "all images: time of training", runs["all"]["seconds"], unit="s", limit=600.0),
    ]  # fmt: skip
