"""Stop and go on, bit for bit: is a run that was stopped at any step the run that was not?"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

from benchmarks.reliability.forked import forked
from benchmarks.reliability.jobs import TINY, Clock, Tally, digest_of_state, state_of, trainer

STEPS = 6
VARIANTS: dict[str, tuple[str, ...]] = {
    "dropout": (),
    "ema": ("trainer.ema_decay=0.9",),
    "accumulation": ("trainer.accumulate=2",),
    "augmentation": ("augmentation=strong",),
    "cache": ("method=decoder", "augmentation=none"),
    "late blocks, cache": ("method.blocks=last:1", "augmentation=none"),
    "full": ("method=full", "optim.lr=1e-4"),
    "iterative prompts": ("prompt=iterative",),
    "bf16": ("trainer.precision=bf16",),
    "workers": ("trainer.workers=1",),
}


def measure(root: Path, tries: int, seconds: float, seed: int) -> Tally:
    """Stop every kind of run after each of its steps in turn, until there are `tries` pairs or `seconds` are over."""
    del seed  # every step is tried
    tally, clock = Tally(), Clock(seconds)
    whole: dict[str, str] = {}
    for step in range(1, STEPS):
        for name, more in VARIANTS.items():
            if tally.counts.get("pairs", 0) >= tries or clock.left <= 0:
                return tally
            overrides = [one for one in TINY if not (one.startswith("method.") and "method=" in " ".join(more))]
            overrides += [*more, f"cache.directory={root / 'cache'}"]
            if name not in whole:
                ended = forked(trainer(overrides, root / "whole"))
                if ended.code:
                    tally.wrong("broken", f"{name}: {ended.answer or ended.said[-300:]}")
                    whole[name] = ""
                    continue
                whole[name] = digest_of_state(root / "whole")
                shutil.rmtree(root / "whole")
                tally.add("kinds of runs")
            if whole[name]:
                _pair(root, overrides, step, f"{name}, step {step}", whole[name], tally)
    return tally


def _pair(root: Path, overrides: list[str], step: int, what: str, wanted: str, tally: Tally) -> None:
    stopped, resumed = root / "stopped", root / "resumed"
    first = forked(_stopping(trainer(overrides, stopped), step))
    if first.code != 128 + signal.SIGTERM or not state_of(stopped).is_file():
        tally.wrong("not stopped", f"{what}: code {first.code} {first.answer or first.said[-200:]}")
        return
    second = forked(trainer(overrides, resumed, stopped))
    tally.add("pairs")
    if second.code:
        tally.wrong("not resumed", f"{what}: {second.answer or second.said[-200:]}")
    elif digest_of_state(resumed) != wanted:
        tally.wrong("other bits", what)
    shutil.rmtree(stopped, ignore_errors=True)
    shutil.rmtree(resumed, ignore_errors=True)


def _stopping(train: Any, step: int) -> Any:
    """The same run, which gets SIGTERM once a step is recorded."""

    def stopping() -> None:
        from lora_sam.core.metrics_log import MetricsLog

        append = MetricsLog.append

        def recorded(log: MetricsLog, values: Any) -> None:
            append(log, values)
            if values["step"] == step and "loss" in values:
                os.kill(os.getpid(), signal.SIGTERM)

        MetricsLog.append = recorded  # type: ignore[assignment, method-assign]
        train()

    return stopping
