"""A small `Fit` for tests of the loop."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from lora_sam.core.run_directory import RunDirectory
from lora_sam.models.family import frame_of
from lora_sam.training.display import Display
from lora_sam.training.examples import TrainingExamples
from lora_sam.training.loop import Fit

NEVER = {"early_stopping": {"patience": None, "min_delta": 0.001, "warmup_epochs": 0}}


@pytest.fixture
def make_fit(option, tiny_sam, blobs, tmp_path, monkeypatch):
    """Makes a `Fit` on the blobs: 6 images, batches of 2, 3 steps an epoch."""
    monkeypatch.chdir(tmp_path)
    splits = option("data/coco", root=str(blobs)).open(0)

    def make(directory="run", *, values=None, method="lora", optim=None, prompt=None, **options) -> Fit:
        torch.manual_seed(0)
        adapted = option(f"method/{method}", **({"dropout": 0.2} if method == "lora" else {})).apply(tiny_sam())
        examples = TrainingExamples(
            splits.train,
            prompt or option("prompt/box", jitter_pixels=2),
            option("augmentation/flips"),
            frame=frame_of(adapted.sam),
            seed=0,
            max_objects=2,
        )
        scores = iter(values or [])
        records = []
        fit = Fit(
            adapted=adapted,
            examples=examples,
            loss=option("loss/sam", resolution="low"),
            optim=option("optim/adamw", **{"warmup_steps": 2, "warmup_fraction": 0.0, "lr": 1e-2, **(optim or {})}),
            options=option(
                "trainer/default",
                **{"batch_size": 2, "max_epochs": 4, "precision": "fp32", "log_every_steps": 1, "ema_decay": None}
                | {**NEVER, **options},
            ),
            precision="fp32",
            seed=0,
            run=RunDirectory(tmp_path / directory),
            accelerator=Accelerator(cpu=True),
            validate=lambda step: next(scores, 0.5),
            log=lambda step, record: records.append((step, dict(record))),
            display=Display(quiet=True),
        )
        object.__setattr__(fit, "records", records)
        return fit

    return make
