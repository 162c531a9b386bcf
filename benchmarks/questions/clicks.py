"""Does tuning pay where masks are corrected by clicks?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory
from benchmarks.questions.without_prompts import ON_NUCLEI, Job, outcome_of, trained
from benchmarks.record import Figure, Outcome, figure

QUESTION = "Nuclei after one, three, five and eight clicks, trained with corrections: base and tuned"
QUICK = False


def jobs(root: Path) -> dict[str, Job]:
    """The trainings by name; `root` is the set."""
    words = ("prompt=iterative", "prompt.rounds=4", "trainer.max_epochs=6", "evaluate_automatic=false")
    return {"clicks": ("nuclei_lora", (*ON_NUCLEI, f"data.root={root}", *words))}


def measure(*, rehearse: bool) -> Outcome:
    """Run the training as a user would, and click where masks are most wrong."""
    wanted = jobs(data_directory() / "nuclei")
    runs = trained(wanted, rehearse=rehearse)
    checks = {"base": runs["clicks"]["base_sha256"]}
    return outcome_of(wanted, runs, checks, figures(runs))


def figures(runs: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Three clicks against their limits, and what others bring."""
    clicks = runs["clicks"]["clicks"]
    after = clicks["iou_3"]
    return [
        figure("clicks_gain", "IoU after 3 clicks, tuned − base", after["delta"], relation=">=", limit=0.05,
               interval=tuple(after["delta_interval"])),
        figure("clicks_low", "the same, lower end of its 95 % interval", after["delta_interval"][0], relation=">",
               limit=0.0),
        figure("clicks_base", "IoU after 3 clicks, base", after["base"], interval=tuple(after["base_interval"])),
        figure("clicks_tuned", "IoU after 3 clicks, tuned", after["tuned"], interval=tuple(after["tuned_interval"])),
        figure("clicks_seconds", "time of training", runs["clicks"]["seconds"], unit="s"),
    ]  # fmt: skip
