"""Does one labelled image pay, where nothing is prompted?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory
from benchmarks.questions.without_prompts import ON_NUCLEI, Job, outcome_of, same_base, trained
from benchmarks.record import Figure, Outcome, figure

QUESTION = "Nuclei without prompts, trained on one image, five times another: base and tuned"
QUICK = False

DRAWS = range(5)


def jobs(root: Path) -> dict[str, Job]:
    """The trainings by name; `root` is the set."""
    shared = (*ON_NUCLEI, f"data.root={root}", "evaluate_clicks=false", "evaluate_images=20", "trainer.overlays=0")
    return {f"draw_{draw}": ("one_image", (*shared, f"trainer.draw={draw}")) for draw in DRAWS}


def measure(*, rehearse: bool) -> Outcome:
    """Run every training as a user would; thresholds of base and tuned are chosen on the validation split."""
    wanted = jobs(data_directory() / "nuclei")
    runs = trained(wanted, rehearse=rehearse)
    return outcome_of(wanted, runs, same_base(runs), figures(runs))


def figures(runs: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """The draws against their limits."""
    gains = [run["automatic"]["ap_50"]["delta"] for run in runs.values()]
    return [
        figure("one_gain", f"one image, no prompts: AP at 0.5, tuned − base, median of {len(gains)} draws", gains,
               value=statistics.median(gains), relation=">=", limit=0.15),
        figure("one_seconds", "one image: time of training, longest", max(run["seconds"] for run in runs.values()),
               unit="s", limit=300.0),
    ]  # fmt: skip
