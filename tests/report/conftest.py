"""A finished run of five images with known masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.metrics_log import MetricsLog
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.evaluation.result import evaluation_report
from lora_sam.evaluation.scoring import Evaluation, evaluate
from lora_sam.report.overlays import write_overlays
from lora_sam.report.pictures import draw_cases

EVIL = '<script>alert("1")</script>&amp;.png'


@dataclass(frozen=True)
class Squares:
    """Images with two 10x10 squares each; the first columns of image n are n bright."""

    names: Sequence[str]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ids(self) -> Sequence[str]:
        return self.names

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        return [(40, 50)] * len(self)

    @property
    def object_counts(self) -> Sequence[int]:
        return [2] * len(self)

    def __getitem__(self, index: int) -> Sample:
        image = np.full((40, 50, 3), 200, np.uint8)
        image[:, :5] = index
        masks = np.zeros((2, 40, 50), np.bool_)
        masks[0, 5:15, 5:15] = True
        masks[1, 20:30, 20:30] = True
        return Sample(self.names[index], image, masks, ("7", "8"), self.classes)


def short(sample: Sample, columns: int) -> NDArray[np.bool_]:
    """The true squares without their last `columns` columns."""
    masks = sample.masks.copy()
    masks[0, :, 15 - columns : 15] = False
    masks[1, :, 30 - columns : 30] = False
    return masks


@dataclass(frozen=True)
class Short:
    source: Squares
    columns: dict[int, int]

    def predict(self, image: NDArray[np.uint8], prompts: Prompts, **_: Any) -> Masks:
        index = int(image[0, 0, 0])
        masks = short(self.source[index], self.columns[index])
        return Masks(masks, np.ones(2, np.float32), np.zeros((2, 4, 4), np.float32))


BASE, TUNED = 5, {0: 2, 1: 6, 2: 0, 3: 4, 4: 3, 5: 1, 6: 2, 7: 3}


@pytest.fixture
def measured() -> Callable[..., tuple[Evaluation, Squares]]:
    def measure(names: Sequence[str], classes: tuple[str, ...] = ()) -> tuple[Evaluation, Squares]:
        source = Squares(names, classes)
        predictors = {
            "base": Short(source, dict.fromkeys(range(len(names)), BASE)),
            "tuned": Short(source, TUNED),
        }
        return evaluate(predictors, source, lambda _: Prompts(boxes=np.zeros((2, 4), np.float32))), source

    return measure


def masks_for(place: int, sample: Sample) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return short(sample, BASE), short(sample, TUNED[int(sample.image[0, 0, 0])])


LOG: list[dict[str, Any]] = [
    {"step": 0, "validation_iou": 0.31},
    *({"step": step, "loss": 2.0 - step / 100} for step in range(10, 101, 10)),
    {"step": 50, "validation_iou": 0.62},
    {"step": 100, "validation_iou": 0.6},
]

FACTS: dict[str, Any] = {
    "architecture": {"variant": "nano"},
    "image_size": 128,
    "base": {"source": "<b>weights</b>.pth", "sha256": "ab" * 32},
    "method": {"name": "lora", "rank": 8, "targets": ["q", "v"]},
    "seed": 3,
    "steps": 100,
    "best_step": 50,
    "versions": {"lora_sam": "0.1.0", "torch": "2.11"},
}

CONFIG: dict[str, Any] = {
    "seed": 3,
    "method": {"_target_": "lora_sam.methods.lora.LoRA", "rank": 8},
    "optim": {"lr": 0.001},
    "trainer": {"max_epochs": 20, "max_steps": None},
    "data": {"root": '"><img src=https://example.org/x onerror=alert(1)></pre>'},
}


def report_of(evaluation: Evaluation) -> dict[str, Any]:
    return evaluation_report(
        evaluation,
        split="test",
        prompt={"jitter_pixels": 0.0},
        seed=3,
        trainable_parameters=294_912,
        total_parameters=94_030_096,
        adapter_bytes=1_187_000,
        seconds=272.4,
        peak_memory_bytes=None,
    )


@pytest.fixture
def contents(measured: Callable[[Sequence[str]], tuple[Evaluation, Squares]]) -> dict[str, Any]:
    """The arguments of `report_html` for a run with a name that is markup."""
    evaluation, source = measured([EVIL, "b.png", "c.png", "d.png", "e.png"])
    _, pictures = draw_cases(evaluation, source, masks_for)
    return {
        "report": report_of(evaluation),
        "log": LOG,
        "config": CONFIG,
        "facts": FACTS,
        "pictures": pictures,
        "next_steps": (),
    }


@pytest.fixture
def finished(
    tmp_path: Path, measured: Callable[[Sequence[str]], tuple[Evaluation, Squares]]
) -> Callable[..., RunDirectory]:
    """Makes the files of a run that the picture for the README is drawn from."""

    def make(names: Sequence[str] = ("a", "b", "c", "d", "e"), log: Sequence[dict[str, Any]] = LOG) -> RunDirectory:
        run = RunDirectory(tmp_path / "run")
        evaluation, source = measured(names)
        strips, _ = draw_cases(evaluation, source, masks_for)
        write_overlays(run.overlays, strips)
        run.evaluation.write_text(json.dumps(report_of(evaluation)))
        record = MetricsLog(run.metrics)
        for row in log:
            record.append(row)
        return run

    return make
