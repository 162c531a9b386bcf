"""Curves of a run, read from its log, and the axes they are drawn on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

Point = tuple[float, float]

# more are not told apart in a chart of some hundred pixels
MOST_POINTS = 400
_TICKS = 5


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: What the legend calls it.
        kind: `raw`, `base`, `tuned` or `validation`: chooses the colour.
        points: (x, y) by rising x; a y of NaN interrupts the line.
    """

    name: str
    kind: str
    points: tuple[Point, ...]

    @property
    def pieces(self) -> list[list[Point]]:
        """The parts between interruptions, each at least one point."""
        return [list(group) for finite, group in groupby(self.points, lambda p: math.isfinite(p[1])) if finite]


@dataclass(frozen=True)
class Chart:
    """Curves that share two axes; `report.charts` draws it as SVG and `report.figure` as pixels.

    Attributes:
        title: Heading.
        x_label: What the horizontal axis shows.
        curves: Drawn in this order.
        x: Axis of the steps.
        y: Axis of the values.
        best: A point to mark, with its text in the legend.
        level: A height to mark across the chart, with its text.
    """

    title: str
    x_label: str
    curves: tuple[Curve, ...]
    x: Axis
    y: Axis
    best: tuple[Point, str] | None = None
    level: tuple[float, str] | None = None

    @property
    def empty(self) -> bool:
        """Whether no curve has a point."""
        return not any(curve.pieces for curve in self.curves)


@dataclass(frozen=True)
class Axis:
    """Limits and tick positions, from the lowest to the highest."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where `value` lies between the limits: 0 to 1, not beyond."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def label(self, tick: float) -> str:
        """A tick as text, with as many digits as tell it from the next."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        if max(abs(self.low), abs(self.high)) >= 1e6 or step < 1e-5:
            return f"{tick:.3g}"
        return f"{tick:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def axis(
    values: Iterable[float],
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
    whole_ticks: bool = True,
    least: float = 0.0,
) -> Axis:
    """An axis over all finite `values`, widened to `whole_ticks` but not beyond `lowest` and `highest`.

    It covers `least` at least: less than that would show noise, with more digits than there is room for.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
        room = 0.5 * abs(low) or 0.5
        low, high = max(lowest, low - room), min(highest, high + room)
    room = max(0.0, 0.5 * (least - (high - low)))
    low, high = max(lowest, low - room), min(highest, high + room)
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if whole_ticks:
        low, high = max(lowest, first * step), min(highest, last * step)
    ticks = (number * step for number in range(first, last + 1))
    return Axis(low, high, tuple(tick for tick in ticks if low - step * 1e-6 <= tick <= high + step * 1e-6))


def points_of(log: Sequence[Mapping[str, Any]], name: str) -> tuple[Point, ...]:
    """(step, value) of every line of the log that has `name`; NaN where it was not finite."""
    rows = [(float(row["step"]), row[name]) for row in log if name in row]
    return tuple((step, float(value) if _is_number(value) else math.nan) for step, value in rows)


def smooth(points: Sequence[Point]) -> tuple[Point, ...]:
    """Centred mean over about a tenth of the points, NaN left out; narrower towards both ends."""
    half = max(1, len(points) // 20)
    values = np.array([y for _, y in points])
    smoothed = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        near = values[index - reach : index + reach + 1]
        near = near[np.isfinite(near)]
        smoothed.append((x, float(near.mean()) if near.size else math.nan))
    return tuple(smoothed)


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most `most` points: means of neighbours where there are more; NaN only where all of them are."""
    group = -(-len(points) // most)
    if group <= 1:
        return tuple(points)
    thinned = []
    for start in range(0, len(points), group):
        near = [(x, y) for x, y in points[start : start + group] if math.isfinite(y)]
        if not near:
            thinned.append((points[start][0], math.nan))
            continue
        thinned.append((sum(x for x, _ in near) / len(near), sum(y for _, y in near) / len(near)))
    return tuple(thinned)


def loss_chart(log: Sequence[Mapping[str, Any]]) -> Chart:
    """Training loss over steps: as logged, and smoothed in front of it."""
    points = points_of(log, "loss")
    curves = (Curve("as logged", "raw", thin(points)), Curve("smoothed", "tuned", thin(smooth(points))))
    # the raw values may have spikes that would flatten everything else
    heights = sorted(y for _, y in points if math.isfinite(y))
    ceiling = max([*heights[: math.ceil(0.98 * len(heights))], *(y for _, y in curves[1].points)], default=1.0)
    values = [min(y, ceiling) for y in heights]
    return Chart("Training loss", "step", curves, _steps(log), axis([*values, *([0.0] if values else [])]))


def validation_chart(log: Sequence[Mapping[str, Any]], best_step: int | None = None, *, start: str = "base") -> Chart:
    """Validation IoU over steps, its best point marked, and the base as a level where step 0 was measured.

    Args:
        log: Lines of `metrics.jsonl`.
        best_step: Step whose weights were kept; None for the highest value.
        start: What the weights of step 0 are.
    """
    points = points_of(log, "validation_iou")
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    kept = [point for point in finite if point[0] == best_step] or sorted(finite, key=lambda p: (-p[1], p[0]))
    base = next((y for x, y in finite if x == 0), None)
    return Chart(
        "Validation IoU",
        "step",
        (Curve("validation IoU", "validation", thin(points)),),
        _steps(log),
        axis([y for _, y in finite], lowest=0.0, highest=1.0),
        best=(kept[0], f"best {kept[0][1]:.3f} at step {kept[0][0]:,.0f}") if kept else None,
        level=None if base is None else (base, f"{start} {base:.3f}"),
    )


def _steps(log: Sequence[Mapping[str, Any]]) -> Axis:
    return axis([0.0, *(float(row["step"]) for row in log)], lowest=0.0, whole_ticks=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
