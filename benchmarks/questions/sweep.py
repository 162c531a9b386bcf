"""How much faster is a sweep whose trials share one embedding cache?"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import run, run_side
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "A sweep of 8 learning rates x 10 epochs, decoder-only, ViT-B at 1024 px: one cache against none"
QUICK = False

RATES = ("1e-5", "3e-5", "1e-4", "2e-4", "3e-4", "5e-4", "1e-3", "2e-3")
EPOCHS = 10
IMAGES = 4  # of which one each is set aside for validation and test
COMPARED_EPOCHS = 2
TOLERANCE = 1e-4  # of validation IoU, 0 to 1, in fp32


def measure(*, rehearse: bool) -> Outcome:
    """Check that a trial ends the same with the cache and without, then time a whole sweep and one trial without."""
    rates = RATES[:2] if rehearse else RATES
    epochs = 2 if rehearse else EPOCHS
    model, side = ("tiny_random", 128) if rehearse else ("vit_b", 1024)
    threads = min(2, usable_cores())
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        start = run_side(
            "sweep", [temporary, "--images", str(IMAGES), "--side", str(side), f"model={model}"], threads=threads
        )
        overrides = [
            f"model={model}",
            "model.weights=pretrained",
            f"model.checkpoint={start['checkpoint']}",
            "model.offline=true",
            "method=decoder",
            "data=coco",
            f"data.root={start['data']}",
            "data.few_images=0",  # one image is set aside; without, four would be cross-validated, and the base kept
            "augmentation=none",
            "tracker=none",
            "trainer.early_stopping.patience=null",
            "trainer.log_every_steps=1",
        ]

        def multirun(name: str, chosen: tuple[str, ...], cache: str, *more: str) -> dict[str, Any]:
            sys.stderr.write(f"  {len(chosen)} of {len(rates)} trials, {name}\n")
            values = [
                f"optim.lr={','.join(chosen)}",
                f"cache.directory={root / cache}",
                f"hydra.sweep.dir={root / name}",
            ]
            command = [sys.executable, str(ROOT / "train.py"), "--multirun", *overrides, *values, *more]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            clock = time.perf_counter()
            run(command, directory=root, environment=environment)
            seconds = time.perf_counter() - clock
            return {"seconds": seconds, "trials": [collect(root / name / str(job)) for job in range(len(chosen))]}

        exact = [f"trainer.max_epochs={min(epochs, COMPARED_EPOCHS)}", "trainer.precision=fp32", "cache.dtype=float32"]
        compared = {
            "cached": multirun("compared_cached", rates[-1:], "exact", *exact),
            "uncached": multirun("compared_uncached", rates[-1:], "exact", *exact, "trainer.cache=off"),
        }
        checks = {"validation IoU": check_same(compared)}
        length = f"trainer.max_epochs={epochs}"
        measured = {
            "uncached": multirun("uncached", rates[-1:], "shared", length, "trainer.cache=off"),
            "cached": multirun("cached", rates, "shared", length),
        }
        rows = sum(path.stat().st_size for path in (root / "shared").rglob("*") if path.is_file())
    curves = [measured[name]["trials"][-1]["validation_iou"] for name in ("cached", "uncached")]
    checks["the measured trials"] = (
        f"with the default arithmetic, validation IoU of the trial at optim.lr={rates[-1]} differs by "
        f"{largest_difference(*curves):.1e} at most between cached and uncached"
    )
    return Outcome(
        settings={
            "overrides": [word for word in overrides if temporary not in word],
            "learning_rates": list(rates),
            "epochs": epochs,
            "images": {"training": IMAGES - 2, "validation": 1, "test": 1, "side": side},
            "threads": threads,
            "uncached": f"one trial was run, and counts {len(rates)} times; so does the start of its process, which "
            "the sweep has once",
        },
        checks=checks,
        figures=figures(measured, rows),
        details={"compared": compared, "measured": measured},
    )


def collect(directory: Path) -> dict[str, Any]:
    """What is kept of a trial: its `seconds`, those of its training steps, and its validation curve.

    Raises:
        BenchmarkError: it failed, or trained nothing.
    """
    status = json.loads((directory / "status.json").read_text(encoding="utf-8"))
    if status["status"] != "completed":
        raise BenchmarkError(f"a trial of the sweep {status['status']}: {status['error']}")
    evaluation = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    if not evaluation["seconds"]:
        raise BenchmarkError("a trial of the sweep took no step, so there is nothing to compare")
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    return {
        "seconds": status["seconds"],
        "training_seconds": evaluation["seconds"],
        "tuned_iou": evaluation["tuned"]["iou"],
        "validation_iou": [value["validation_iou"] for value in values if "validation_iou" in value],
    }


def largest_difference(one: list[float], other: list[float]) -> float:
    """Of two curves, which must be equally long."""
    return max(abs(first - second) for first, second in zip(one, other, strict=True))


def check_same(compared: dict[str, Any]) -> str:
    """What was compared, for people. Raises `BenchmarkError` where the cache changes the result."""
    cached, uncached = (compared[name]["trials"][0] for name in ("cached", "uncached"))
    curves = largest_difference(cached["validation_iou"], uncached["validation_iou"])
    test = abs(cached["tuned_iou"] - uncached["tuned_iou"])
    if max(curves, test) > TOLERANCE:
        raise BenchmarkError(
            f"the cache changes the result: validation IoU differs by {curves:.2e}, test IoU by {test:.2e}, "
            f"{TOLERANCE} is allowed"
        )
    shown = ", ".join(f"{value:.4f}" for value in cached["validation_iou"])
    return (
        f"{shown} before and after each epoch with the cache, in fp32 and float32; without it they differ by "
        f"{curves:.1e} at most, test IoU by {test:.1e}"
    )


def figures(measured: dict[str, Any], cache_bytes: int) -> list[Figure]:
    """Ratios and seconds.

    Args:
        measured: `cached`, the sweep, and `uncached`, one of its trials: `seconds` of the command, and `trials`.
        cache_bytes: Size of the cache directory after the sweep.
    """
    cached, uncached = measured["cached"], measured["uncached"]
    count, (trial,) = len(cached["trials"]), uncached["trials"]
    seconds = [one["seconds"] for one in cached["trials"]]
    steps = [one["training_seconds"] for one in cached["trials"]]
    # the first trial encodes, the others find everything there
    first = seconds[0] - statistics.median(seconds[1:])
    sweep = f"sweep of {count} trials"
    return [
        figure("commands", f"{sweep}, decoder-only, times as fast: whole commands without a cache / with one (goal 35)",
               count * uncached["seconds"] / cached["seconds"], limit=25, relation=">="),
        figure("trials", f"{sweep}, times as fast: the trials without the start of the process",
               count * trial["seconds"] / sum(seconds)),
        figure("steps", f"{sweep}, times as fast: training steps alone, no building of models and cache, no validation",
               count * trial["training_seconds"] / sum(steps)),
        figure("seconds_sweep", f"{sweep} with one cache, the whole command", cached["seconds"], unit="s"),
        figure("seconds_trial", "one trial without a cache, the whole command", uncached["seconds"], unit="s"),
        figure("seconds_cached_trial", "one trial of the sweep with the cache", seconds, unit="s"),
        figure("seconds_build", "the first trial, which builds the cache, minus the median of the others", first,
               unit="s"),
        figure("cache_mb", "size of the cache after the sweep", cache_bytes / 1e6, unit="MB"),
    ]  # fmt: skip
