"""Does tuning pay where it pays most: masks without prompts, of all images and of one, and corrections by clicks?"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.questions.finetune import fine_tune
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "Nuclei without prompts, trained on all images and on one of them, and after three clicks: base and tuned"
QUICK = False

DRAWS = range(5)
ON_NUCLEI = ("data=coco", "tracker=none", "evaluate_images=null")


def jobs(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Experiment and overrides of every run; `root` is the set."""
    shared = (*ON_NUCLEI, f"data.root={root}")
    clicks = ("prompt=iterative", "prompt.rounds=4", "trainer.max_epochs=1", "evaluate_automatic=false")
    one = ("evaluate_clicks=false", "trainer.overlays=0")
    return {
        "all": ("nuclei_everything", (*shared, "evaluate_clicks=false")),
        "clicks": ("nuclei_lora", (*shared, *clicks)),
        **{f"draw_{draw}": ("one_image", (*shared, *one, f"trainer.draw={draw}")) for draw in DRAWS},
    }


def measure(*, rehearse: bool) -> Outcome:
    """Run every training as a user would; thresholds of base and tuned are chosen on the validation split."""
    packaged_nano()
    root = data_directory() / "nuclei"
    short = ("trainer.max_steps=1", "trainer.validation_objects=1", "evaluate_images=1") if rehearse else ()
    wanted = {name: job for name, job in jobs(root).items() if not rehearse or name == "draw_0"}
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (experiment, words) in wanted.items():
            sys.stderr.write(f"  {name}: python train.py experiment={experiment} {' '.join(words)}\n")
            output = Path(temporary) / name
            run = fine_tune(experiment, output, [*words, *short], dict(os.environ), directory=Path(temporary))
            report = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
            parts = {key: report[key] for key in ("automatic", "clicks") if key in report}
            runs[name] = {key: run[key] for key in ("seconds", "steps", "best_step", "base_sha256")} | parts
    return Outcome(
        settings={
            "threads": usable_cores(),
            "jobs": {name: [experiment, *words[2:]] for name, (experiment, words) in wanted.items()},
        },
        checks=same_base(runs),
        figures=figures(runs),
        details={"runs": runs},
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
    """All images, one image, clicks, each against its limit."""
    found: list[Figure] = []
    if "all" in runs:
        ap = runs["all"]["automatic"]["ap_50"]
        found += [
            figure("all_tuned", "all images, no prompts: AP at 0.5, tuned (goal 0.65)", ap["tuned"],
                   interval=tuple(ap["tuned_interval"])),
            figure("all_gain", "all images, no prompts: AP at 0.5, tuned − base", ap["delta"], relation=">=", limit=0.2,
                   interval=tuple(ap["delta_interval"])),
            figure("all_seconds", "all images: time of training", runs["all"]["seconds"], unit="s", limit=600.0),
        ]  # fmt: skip
    draws = [run for name, run in runs.items() if name.startswith("draw_")]
    if draws:
        gains = [run["automatic"]["ap_50"]["delta"] for run in draws]
        found += [
            figure("one_gain", f"one image, no prompts: AP at 0.5, tuned − base, median of {len(draws)} draws", gains,
                   value=statistics.median(gains), relation=">=", limit=0.15),
            figure("one_seconds", "one image: time of training, longest", max(run["seconds"] for run in draws),
                   unit="s", limit=300.0),
        ]  # fmt: skip
    if "clicks" in runs:
        after = runs["clicks"]["clicks"]["iou_3"]
        found += [
            figure("clicks_gain", "IoU after 3 clicks, tuned − base", after["delta"], relation=">=", limit=0.05,
                   interval=tuple(after["delta_interval"])),
            figure("clicks_low", "the same, lower end of its 95 % interval", after["delta_interval"][0], relation=">",
                   limit=0.0),
        ]  # fmt: skip
    return found
