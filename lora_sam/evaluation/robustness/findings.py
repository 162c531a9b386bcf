"""`robustness.json`: what follows from what was measured, section by section."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.core.files import FIGURES, write_text
from lora_sam.core.groups import Groups
from lora_sam.core.version import __version__
from lora_sam.evaluation import classes
from lora_sam.evaluation.average_precision import PrecisionAndRecall, precision_and_recall
from lora_sam.evaluation.calibration import Reliability, reliability_of
from lora_sam.evaluation.classes import Classes
from lora_sam.evaluation.clicks import clicks_to_reach
from lora_sam.evaluation.comparison import PairedMeans, compare_means
from lora_sam.evaluation.metrics import ImageScores
from lora_sam.evaluation.robustness.measure import OWN, Measured

SCHEMA_VERSION = 1
LEVELS = (0.85, 0.9)


@dataclass(frozen=True)
class Row:
    """Mean IoU per object with one kind of prompt.

    Attributes:
        prompt: What was prompted, in words.
        value: What the kind of prompt is on the axis of its section: share of jitter, number of points; None where it
            is none.
        iou: Base and tuned.
    """

    prompt: str
    value: float | None
    iou: PairedMeans


@dataclass(frozen=True)
class Clicks:
    """Clicks until the IoU of an object reaches a level, at most `most`, which counts where it never does.

    Attributes:
        level: The IoU.
        clicks: NoC, mean over objects.
        never: Share of the objects that never reach it, by `base` and `tuned`.
    """

    level: float
    clicks: PairedMeans
    never: Mapping[str, float]


@dataclass(frozen=True)
class Clicking:
    """Simulated clicking.

    Attributes:
        most: Clicks after which an object is given up.
        levels: NoC of each level.
        mean_iou: Mean IoU after each click by `base` and `tuned`; an object that reached the last level keeps its IoU.
    """

    most: int
    levels: tuple[Clicks, ...]
    mean_iou: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Forgetting:
    """Base and tuned on images that have nothing to do with those of the run.

    Attributes:
        images: Number of images.
        objects: Number of their objects.
        iou: Mean IoU per object.
        forgot: Whether the tuned model is measurably worse.
        sentence: The same in words.
    """

    images: int
    objects: int
    iou: PairedMeans
    forgot: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Content of `robustness.json`; a section that was not asked for is None.

    Attributes:
        schema_version: Version of this layout.
        lora_sam: Version of the package that wrote it.
        made_from: SHA-256 of what was measured: adapter, base, data.
        settings: Options that were asked for.
        split: Split that was measured.
        images: Number of its images that were measured.
        objects: Number of their objects.
        groups: What they are parts of; None where each is a whole.
        seed: Seed of prompts, draws and bootstrap.
        prompt: Settings that made the run's own prompts.
        jitter: IoU by how far the sides of tight boxes were moved.
        points: IoU by number of points.
        prompts: IoU by kind of prompt.
        clicks: Simulated clicking.
        calibration: How far predicted IoU can be trusted with the run's own prompts, by `base` and `tuned`.
        classes: IoU, Dice and F1 by class with the run's own prompts; None too where the data has no classes.
        outlines: Hausdorff 95 in pixels of the original image with the run's own prompts.
        detection: COCO's figures by size with the run's own prompts, by `base` and `tuned`.
        forgetting: What the tuned model lost elsewhere.
    """

    schema_version: int = SCHEMA_VERSION
    lora_sam: str = __version__
    made_from: Mapping[str, str]
    settings: Mapping[str, Any]
    split: str
    images: int
    objects: int
    seed: int
    prompt: Mapping[str, Any]
    groups: Groups | None = None
    jitter: tuple[Row, ...] | None = None
    points: tuple[Row, ...] | None = None
    prompts: tuple[Row, ...] | None = None
    clicks: Clicking | None = None
    calibration: Mapping[str, Reliability] | None = None
    classes: Classes | None = None
    outlines: PairedMeans | None = None
    detection: Mapping[str, Mapping[str, PrecisionAndRecall]] | None = None
    forgetting: Forgetting | None = None


def write_findings(path: Path, findings: Findings) -> None:
    """Write `robustness.json` atomically. Raises `TrainingError` if the directory cannot be written."""
    write_text(path, json.dumps(dataclasses.asdict(findings), indent=2, allow_nan=False) + "\n", FIGURES)


def paired_iou(scores: Mapping[str, Sequence[ImageScores]], seed: int) -> PairedMeans:
    """Mean IoU per object of `base` and `tuned`, with the intervals of `lora_sam.evaluation.metrics.compare`."""
    base, tuned = ([image.iou for image in scores[name]] for name in ("base", "tuned"))
    return compare_means(base, tuned, seed, [image.group for image in scores["base"]])


def clicking(measured: Measured, seed: int) -> Clicking:
    """NoC of both predictors."""
    histories = {name: measured.kept[name].clicked for name in ("base", "tuned")}
    stacked = {name: np.concatenate(images) for name, images in histories.items()}
    levels = tuple(
        Clicks(
            level,
            compare_means(
                [clicks_to_reach(iou, level) * 1.0 for iou in histories["base"]],
                [clicks_to_reach(iou, level) * 1.0 for iou in histories["tuned"]],
                seed,
                measured.groups,
            ),
            {name: float((iou.max(axis=1) < level).mean()) for name, iou in stacked.items()},
        )
        for level in LEVELS
    )
    return Clicking(
        most=stacked["base"].shape[1],
        levels=levels,
        mean_iou={name: tuple(iou.mean(axis=0).tolist()) for name, iou in stacked.items()},
    )


def calibration(measured: Measured) -> dict[str, Reliability]:
    """Predicted against actual IoU of both predictors with the run's own prompts."""
    return {
        name: reliability_of(
            np.concatenate(kept.predicted_iou), np.concatenate([image.iou for image in measured.scores[OWN][name]])
        )
        for name, kept in measured.kept.items()
    }


def by_class(measured: Measured, seed: int) -> Classes | None:
    """Figures of every class with the run's own prompts; None where the data has no classes."""
    pixels = {name: kept.labels for name, kept in measured.kept.items()}
    return classes.by_class(measured.scores[OWN], measured.classes, pixels, seed)


def outlines(measured: Measured, seed: int) -> PairedMeans:
    """Hausdorff 95 of both predictors with the run's own prompts."""
    base, tuned = (measured.kept[name].hausdorff for name in ("base", "tuned"))
    return compare_means(base, tuned, seed, measured.groups)


def detection(measured: Measured) -> dict[str, Mapping[str, PrecisionAndRecall]]:
    """COCO's figures of both predictors with the run's own prompts."""
    return {name: precision_and_recall(kept.detections) for name, kept in measured.kept.items()}


def forgetting(scores: Mapping[str, Sequence[ImageScores]], seed: int) -> Forgetting:
    """Whether `tuned` is worse than `base` on generic images: where the interval of the difference lies below 0."""
    iou = paired_iou(scores, seed)
    images, objects = len(scores["base"]), sum(len(image.object_ids) for image in scores["base"])
    low, high = iou.delta_interval
    if high < 0:
        claim = f"forgot: IoU on generic shapes fell from {iou.base:.3f} to {iou.tuned:.3f}"
    elif low > 0:
        claim = f"gained: IoU on generic shapes rose from {iou.base:.3f} to {iou.tuned:.3f}"
    else:
        claim = f"kept: no measurable difference on generic shapes, IoU {iou.base:.3f} to {iou.tuned:.3f}"
    sentence = (
        f"{claim} (difference {iou.delta:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}; {objects:,} drawn objects in "
        f"{images:,} images)"
    )
    return Forgetting(images, objects, iou, high < 0, sentence)
