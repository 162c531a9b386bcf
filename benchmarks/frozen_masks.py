"""Do frozen weights held in bf16 while the rest trains give a run other masks? Two runs of nano that differ in that."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import run
from benchmarks.record import BenchmarkError

ALLOWED = 0.002
"""Difference of the mean IoU of the tuned model's masks."""


def tuned(place: Path, *, steps: int) -> dict[str, Any]:
    """`evaluation.json` of a run on drawn ellipses with each value of `trainer.frozen`, by that value."""
    options = [
        "model=nano", "method=lora", "data=ellipses", "data.side=256", "data.train=8", "data.val=4", "data.test=8",
        f"trainer.max_steps={steps}", "trainer.max_epochs=null", "trainer.precision=fp32", "trainer.overlays=0",
        "trainer.least_rise=0", "trainer.cross_validate=0", "tracker=none", "evaluate_automatic=false",
        "evaluate_clicks=false",
    ]  # fmt: skip
    found = {}
    for frozen in ("fp32", "bf16"):
        directory = place / f"frozen_{frozen}"
        run([sys.executable, "-m", "lora_sam.cli", "train", *options, f"trainer.frozen={frozen}",
             f"hydra.run.dir={directory}"])  # fmt: skip
        found[frozen] = json.loads((directory / "evaluation.json").read_text())
    return found


def check(found: dict[str, Any]) -> dict[str, str]:
    """What the runs say, in words.

    Raises:
        BenchmarkError: masks of base or tuned differ by too much, or nothing was trained that could differ.
    """
    before, after = found["fp32"], found["bf16"]
    if before["base"]["iou"] != after["base"]["iou"]:
        raise BenchmarkError("the base is not measured with the same weights in both runs")
    if any(one["tuned"]["iou"] == one["base"]["iou"] for one in (before, after)):
        raise BenchmarkError("a run has kept its base, so that nothing is compared")
    exact, rounded = (float(one["tuned"]["iou"]) for one in (before, after))
    if abs(exact - rounded) > ALLOWED:
        raise BenchmarkError(
            f"with frozen weights in bf16 the tuned model's masks have a mean IoU of {rounded:.4f}, with fp32 "
            f"{exact:.4f}: {ALLOWED} is allowed"
        )
    return {
        "masks with frozen weights in bf16": f"nano on drawn ellipses: IoU of the tuned model {rounded:.4f}, with fp32 "
        f"{exact:.4f}, base {before['base']['iou']:.4f}"
    }
