"""Do the defaults help on every set, or at least do no harm, and are they better than those before?"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.needs import labelled_sets, packaged_nano
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure
from benchmarks.sides.defaults import mean
from lora_sam.core.files import write_text

QUESTION = "Defaults on drawn and real sets: tuned − base and first epoch − base, beside the defaults before"
QUICK = False

# enough for what is asked, and no more: a cell takes half a minute of one thread
SHARED = (
    "model=nano", "model.image_size=256", "trainer.max_epochs=3", "trainer.validation_objects=4",
    "data.max_objects_per_image=4", "trainer.class_head=false", "tracker=none",
)  # fmt: skip
DRAWN = ("thin", "holed", "textured", "crowded", "photographic")
FEW = ("data.train=8", "data.val=6", "data.test=8")
IMAGES = {"nuclei": (8, 6, 8)}  # training, validation and test; other sets have few anyway
REAL = {"nuclei": "coco", "rings": "folder"}
METHODS = {
    "decoder": ("method=decoder",),
    "lora": ("method=lora",),
    "lora, decoder frozen": ("method=lora", "method.decoder=frozen"),
}
# what conf/ says, and what it said before it was measured
DEFAULTS = {
    "now": (),
    "before": (
        "loss=sam", "loss.resolution=low", "optim.lr=1e-3", "optim.pretrained_lr_fraction=1.0",
        "optim.warmup_fraction=0.0", "trainer.ema_decay=null", "trainer.least_rise=0",
    ),
}  # fmt: skip
SEEDS = (0, 1, 2)
FIRST_EPOCH, END = -0.02, -0.002  # how far below the base at most

_TINY = (
    "model=tiny_random", "data.train=2", "data.val=1", "data.test=1", "data.side=64", "trainer.max_epochs=1",
    "model.image_size=64", "data.labelled=2",
)  # fmt: skip


def measure(*, rehearse: bool) -> Outcome:
    """Run what is not there yet; each finished cell is kept under `outputs/benchmarks/defaults`."""
    if rehearse:
        sets: dict[str, tuple[str, ...]] = {"thin": ("data=drawn_thin",)}
        skipped: dict[str, str] = {}
        seeds: tuple[int, ...] = (0,)
        cells = [{**one, "overrides": [*one["overrides"], *_TINY]} for one in all_cells(sets, seeds)][::3]
        measured = run_cells(cells, None)
    else:
        packaged_nano()
        sets, skipped = available()
        seeds = SEEDS[: int(os.environ.get("BENCHMARK_SEEDS", len(SEEDS)))]
        cells = list(all_cells(sets, seeds))
        measured = run_cells(cells, ROOT / "outputs" / "benchmarks" / "defaults", os.environ.get("BENCHMARK_SECONDS"))
        if not measured:
            raise BenchmarkError("no cell was finished in $BENCHMARK_SECONDS; give it more")
    table = rows(measured)
    return Outcome(
        settings={
            "sets": list(sets),
            "skipped": skipped,
            "methods": list(METHODS),
            "seeds": list(seeds),
            "cells": f"{len(measured)} of {len(cells)}",
            "shared": list(SHARED),
            "images": [*FEW, *(f"{name}: {counts}" for name, counts in IMAGES.items())],
            "defaults": {name: list(words) for name, words in DEFAULTS.items()},
            "threads": 1,
        },
        checks=same_base(measured),
        figures=figures(table),
        details={"rows": table, "cells": [_kept(cell) for cell in measured]},
    )


def available() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Overrides of every set that is here, or of those in $BENCHMARK_SETS (a,b), and why the others are left out.

    Raises:
        BenchmarkError: $BENCHMARK_SETS names one that is not here.
    """
    sets: dict[str, tuple[str, ...]] = {name: (f"data=drawn_{name}", *FEW) for name in DRAWN}
    skipped = {}
    for name, kind in REAL.items():
        directory = labelled_sets() / name
        if directory.is_dir():
            sets[name] = (f"data={kind}", f"data.root={directory}")
        else:
            skipped[name] = "not there under $LORA_SAM_DATA; docs/data.md says where it comes from"
    if named := os.environ.get("BENCHMARK_SETS"):
        wanted = named.split(",")
        if unknown := [name for name in wanted if name not in sets]:
            raise BenchmarkError(f"BENCHMARK_SETS names {', '.join(unknown)}; there are {', '.join(sets)}")
        skipped |= {name: "not in $BENCHMARK_SETS" for name in sets if name not in wanted}
        sets = {name: sets[name] for name in wanted}
    return sets, skipped


def all_cells(sets: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Every cell: what it is, and what `benchmarks.sides.defaults` is told; first all with the defaults of now."""
    for seed, which in itertools.product(seeds, DEFAULTS):
        for name, data in sets.items():
            train, val, test = IMAGES.get(name, (0, 0, 0))
            for method, words in METHODS.items():
                yield {
                    "set": name,
                    "method": method,
                    "seed": seed,
                    "defaults": which,
                    "overrides": [*data, *SHARED, *words, *DEFAULTS[which], f"seed={seed}"],
                    "train": train,
                    "val": val,
                    "test": test,
                }


def run_cells(
    cells: Sequence[Mapping[str, Any]], directory: Path | None, seconds: str | None = None
) -> list[dict[str, Any]]:
    """What came of every cell, from `directory` where it was measured with these very settings and this base.

    After so many seconds no further cell is begun, and those that are not kept are left out.

    Raises:
        BenchmarkError: the side failed.
    """
    found: list[dict[str, Any]] = []
    end = math.inf if seconds is None else time.monotonic() + float(seconds)
    with ExitStack() as stack:
        side: subprocess.Popen[str] | None = None
        for cell in cells:
            place = None if directory is None else directory / f"{_digest(cell)}.json"
            if place is not None and place.is_file():
                found.append(json.loads(place.read_text(encoding="utf-8")))
                continue
            if time.monotonic() >= end:
                continue
            side = side or stack.enter_context(_side())
            sys.stderr.write(f"  {cell['set']}, {cell['method']}, seed {cell['seed']}, defaults {cell['defaults']}\n")
            found.append(_asked(side, cell))
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_text(place, json.dumps(found[-1]) + "\n")
        if side is not None and side.stdin is not None:
            side.stdin.close()
    return found


def _side() -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.sides.defaults"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _asked(side: subprocess.Popen[str], cell: Mapping[str, Any]) -> dict[str, Any]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write(json.dumps(cell) + "\n")
    side.stdin.flush()
    answer = side.stdout.readline()
    if not answer:
        raise BenchmarkError(f"benchmarks.sides.defaults ended with status {side.wait()} at that cell")
    result: dict[str, Any] = json.loads(answer)
    return result


def _digest(cell: Mapping[str, Any]) -> str:
    """Name of a cell: what it is told, all that conf/ makes of it, and the weights it starts from."""
    from lora_sam.models.checkpoints import packaged_checkpoint

    packaged = packaged_checkpoint("nano")
    weights = b"" if packaged is None else packaged.read_bytes()
    told = json.dumps([cell, _composed(cell["overrides"]), hashlib.sha256(weights).hexdigest()], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _composed(overrides: Sequence[str]) -> str:
    from benchmarks.settings import settings_for

    return repr(settings_for(*overrides))


def _kept(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What the result keeps of a cell."""
    wanted = ("set", "method", "seed", "defaults", "base_sha256", "images", "steps", "best_step", "validation_iou")
    return {
        **{name: cell[name] for name in wanted},
        "base_iou": round(mean(cell["base"]), 5),
        "tuned_iou": round(mean(cell["tuned"]), 5),
        "cpu_seconds": cell["seconds"],
    }


def rows(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each set, method and defaults: base, and over the seeds the gain, first epochs and the worst."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["set"], cell["method"], cell["defaults"]), []).append(cell)
    return [
        {
            "set": name,
            "method": method,
            "defaults": which,
            "seeds": len(found),
            "base": mean(found[0]["base"]),
            "gains": [mean(one["tuned"]) - mean(one["base"]) for one in found],
            # measured after the first epoch, before anything is chosen; [0] is the base
            "first_epochs": [
                one["validation_iou"][1][1] - one["validation_iou"][0][1]
                for one in found
                if len(one["validation_iou"]) > 1
            ],  # else cross-validation has ended it
            "ends": [one["validation_iou"][-1][1] - one["validation_iou"][0][1] for one in found],
        }
        for (name, method, which), found in groups.items()
    ]


def same_base(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """That all cells of a set start from one base. Raises `BenchmarkError` where they do not."""
    bases: dict[str, set[float]] = {}
    for cell in cells:
        bases.setdefault(cell["set"], set()).add(round(mean(cell["base"]), 6))
    if torn := [name for name, values in bases.items() if len(values) > 1]:
        raise BenchmarkError(
            f"the base was measured differently on {', '.join(torn)}: {[bases[name] for name in torn]}"
        )
    weights = {str(cell["base_sha256"])[:8] for cell in cells}
    if len(weights) > 1:
        raise BenchmarkError(f"cells start from different weights: {', '.join(sorted(weights))}; measure again")
    told = ", ".join(f"{name} {values.copy().pop():.3f}" for name, values in bases.items())
    return {"base": f"test IoU {told} in every cell; SHA-256 {weights.pop()}"}


def figures(table: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The worst of all cells against its limit, with today's defaults; and the gain of each method beside before."""
    result = []
    for which, limits in (("now", True), ("before", False)):
        found = [row for row in table if row["defaults"] == which]
        if not found:
            continue
        gains, first = ([value for row in found for value in row[key]] for key in ("gains", "first_epochs"))
        label = "defaults" if limits else "defaults before"
        result += [
            figure(f"{which}_worst_end", f"{label}: tuned − base test IoU, worst cell of {len(gains)}", min(gains),
                   relation=">=", limit=END if limits else None),
            figure(f"{which}_worst_first", f"{label}: first epoch − base validation IoU, worst cell", min(first),
                   relation=">=", limit=FIRST_EPOCH if limits else None),
        ]  # fmt: skip
        for method in METHODS:
            mine = [row for row in found if row["method"] == method]
            if mine:
                values = [statistics.fmean(row["gains"]) for row in mine]
                name, what = method.replace(", decoder ", "_"), "tuned − base test IoU, mean over sets"
                result.append(
                    figure(f"{which}_{name}", f"{label}, {method}: {what}", values, value=statistics.fmean(values))
                )
    pairs = [
        statistics.fmean(now["gains"]) - statistics.fmean(then["gains"])
        for now in table
        for then in table
        if now["defaults"] == "now"
        and then["defaults"] == "before"
        and (now["set"], now["method"]) == (then["set"], then["method"])
    ]
    if pairs:
        result.append(
            figure("against_before", "gain with the defaults − gain with those before, mean over sets and methods",
                   pairs, value=statistics.fmean(pairs), relation=">=", limit=0.0)
        )  # fmt: skip
    return result
