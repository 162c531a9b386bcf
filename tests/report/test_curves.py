"""Curves from a log, axes, and charts of few, many and broken points."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_sam.report.charts import HEIGHT, WIDTH, histogram, line_chart
from lora_sam.report.curves import MOST_POINTS, axis, loss_chart, points_of, smooth, thin, validation_chart

FINITE = st.floats(-1e12, 1e12)


def losses(*values: float | None) -> list[dict[str, Any]]:
    return [{"step": 10 * (n + 1), "loss": value} for n, value in enumerate(values)]


def inside(svg: Element) -> bool:
    """Whether every coordinate is a number within the canvas."""
    fromstring(tostring(svg))  # well-formed
    pairs = re.findall(r"(-?[\d.e+]+|nan|inf),(-?[\d.e+]+|nan|inf)", " ".join(p.get("d", "") for p in svg.iter("path")))
    places = [(float(x), float(y)) for x, y in pairs]
    places += [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in svg.iter("circle")]
    return all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


@given(st.lists(FINITE, max_size=20))
def test_axes_hold_their_values_and_have_few_ticks_with_different_labels(values: list[float]) -> None:
    made = axis(values)
    assert made.low < made.high
    slack = 1e-6 * (made.high - made.low)
    assert all(made.low - slack <= value <= made.high + slack for value in values)
    assert 2 <= len(made.ticks) <= 8
    assert all(0 <= made.share(tick) <= 1 for tick in made.ticks)
    if made.high - made.low > 1e-3 * max(abs(made.low), abs(made.high)):
        assert len({made.label(tick) for tick in made.ticks}) == len(made.ticks)


def test_ticks_are_round_and_keep_to_the_bounds() -> None:
    made = axis([0.644, 0.733])
    assert [made.label(tick) for tick in made.ticks] == ["0.64", "0.66", "0.68", "0.70", "0.72", "0.74"]
    assert axis([0.97, 1.0], highest=1.0).high == 1.0
    assert axis([1.0], lowest=0.0, highest=1.0).high == 1.0
    steps = axis([0, 1664], whole_ticks=False)
    assert (steps.low, steps.high) == (0, 1664)
    assert [steps.label(tick) for tick in steps.ticks] == ["0", "500", "1,000", "1,500"]


def test_points_of_a_log() -> None:
    log = [{"step": 1, "loss": 0.5}, {"step": 2, "validation_iou": 0.1}, {"step": 3, "loss": None}]
    points = points_of(log, "loss")
    assert points[0] == (1.0, 0.5)
    assert points[1][0] == 3.0
    assert math.isnan(points[1][1])


def test_smoothing_keeps_straight_lines_and_reduces_noise() -> None:
    line = [(float(x), 2.0 * x) for x in range(50)]
    assert smooth(line) == tuple(line)
    noisy = [(float(x), float(x % 2)) for x in range(100)]
    assert all(abs(y - 0.5) < 0.1 for _, y in smooth(noisy)[5:-5])
    broken = [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)]
    assert [y for _, y in smooth(broken)] == [1.0, 2.0, 3.0]


def test_thinning_keeps_the_mean_and_the_order() -> None:
    points = [(float(x), float(x % 7)) for x in range(10_000)]
    thinned = thin(points)
    assert len(thinned) <= MOST_POINTS
    assert [x for x, _ in thinned] == sorted(x for x, _ in thinned)
    assert sum(y for _, y in thinned) / len(thinned) == pytest.approx(3, abs=0.01)
    assert thin(points[:5]) == tuple(points[:5])


@pytest.mark.parametrize(
    "values",
    [
        (),
        (None,),
        (0.5,),
        (0.5, 0.5),
        (0.0, 0.0),
        (0.5, None, 0.4),
        (None, 0.3, None),
        (1e30, 1.0),
        (-3.0, -4.0),
        tuple(1 / (n + 1) for n in range(5000)),
    ],
)
def test_charts_stay_on_their_canvas(values: tuple[float | None, ...]) -> None:
    svg = line_chart(loss_chart(losses(*values)))
    assert inside(svg)
    drawn = any(value is not None for value in values)
    assert ("nothing was logged" in "".join(svg.itertext())) != drawn
    assert bool(list(svg.iter("path"))) == drawn
    assert len(tostring(svg)) < 40_000


def test_a_spike_does_not_flatten_the_loss() -> None:
    values = [1.0 + 0.01 * (n % 3) for n in range(200)]
    values[100] = 1000.0
    assert loss_chart(losses(*values)).y.high <= 200


def test_not_a_number_interrupts_a_line() -> None:
    chart = validation_chart([{"step": n, "validation_iou": 0.1 * n if n != 3 else None} for n in range(1, 6)])
    assert [len(piece) for piece in chart.curves[0].pieces] == [2, 2]
    assert chart.best == ((5.0, 0.5), "best 0.500 at step 5")
    assert chart.level is None


def test_base_and_best_are_marked() -> None:
    log = [{"step": step, "validation_iou": value} for step, value in ((0, 0.2), (5, 0.7), (10, 0.71))]
    chart = validation_chart(log, best_step=5)
    assert chart.best == ((5.0, 0.7), "best 0.700 at step 5")
    assert chart.level == (0.2, "base 0.200")
    assert validation_chart(log).best == ((10.0, 0.71), "best 0.710 at step 10")
    svg = line_chart(chart)
    assert inside(svg)
    assert {"best", "level"} <= {part.get("class") for part in svg.iter()}


def test_histogram_counts_both_ends() -> None:
    svg = histogram("t", "x", "objects", [("base", "base", [0.0, 0.0, 1.0]), ("tuned", "tuned", [])])
    assert inside(svg)
    path = next(svg.iter("path")).get("d") or ""
    heights = [float(pair.split(",")[1]) for pair in path[1:].split()]
    assert heights[1] == min(heights)
    assert heights[0] > heights[-2] > heights[1]
    assert (svg.get("aria-label") or "").endswith("base: median 0.00 of 3 objects")
