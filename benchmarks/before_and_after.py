"""The table of what the defaults reach beside those before, a row for each set and method."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEADING = (
    "set",
    "trains",
    "base IoU",
    "tuned − base, before",
    "now [worst seed]",
    "first epoch − base, before",
    "now [worst seed]",
)


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
