"""Directories of sweeps with the files that jobs leave, for tests of what is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.evaluation.metrics import METRICS, PER_OBJECT_METRICS, SIZES
from lora_sam.runs.status import Status
from lora_sam.runs.sweep import begin


def figures(value: float) -> dict[str, Any]:
    sizes = {size: {"objects": 0, "iou": None, "dice": None} for size in SIZES}
    return {
        **dict.fromkeys(METRICS, value),
        **{f"{name}_median": value for name in PER_OBJECT_METRICS},
        **{f"{name}_interval": [value, value] for name in METRICS},
        "by_size": sizes,
    }


def evaluation(
    validation: Sequence[float], test: float = 0.5, *, parameters: int = 1000, kept_step: int = 9, ids: str = "abcdefgh"
) -> dict[str, Any]:
    """`evaluation.json` of a job whose validation images, of two objects each, have these figures."""
    images = [{"id": ids[n], "objects": 2, "iou": value} for n, value in enumerate(validation)]
    mean = float(np.mean(validation))
    return {
        "schema_version": 1,
        "split": "test",
        "base": figures(0.25),
        "tuned": figures(test),
        "delta": figures(test - 0.25),
        "trainable_parameters": parameters,
        "total_parameters": 10_000,
        "adapter_bytes": 4 * parameters,
        "seconds": 3.0,
        "peak_memory_bytes": None,
        "images": 2,
        "objects": 4,
        "prompt": {},
        "seed": 0,
        "per_image": [{"id": name, "objects": 2, "base_iou": 0.25, "tuned_iou": test} for name in "xy"],
        "validation": {
            "base": 0.2,
            "trained": mean,
            "kept_step": kept_step,
            "iou": mean,
            "iou_interval": [max(0.0, mean - 0.05), min(1.0, mean + 0.05)],
            "per_image": images,
        },
    }


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
