"""Tiny runs and steps to be disturbed, all in this process: nothing but what each needs is started."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT

TINY = (
    "model=tiny_random", "data=ellipses", "data.train=4", "data.val=1", "data.test=1", "data.side=64",
    "data.objects=2", "tracker=none", "trainer.overlays=0", "trainer.batch_size=1", "trainer.max_steps=6",
    "trainer.log_every_steps=1", "trainer.save_every_steps=1", "trainer.device=cpu", "trainer.precision=fp32",
    "trainer.early_stopping.patience=null", "method.dropout=0.1",
)  # fmt: skip
_IMPORTED = (
    "faster_coco_eval.core.mask", "peft", "safetensors.torch", "torch.utils.data", "lora_sam.cli.run",
    "lora_sam.deployment.merging", "lora_sam.evaluation.result", "lora_sam.report.of_run", "lora_sam.training.loop",
)  # fmt: skip


@dataclass
class Tally:
    """What was tried, and what went wrong.

    Attributes:
        counts: Numbers by name.
        failures: A line for each failure, at most some.
    """

    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, number: int = 1) -> None:
        """Count."""
        self.counts[name] = self.counts.get(name, 0) + number

    def wrong(self, name: str, what: str) -> None:
        """Count, and keep what it was."""
        self.add(name)
        if len(self.failures) < 40:
            self.failures.append(f"{name}: {what}"[:400])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"counts": self.counts, "failures": self.failures}


@dataclass
class Clock:
    """How much time is left."""

    seconds: float
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.start)


def prepare() -> None:
    """Import what the work needs, before anything forks."""
    import torch

    torch.set_num_threads(1)
    for name in _IMPORTED:
        importlib.import_module(name)
    os.environ["LORA_SAM_OFFLINE"] = "1"


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration of `python train.py <overrides>`."""
    from hydra import compose, initialize_config_dir

    from lora_sam.cli.jobs import plain

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", list(overrides)))


def trainer(overrides: Sequence[str], output: Path, resume: Path | None = None) -> Callable[[], None]:
    """A run into `output`, to be called in a process of its own."""
    config = {**composed(*overrides), "resume": None if resume is None else str(resume)}

    def train() -> None:
        from lora_sam.cli.run import run
        from lora_sam.training.settings import settings_from

        run(settings_from(config), config=config, output_dir=output)

    return train


def step(name: str, run: Path, **options: Any) -> Callable[[], int]:
    """A step after training."""
    from lora_sam.core.config import from_conf

    return lambda: int(from_conf(name, run=str(run), **options).perform() or 0)


def state_of(run: Path) -> Path:
    """The file that a run is resumed from."""
    return run / "checkpoints" / "last" / "state.safetensors"


def digest_of_state(run: Path) -> str:
    """SHA-256 of weights, optimiser and random state; of the progress all but the time."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(state_of(run), framework="np") as file:
        progress = json.loads(file.metadata()["progress"])
        progress.pop("seconds")
        digest.update(json.dumps(progress, sort_keys=True).encode())
        for name in sorted(file.keys()):
            digest.update(name.encode() + file.get_tensor(name).tobytes())
    return digest.hexdigest()


def names_in(directory: Path) -> set[str]:
    """Everything in a directory, relative to it."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def temporary_names(directory: Path) -> list[str]:
    """What was to be renamed, and is there still."""
    return sorted(name for name in names_in(directory) if "lora_sam-tmp" in name)
