"""The figures of a run beside those of its own prompts, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass

MOST_CLICKS = 20
"""Clicks after which an object is given up."""

CLICKS = (1, 3, 5, 8)
REACHED = (0.85, 0.9)


@dataclass(frozen=True)
class FurtherRow:
    """One figure beside those of a run's own prompts.

    Attributes:
        section: Its part of `evaluation.json`.
        name: Its key there.
        heading: What it is called in tables.
        explanation: What it says, for people who do not know it.
        form: How it is written.
    """

    section: str
    name: str
    heading: str
    explanation: str
    form: str = ".3f"


ROWS: tuple[FurtherRow, ...] = (
    FurtherRow(
        "automatic", "ap_50", "AP@0.5", "without prompts: right / (right + wrong + missed) masks, IoU from 0.5 on"
    ),
    FurtherRow("automatic", "ap_75", "AP@0.75", "the same, IoU from 0.75 on"),
    FurtherRow("automatic", "ap_50_95", "AP@0.5:0.95", "the mean over IoU 0.5, 0.55, ..., 0.95"),
    *(
        FurtherRow(
            "clicks", f"iou_{count}", f"IoU, {count} click{'s' * (count > 1)}", "each click where it is most wrong"
        )
        for count in CLICKS
    ),
    *(
        FurtherRow(
            "clicks",
            f"noc_{100 * level:.0f}",
            f"NoC@{100 * level:.0f}",
            f"clicks until the IoU is {level}, fewer are better; {MOST_CLICKS} stands for never too",
            ".2f",
        )
        for level in REACHED
    ),
)
"""All of them, in the order in which they are shown."""
