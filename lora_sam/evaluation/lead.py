"""The figure that a run is judged by: AP without prompts where it was trained for that, else the IoU per object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_sam.core.groups import counted_images


@dataclass(frozen=True)
class Lead:
    """The figure that a run is judged by.

    Attributes:
        figure: What it is, at the beginning of a sentence.
        alone: Whether it is AP at IoU 0.5 without prompts; else it is the IoU per object with the run's own prompts.
        base: Its value for the base.
        tuned: Its value for the tuned model.
        delta: Tuned − base.
        interval: 95 % interval of `delta`.
    """

    figure: str
    alone: bool
    base: float
    tuned: float
    delta: float
    interval: tuple[float, float]

    @property
    def short(self) -> str:
        """What it is, where numbers follow without a sentence."""
        return f"{self.figure} without prompts" if self.alone else "IoU"

    @property
    def better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval[0] > 0

    @property
    def worse(self) -> bool:
        """Whether the interval lies below 0."""
        return self.interval[1] < 0

    @property
    def numbers(self) -> str:
        """All of it."""
        low, high = self.interval
        return (
            f"{self.figure} {self.base:.3f} -> {self.tuned:.3f}, difference {self.delta:+.3f} "
            f"(95 % interval {low:+.3f} to {high:+.3f})"
        )


def lead(report: Mapping[str, Any]) -> Lead:
    """What a run is judged by: AP without prompts where it was trained for that and not for boxes, else the IoU."""
    if not found_alone(report):
        return by_iou(report)
    (kind,) = (kind for kind in report["kinds"] if kind["name"] == "everything")
    found = kind["compared"]
    low, high = found["delta_interval"]
    return Lead(kind["figure"], True, found["base"], found["tuned"], found["delta"], (low, high))


def measured_on(report: Mapping[str, Any]) -> tuple[int, str]:
    """Objects that `lead` was measured on, and their images in words: masks without prompts are measured on some."""
    images = counted_images(report)
    if found_alone(report) and report["automatic"]["images"] < report["images"]:
        found = report["automatic"]
        return found["objects"], f"{found['images']:,} of {images}"
    return report["objects"], images


def found_alone(report: Mapping[str, Any]) -> bool:
    """Whether the run was trained to find objects without prompts, and not for boxes."""
    trained = {kind["name"]: kind["trained"] for kind in report.get("kinds", ())}
    return bool(trained.get("everything", False)) and not trained.get("box", True)


def by_iou(report: Mapping[str, Any]) -> Lead:
    """The IoU per object with the prompts of the run."""
    low, high = report["delta"]["iou_interval"]
    base, tuned = report["base"]["iou"], report["tuned"]["iou"]
    return Lead("IoU per object", False, base, tuned, report["delta"]["iou"], (low, high))
