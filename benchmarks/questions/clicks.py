"""Does tuning pay where masks are corrected by clicks?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory
from benchmarks.questions.without_prompts import ON_NUCLEI, Job, outcome_of, trained
from benchmarks.record import Figure, Outcome, figure

QUESTION = "Nuclei and the demo after one, three, five and eight clicks, trained with corrections: base and tuned"
QUICK = False

CORRECTED = ("prompt=iterative", "prompt.point_share=1", "prompt.rounds=4", "evaluate_automatic=false")
"""Words of a training that begins with a click, as the figures do, and corrects it three times."""


def jobs(root: Path) -> dict[str, Job]:
    """The trainings by name; `root` is the set."""
    of_nuclei = (*ON_NUCLEI, "evaluate_images=null", f"data.root={root}", *CORRECTED, "trainer.max_epochs=8")
    return {
        "nuclei": ("nuclei_lora", of_nuclei),
        "demo": ("demo", ("tracker=none", "evaluate_images=null", *CORRECTED)),
    }


def measure(*, rehearse: bool) -> Outcome:
    """Run every training as a user would, and click where masks are most wrong."""
    wanted = jobs(data_directory() / "nuclei")
    runs = trained(wanted, rehearse=rehearse)
    checks = {"base": ", ".join(sorted({run["base_sha256"] for run in runs.values()}))}
    return outcome_of(wanted, runs, checks, [line for name, run in runs.items() for line in figures(name, run)])


def figures(name: str, run: Mapping[str, Any]) -> list[Figure]:
    """Three clicks in the training called `name` against their limits, and what others bring."""
    after = run["clicks"]["iou_3"]
    return [
        figure(f"{name}_gain", f"{name}: IoU after 3 clicks, tuned − base (goal 0.10)", after["delta"], relation=">=",
               limit=0.05, interval=tuple(after["delta_interval"])),
        figure(f"{name}_low", f"{name}: the same, lower end of its 95 % interval", after["delta_interval"][0],
               relation=">", limit=0.0),
        figure(f"{name}_base", f"{name}: IoU after 3 clicks, base", after["base"],
               interval=tuple(after["base_interval"])),
        figure(f"{name}_tuned", f"{name}: IoU after 3 clicks, tuned", after["tuned"],
               interval=tuple(after["tuned_interval"])),
        figure(f"{name}_seconds", f"{name}: time of training", run["seconds"], unit="s"),
    ]  # fmt: skip
