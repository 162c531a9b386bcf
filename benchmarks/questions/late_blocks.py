"""What does it cost to adapt only the last third of the blocks, whose input is cached?"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.over_seeds import SEEDS, combined, difference
from benchmarks.questions.finetune import fine_tune
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "LoRA in the last third of the blocks against all blocks: test IoU of nano on nuclei, and time"
QUICK = False

EXPERIMENT = "nuclei_lora"
DEPTH = 6  # of nano
SIDES = {"all": "all", "late": f"last:{DEPTH // 3}"}


def measure(*, rehearse: bool) -> Outcome:
    """Run the experiment with both, as a user would, each with a cache of its own, and with every seed."""
    packaged_nano()
    # absolute: the experiments run elsewhere
    environment = {**os.environ, "LORA_SAM_DATA": str(data_directory())}
    extra = ["trainer.max_steps=2", "trainer.validation_objects=2", "tracker=none"] if rehearse else []
    seeds = SEEDS[:2] if rehearse else SEEDS
    with tempfile.TemporaryDirectory() as temporary:
        of_seed = {
            seed: {
                name: _fine_tune(
                    Path(temporary) / f"{name}_{seed}", [f"method.blocks={blocks}", f"seed={seed}", *extra], environment
                )
                for name, blocks in SIDES.items()  # in turn, so that what else the machine does is shared
            }
            for seed in seeds
        }
    runs = {name: combined({seed: one[name] for seed, one in of_seed.items()}) for name in SIDES}
    return Outcome(
        settings={
            "experiment": EXPERIMENT,
            "blocks": SIDES,
            "seeds": list(seeds),
            "overrides": extra,
            "threads": usable_cores(),
            "intervals": "95 %, over seeds and images: images for all runs together, errors of seeds by Student's t",
        },
        checks={"base": check_base(runs)},
        figures=figures(runs),
        details={"runs": runs},
    )


def check_base(runs: dict[str, Any]) -> str:
    """That both runs measured the same base. Raises `BenchmarkError` if not."""
    every = [one for run in runs.values() for one in run.get("seeds", {"": run}).values()]
    found = {(run["base"]["iou"], run["images"], run["objects"]) for run in every}
    if len(found) > 1:
        raise BenchmarkError(f"the base was measured differently (IoU, images, objects): {sorted(found)}")
    ((iou, images, objects),) = found
    return f"test IoU {iou:.4f} on {images} images, {objects} objects in all runs"


def figures(runs: dict[str, Any]) -> list[Figure]:
    """The price in accuracy, and what it buys."""
    late, full = runs["late"], runs["all"]
    mean, (low, high) = difference(late, full)
    points = 100 * mean
    found = [
        figure("points", f"{EXPERIMENT}: tuned test IoU, last third of the blocks − all blocks (goal -0.5)", points,
               unit="points", limit=-1.0, relation=">=", interval=(100 * low, 100 * high)),
        figure("time", f"{EXPERIMENT}, times as fast: training steps, all blocks / last third", full["seconds"]
               / late["seconds"]),
    ]  # fmt: skip
    for name, one in runs.items():
        shown = f"{EXPERIMENT}, {'all blocks' if name == 'all' else 'last third of the blocks'}"
        tuned = one["tuned"]
        found += [
            figure(f"iou_{name}", f"{shown}: test IoU, tuned", tuned["iou"], interval=tuple(tuned["iou_interval"])),
            figure(f"seconds_{name}", f"{shown}: training steps", one["seconds"], unit="s"),
            figure(f"wall_{name}", f"{shown}: the whole command, cache and evaluation included", one["wall_seconds"],
                   unit="s"),
            figure(f"cache_{name}", f"{shown}: size of the cache", one["cache_bytes"] / 1e6, unit="MB"),
        ]  # fmt: skip
    return found


def _fine_tune(directory: Path, overrides: list[str], environment: dict[str, str]) -> dict[str, Any]:
    sys.stderr.write(f"  python train.py experiment={EXPERIMENT} {' '.join(overrides)}\n")
    cache = directory / "cache"
    directory.mkdir()
    words = [f"cache.directory={cache}", *overrides]
    figures = fine_tune(EXPERIMENT, directory / "run", words, environment, directory=directory)
    return figures | {"cache_bytes": sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())}
