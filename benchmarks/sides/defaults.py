"""Fine-tune with the defaults on one labelled set, cell after cell, and print what each came to as a line of JSON."""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.settings import settings_for

if TYPE_CHECKING:
    from lora_sam.data.sources import SampleSource
    from lora_sam.data.splits import Splits
    from lora_sam.models.base_model import BaseModel
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.training.chance import ClusterSums
    from lora_sam.training.settings import Settings
    from lora_sam.training.validation import Validation

Scores: TypeAlias = tuple[NDArray[np.float64], ...]
"""IoU of the objects of every image."""

DRAW = 0  # which images a set has, whatever the seed of training


def main(arguments: Sequence[str] | None = None) -> int:
    """Read cells as JSON, one a line with `overrides`, `train`, `val` and `test`, from standard input."""
    parser = argparse.ArgumentParser()
    parser.parse_args(arguments)
    measured = Cells()
    answers, sys.stdout = sys.stdout, sys.stderr  # what else is printed on the way is for people
    for line in iter(sys.stdin.readline, ""):
        cell = json.loads(line)
        answers.write(json.dumps({**cell, **measured(cell)}) + "\n")
        answers.flush()
    return 0


class Cells:
    """Runs cells; keeps the images and the base of the last, which the next one mostly shares."""

    def __init__(self) -> None:
        self._data: tuple[Any, Splits] | None = None
        self._base: tuple[Any, BaseModel] | None = None
        self._scores: dict[Any, tuple[Scores, list[list[float]]]] = {}

    def __call__(self, cell: dict[str, Any]) -> dict[str, Any]:
        """What came of one cell: curves, and the IoU of base and tuned on every test image.

        Args:
            cell: `overrides` of a run, and `train`, `val` and `test`, as `drawn` takes them.
        """
        settings = settings_for(*cell["overrides"])
        wanted = tuple(cell[name] for name in ("train", "val", "test"))
        key = (settings.data, wanted)
        if self._data is None or self._data[0] != key:
            self._data = (key, drawn(settings.data.open(DRAW), *wanted))
        splits = self._data[1]
        if self._base is None or self._base[0] != settings.model:
            self._base = (settings.model, settings.model.build())
        base = self._base[1]
        known = (key, settings.model, settings.prompt)
        if known not in self._scores:
            import torch

            from lora_sam.predictors.torch_predictor import TorchPredictor

            torch.set_num_threads(1)
            untouched = TorchPredictor(base.sam, base.image_size)
            validated = measured(untouched, splits.val, settings)
            self._scores[known] = validated, scores(untouched, splits.test, settings)
        validated, tested = self._scores[known]
        with tempfile.TemporaryDirectory() as directory:
            result = trained(settings, splits, copy.deepcopy(base), Path(directory), validated)
        return {
            "base_sha256": base.sha256,
            "images": [len(splits.train), len(splits.val), len(splits.test)],
            "base": tested,
            **result,
            "tuned": result["tuned"] or tested,
        }


def trained(settings: Settings, splits: Splits, base: BaseModel, root: Path, validated: Scores) -> dict[str, Any]:
    """Fit as a run does; the test IoU of what it keeps, and None where that is the base.

    Args:
        settings: The run.
        splits: The images.
        base: A base of its own.
        root: Directory for checkpoints.
        validated: IoU of the validation objects by the base, which every method begins as.
    """
    from lora_sam.core.metrics_log import read_metrics
    from lora_sam.core.run_directory import RunDirectory
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.training.cross_validation import CrossValidated
    from lora_sam.training.fit import fit
    from lora_sam.training.parts import ready, validation_of
    from lora_sam.training.processes import join_processes
    from lora_sam.training.setup import adapt, choose_attention, encode_once, plan_run, settle_loss
    from lora_sam.training.state import load_state
    from lora_sam.training.stopping import StopRequest

    directory = RunDirectory(root)
    settings = replace(settings, cache=replace(settings.cache, directory=str(root / "cache")))
    processes = join_processes(settings.trainer)
    processes.console.quiet = True
    adapted = adapt(base, settings, splits, processes)
    settings = settle_loss(settings, splits, adapted, processes)
    encodings = encode_once(base, adapted, settings, processes.say)
    attention = choose_attention(base, adapted, settings.trainer, processes)
    plan = plan_run(settings, splits, adapted, encodings, attention, processes)
    clock = time.process_time()
    with ready(settings, directory, splits, processes, base, adapted, encodings, attention, plan) as parts:
        validation = replace(validation_of(parts), seed=DRAW)
        progress = fit(parts, Validated(validation, validated), None, StopRequest())
        if not progress.finished:
            raise KeyboardInterrupt
        load_state(directory.best, adapted.trainable())
        kept = TorchPredictor(adapted.sam, base.image_size)
        cross = CrossValidated.recorded(read_metrics(directory.metrics))
        return {
            "steps": progress.step,
            "best_step": progress.best_step,
            "validation_iou": [
                [line["step"], line["validation_iou"]]
                for line in read_metrics(directory.metrics)
                if "validation_iou" in line
            ],
            "tuned": scores(kept, splits.test, settings) if progress.best_step else None,
            "cross_validation": None if cross is None else [round(cross.base, 5), round(cross.trained, 5)],
            "seconds": round(time.process_time() - clock, 1),
        }


class Validated:
    """Validates as a run does; the base, which many cells share, was measured before."""

    def __init__(self, validation: Validation, base: Scores) -> None:
        self._validation, self._base = validation, base
        self._last = base

    def __call__(self, step: int) -> float:
        """Mean IoU per object at a step."""
        from lora_sam.training.validation import mean_iou

        self._last = self._validation() if step else self._base
        return mean_iou(self._last)

    def sums(self) -> ClusterSums:
        """What the last mean was made of, image by image."""
        from lora_sam.training.chance import sums_of

        return sums_of(self._last, np.arange(len(self._last)))


def scores(predictor: TorchPredictor, source: SampleSource, settings: Settings) -> list[list[float]]:
    """(objects, mean IoU 0 to 1) of every image; see `measured`."""
    return [[len(found), float(found.mean())] for found in measured(predictor, source, settings)]


def measured(predictor: TorchPredictor, source: SampleSource, settings: Settings) -> Scores:
    """IoU of the objects of every image, by the prompts of the settings with one seed for all cells."""
    from lora_sam.training.validation import Validation

    measure = Validation(
        predictor=predictor,
        source=source,
        prompt=settings.prompt,
        seed=DRAW,
        max_objects=settings.trainer.validation_objects,
    )
    return measure()


def mean(table: Sequence[Sequence[float]]) -> float:
    """Mean per object of a table of (objects, mean of the image)."""
    return sum(count * value for count, value in table) / sum(count for count, _ in table)


def drawn(splits: Splits, train: int, val: int, test: int) -> Splits:
    """The first images of each split, kept in memory so that none is drawn twice; 0 for all of them.

    Where `val` is negative, validation looks at the training images themselves.
    """
    from lora_sam.data.splits import Subset

    def few(source: SampleSource, count: int) -> Any:
        return Kept(Subset(source, tuple(range(min(count, len(source)) if count else len(source)))))

    first = few(splits.train, train)
    return replace(splits, train=first, val=first if val < 0 else few(splits.val, val), test=few(splits.test, test))


class Kept:
    """A source whose samples are read once and stay in memory."""

    def __init__(self, source: SampleSource) -> None:
        self.ids, self.sizes, self.object_counts = list(source.ids), list(source.sizes), source.object_counts
        self._samples = [source[index] for index in range(len(source))]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


if __name__ == "__main__":
    sys.exit(main())
