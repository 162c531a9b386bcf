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
            f"{_mean(row, 'gains')} [{min(row['gains']):+.3f}]",
            _mean(found.get((name, method, "before")), "first_epochs"),
            f"{_mean(row, 'first_epochs')} [{min(row['first_epochs']):+.3f}]",
        )
        for (name, method, which), row in found.items()
        if which == "now"
    ]


def _mean(row: Mapping[str, Any] | None, key: str) -> str:
    return "–" if row is None else f"{statistics.fmean(row[key]):+.3f}"
