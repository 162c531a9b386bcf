"""Directories of sweeps with the files that jobs leave, for tests of what is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_sam.runs.status import Status
from lora_sam.runs.sweep import begin


def job(
    sweep: Path, number: int, overrides: Sequence[str], report: dict[str, Any] | None = None, **status: Any
) -> Path:
    """A job of a sweep that is done with `report`, or ended as `status` says."""
    directory = sweep / str(number)
    directory.mkdir(parents=True)
    if report is not None:
        (directory / "evaluation.json").write_text(json.dumps(report))
        status = {"status": "completed", "objective": report["validation"]["iou"], "seconds": 10.0 + number, **status}
    Status(**{"job": number, "overrides": list(overrides), "started": 2e9, **status}).write(directory)
    return directory


def grid(sweep: Path, keys: Sequence[str], rows: Sequence[Sequence[Any]], typed: Sequence[str] = ()) -> list[list[str]]:
    """Begin a sweep whose jobs have these values; returns their overrides."""
    sweep.mkdir(parents=True, exist_ok=True)
    planned = [["data.root=x", *(f"{key}={value}" for key, value in zip(keys, row, strict=True))] for row in rows]
    begin(sweep, ["-m", *(typed or ["data.root=x"])], list(typed) or ["data.root=x"], planned)
    return planned
