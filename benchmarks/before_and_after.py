"""Tables of what the defaults reach beside those before, and of the runs by which they were chosen."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import markdown
from benchmarks.record import RESULTS

HEADING = (
    "set",
    "trains",
    "base IoU",
    "tuned − base, before",
    "now [worst seed]",
    "first epoch − base, before",
    "now [worst seed]",
)

SWEEP = RESULTS / "defaults_sweep.jsonl"
SWEEP_HEADING = (
    "set",
    "trains",
    "settings",
    "images × epochs",
    "first epoch − base",
    "last epoch − base",
    "kept − base, test",
)


FEW = RESULTS / "few_images.jsonl"
FEW_HEADING = (
    "set",
    "trains",
    "images",
    "seed",
    "base IoU",
    "before",
    "all train, nothing else",
    "now",
    "cross-validation, base → trained",
)


def table_of_few_images() -> str:
    """Runs on few images, tuned − base on the test images by each rule, in Markdown."""
    cells: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in FEW.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        key = (one["set"], one["method"], str(one["images"]), str(one["seed"]), f"{one['base_iou']:.3f}")
        cells.setdefault(key, {})[one["rule"]] = one
    return markdown(FEW_HEADING, [(*key, *_of_few(rules)) for key, rules in cells.items()], "llrrrrrrr")


def _of_few(rules: Mapping[str, Any]) -> tuple[str, ...]:
    gains = [
        f"{rules[name]['tuned_iou'] - rules[name]['base_iou']:+.3f}" if name in rules else "–"
        for name in FEW_HEADING[5:8]
    ]
    cross = rules.get("now", {}).get("cross_validation")
    return (*gains, "–" if cross is None else f"{cross[0]:.3f} → {cross[1]:.3f}")


def table_of_sweep() -> str:
    """The runs by which the defaults were chosen, in Markdown."""
    return markdown(SWEEP_HEADING, sweep(), "lllrrrr")


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """`table` in Markdown."""
    return markdown(HEADING, table(rows), "llrrrrr")


def sweep() -> list[tuple[str, ...]]:
    """Cells under `SWEEP_HEADING`, of the runs by which the defaults were chosen."""
    rows = [json.loads(line) for line in SWEEP.read_text(encoding="utf-8").splitlines()]
    return [
        (
            one["set"],
            one["method"],
            ", ".join(f"`{word}`" for word in one["settings"]),
            f"{one['images'][0]} × {one['epochs']}",
            *(f"{one['validation_iou'][epoch][1] - one['validation_iou'][0][1]:+.3f}" for epoch in (1, -1)),
            f"{one['tuned_iou'] - one['base_iou']:+.3f}",
        )
        for one in rows
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Cells under `HEADING`, of the rows that `benchmarks.questions.defaults` keeps."""
    found = {(row["set"], row["method"], row["defaults"]): row for row in rows}
    return [
        (
            name,
            method,
            f"{row['base']:.3f}",
            _mean(found.get((name, method, "before")), "gains"),
            _mean_and_worst(row, "gains"),
            _mean(found.get((name, method, "before")), "first_epochs"),
            _mean_and_worst(row, "first_epochs"),
        )
        for (name, method, which), row in found.items()
        if which == "now"
    ]


def _mean(row: Mapping[str, Any] | None, key: str) -> str:
    """`–` too where no seed has the figure: a run that cross-validation ended has no first epoch."""
    return f"{statistics.fmean(row[key]):+.3f}" if row is not None and row[key] else "–"


def _mean_and_worst(row: Mapping[str, Any], key: str) -> str:
    return f"{_mean(row, key)} [{min(row[key]):+.3f}]" if row[key] else "–"
