"""What does a job of a sweep cost beside its training and its evaluation?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.needs import packaged_nano
from benchmarks.processes import run_side
from benchmarks.record import BenchmarkError, Figure, Outcome, figure
from lora_sam.core.files import sha256_of

QUESTION = "A sweep in one process, rank x rate from cached prefixes: what a job costs beside training and evaluation"
QUICK = False

RANKS = ("2", "4", "8", "16")
RATES = ("1e-4", "3e-4")
WORDS = (
    *("model=nano", "method=lora", "method.blocks=last:2", "data=demo", "data.train=4", "data.val=1", "data.test=3"),
    *("trainer.max_steps=1", "trainer.max_epochs=null", "augmentation=none", "tracker=none"),
)


def measure(*, rehearse: bool) -> Outcome:
    """Run the sweep in one process that takes apart where its time goes."""
    weights = packaged_nano()
    ranks, rates = (RANKS[:2], RATES[:1]) if rehearse else (RANKS, RATES)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        words = [*WORDS, f"method.rank={','.join(ranks)}", f"optim.lr={','.join(rates)}"]
        places = [
            f"data.root={root / 'data'}",
            f"cache.directory={root / 'cache'}",
            f"hydra.sweep.dir={root / 'swept'}",
        ]
        jobs = run_side("sweep_overhead", ["-m", *words, *places], threads=1)["jobs"]
    if len(jobs) != len(ranks) * len(rates):
        raise BenchmarkError(f"the sweep has {len(jobs)} jobs, not {len(ranks) * len(rates)}")
    return Outcome(
        settings={
            "overrides": words,
            "threads": 1,
            "weights": sha256_of(weights)[:8],
            "training": "all of the fit: steps, validations, saved states",
            "evaluation": "base and tuned on the test images",
            "seconds": "of the processor: other work on the machine does not count in them, wall time it does",
        },
        checks={"jobs": f"{len(jobs)} done; none begins before the one before is over, so their times add up"},
        figures=figures(jobs),
        details={"jobs": jobs},
    )


def figures(jobs: Sequence[dict[str, float]]) -> list[Figure]:
    """What is left of a job's time, from the second on; the first imports, reads, builds and encodes."""

    def beside(one: dict[str, float], kind: str) -> float:
        whole = one["cpu" if kind else "wall"]
        return whole - one[f"training{kind}"] - one[f"evaluation{kind}"]

    others = jobs[1:]
    return [
        figure("overhead", "a job beside training and evaluation, seconds of the processor (goal 0.7)",
               [beside(one, "_cpu") for one in others], unit="s", limit=1.5),
        figure("overhead_wall", "the same in wall time", [beside(one, "") for one in others], unit="s"),
        figure("first", "the first job, which imports, reads, builds and encodes, seconds of the processor",
               beside(jobs[0], "_cpu"), unit="s"),
        figure("training", "training of a job: one step, validation before and after it, seconds of the processor",
               statistics.median(one["training_cpu"] for one in others), unit="s"),
        figure("evaluation", "evaluation of a job: 3 images, base and tuned, seconds of the processor",
               statistics.median(one["evaluation_cpu"] for one in others), unit="s"),
    ]  # fmt: skip
