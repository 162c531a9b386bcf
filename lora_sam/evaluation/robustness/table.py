"""The tables of `robustness.json` for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from lora_sam.core.console import text_table
from lora_sam.core.groups import counted_images, independent
from lora_sam.evaluation.classes import few_line
from lora_sam.evaluation.comparison import FEW_IMAGES, PairedMeans
from lora_sam.evaluation.robustness.findings import Findings
from lora_sam.evaluation.robustness.measure import OWN

if TYPE_CHECKING:
    from rich.table import Table

_MOST_CLASSES = 20

Line = tuple[str, str, str, str]


def render_tables(findings: Findings, name: str) -> list[Table]:
    """IoU by prompt, the other figures, and classes, each fit for 100 columns; those without a line are left out."""
    made = []
    groups = (
        (f"robustness of {name}, split {findings.split}: IoU", list(_prompted(findings))),
        ("other figures", list(_other(findings))),
        ("classes: IoU", list(_classes(findings))),
    )
    for title, lines in groups:
        if not lines:
            continue
        made.append(text_table(("", "base", "tuned", "difference [95 %]"), lines, title=title))
    return made


def sentences(findings: Findings) -> list[str]:
    """What is to be said below the tables."""
    content = {"images": findings.images, "groups": findings.groups and asdict(findings.groups)}
    few = "; too few images to trust intervals" if independent(content) < FEW_IMAGES else ""
    lines = [f"{counted_images(content)}, {findings.objects:,} objects, the same prompts for both{few}"]
    if findings.classes is not None and (of_classes := few_line(asdict(findings.classes), _MOST_CLASSES)) is not None:
        lines.append(of_classes)
    if findings.forgetting is not None:
        lines.append(findings.forgetting.sentence)
    return lines


def _prompted(findings: Findings) -> Iterator[Line]:
    axes = (*(findings.jitter or ()), *(findings.points or ()))
    placed = {row.prompt for row in axes}
    # what lies on an axis is shown there, in its order
    for row in (*(row for row in findings.prompts or () if row.prompt not in placed), *axes):
        yield _paired("the run's own prompts" if row.prompt == OWN else row.prompt, row.iou, 3)


def _other(findings: Findings) -> Iterator[Line]:
    if findings.clicks is not None:
        for one in findings.clicks.levels:
            yield _paired(f"NoC@{100 * one.level:.0f} (clicks)", one.clicks, 2)
            name = f"never reach {one.level:g} in {findings.clicks.most} clicks"
            yield name, f"{one.never['base']:.1%}", f"{one.never['tuned']:.1%}", ""
    if findings.outlines is not None:
        yield _paired("Hausdorff 95 (px)", findings.outlines, 2)
    if findings.calibration is not None:
        base, tuned = findings.calibration["base"], findings.calibration["tuned"]
        yield _plain("calibration error of predicted IoU", base.error, tuned.error)
        yield _plain("predicted minus actual IoU", base.bias, tuned.bias)
    if findings.detection is not None:
        for size, found in findings.detection["base"].items():
            other = findings.detection["tuned"][size]
            for figure, before, after in (
                ("mAP", found.precision, other.precision),
                ("mAR", found.recall, other.recall),
            ):
                if before is not None and after is not None:  # there are objects of this size
                    yield _plain(f"COCO {figure}, {size}", before, after)


def _classes(findings: Findings) -> Iterator[Line]:
    if findings.classes is None:
        return
    for one in findings.classes.classes[:_MOST_CLASSES]:
        yield _paired(f"{one.name} ({one.objects:,})", one.iou, 3)
    more = len(findings.classes.classes) - _MOST_CLASSES
    if more > 0:
        yield (f"and {more:,} more", "", "", "")
    if len(findings.classes.classes) == 1:
        return  # the rest says the same again
    yield _plain("mean of classes", *(findings.classes.mean_iou[name] for name in ("base", "tuned")))
    yield _plain("pooled Dice of all classes", *(findings.classes.pooled_dice[name] for name in ("base", "tuned")))


def _paired(name: str, values: PairedMeans, digits: int) -> Line:
    low, high = values.delta_interval
    return (
        name,
        f"{values.base:.{digits}f}",
        f"{values.tuned:.{digits}f}",
        f"{values.delta:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]",
    )


def _plain(name: str, base: float, tuned: float) -> Line:
    return name, f"{base:.3f}", f"{tuned:.3f}", f"{tuned - base:+.3f}"
