"""Charts as inline SVG; colours come from the page's style sheet, so they follow light and dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from lora_sam.report.curves import Axis, Chart, Curve, Point, axis
from lora_sam.report.markup import append, element

WIDTH, HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 52, 42
_BINS = 20
_HALF = 3.4  # half the width of a character of a label, at most
# beyond this, dots would merge into a band
_MOST_DOTS = 40


def line_chart(chart: Chart) -> Element:
    """`chart` with axes, ticks, legend and title; says so where nothing was logged."""
    svg = canvas(chart.title, _described(chart), [(curve.name, curve.kind) for curve in chart.curves])
    if chart.empty:
        append(svg, element("text", "nothing was logged", x=WIDTH / 2, y=HEIGHT / 2, class_="tick middle"))
        return svg
    axes(svg, chart.x, chart.y, chart.x_label)
    if chart.level is not None:
        y = y_of(chart.y, chart.level[0])
        append(
            svg,
            element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="level"),
            element("text", chart.level[1], x=WIDTH - _RIGHT, y=y - 5, class_="mark end"),
        )
    for curve in chart.curves:
        _draw(svg, curve, chart)
    if chart.best is not None:
        (step, value), text = chart.best
        append(
            svg,
            element("circle", cx=x_of(chart.x, step), cy=y_of(chart.y, value), r=5.5, class_="best"),
            element("circle", cx=WIDTH / 2, cy=36, r=5.5, class_="best"),
            element("text", text, x=WIDTH / 2 + 12, y=40, class_="tick"),
        )
    return svg


def histogram(
    title: str,
    x_label: str,
    counted: str,
    samples: Sequence[tuple[str, str, Sequence[float]]],
    edges: Sequence[float] | None = None,
) -> Element:
    """How many values lie in each bin.

    Args:
        title: Heading.
        x_label: What the values are.
        counted: What each value belongs to, in the plural.
        samples: (name, kind, values) of each distribution.
        edges: Limits of the bins, rising; None for 20 bins from 0 to 1. Values beyond them count in the outer bins.
    """
    if edges is None:
        edges = np.linspace(0.0, 1.0, _BINS + 1).tolist()
        across = Axis(0.0, 1.0, tuple(round(0.2 * k, 1) for k in range(6)))
    else:
        across = axis(edges, whole_ticks=False)
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for _, _, values in samples]
    described = "; ".join(
        f"{name}: median {np.median(values):.2f} of {len(values)} {counted}"
        for name, _, values in samples
        if len(values)
    )
    svg = canvas(title, described, [(name, kind) for name, kind, _ in samples])
    up = axis([0.0, *(float(count.max()) for count in counts)])
    axes(svg, across, up, x_label)
    for (_, kind, _), count in zip(samples, counts, strict=True):
        corners = [(float(edges[0]), 0.0)]
        for low, high, height in zip(edges[:-1], edges[1:], count, strict=True):
            corners += [(float(low), float(height)), (float(high), float(height))]
        path = _path([*corners, (float(edges[-1]), 0.0)], across, up)
        append(svg, element("path", d=path, class_=f"area {kind}"))
    return svg


def canvas(title: str, described: str, legend: Sequence[tuple[str, str]] = ()) -> Element:
    """An empty chart with its title, a sentence for those who cannot see it, and (name, kind) of its lines."""
    svg = element(
        "svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="chart", aria_label=f"{title}. {described}"
    )
    append(svg, element("text", title, x=_LEFT, y=18, class_="title"))
    x = float(_LEFT)
    for name, kind in legend:
        append(
            svg,
            element("line", x1=x, x2=x + 18, y1=36, y2=36, class_=f"line {kind}"),
            element("text", name, x=x + 24, y=40, class_="tick"),
        )
        x += 24 + 7 * len(name) + 16
    return svg


def axes(svg: Element, across: Axis, up: Axis, x_label: str) -> None:
    """Draw both axes with their ticks and the grid."""
    for tick in up.ticks:
        y = y_of(up, tick)
        append(
            svg,
            element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"),
            label_left(up.label(tick), _LEFT - 7, y),
        )
    for tick in across.ticks:
        x, label = x_of(across, tick), across.label(tick)
        inside = min(x, round(WIDTH - _HALF * len(label), 1))
        append(
            svg,
            element("line", x1=x, x2=x, y1=HEIGHT - _BOTTOM, y2=HEIGHT - _BOTTOM + 4, class_="axis"),
            element("text", label, x=inside, y=HEIGHT - _BOTTOM + 18, class_="tick middle"),
        )
    bottom = HEIGHT - _BOTTOM
    append(
        svg,
        element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis"),
        element("text", x_label, x=(_LEFT + WIDTH - _RIGHT) / 2, y=HEIGHT - 5, class_="tick middle"),
    )


def label_left(label: str, x: float, y: float) -> Element:
    """`label` that ends at `x` beside the height `y`; a long one is drawn narrower, else its first digits were cut."""
    narrow: dict[str, str | float] = {}
    if 2 * _HALF * len(label) > x:
        narrow = {"textLength": x - 2, "lengthAdjust": "spacingAndGlyphs"}
    return element("text", label, x=x, y=round(y + 4, 1), class_="tick end", **narrow)


def _draw(svg: Element, curve: Curve, chart: Chart) -> None:
    for piece in curve.pieces:
        append(svg, element("path", d=_path(piece, chart.x, chart.y), class_=f"line {curve.kind}"))
        if len(piece) == 1 or (curve.kind == "validation" and len(curve.points) <= _MOST_DOTS):
            for x, y in piece:
                append(
                    svg, element("circle", cx=x_of(chart.x, x), cy=y_of(chart.y, y), r=2.5, class_=f"dot {curve.kind}")
                )


def _described(chart: Chart) -> str:
    """One sentence for those who cannot see the chart."""
    if chart.empty:
        return "Nothing was logged."
    finite = [point for piece in chart.curves[-1].pieces for point in piece]
    (first_step, first), (last_step, last) = finite[0], finite[-1]
    at = f"at {chart.x_label}"
    text = f"From {first:.3f} {at} {first_step:,.10g} to {last:.3f} {at} {last_step:,.10g}"
    return f"{text}; {chart.best[1]}." if chart.best is not None else f"{text}."


def _path(points: Sequence[Point], across: Axis, up: Axis) -> str:
    return "M" + " ".join(f"{x_of(across, x):g},{y_of(up, y):g}" for x, y in points)


def x_of(across: Axis, value: float) -> float:
    """Where `value` lies across, in units of the chart."""
    return round(_LEFT + across.share(value) * (WIDTH - _RIGHT - _LEFT), 1)


def y_of(up: Axis, value: float) -> float:
    """Where `value` lies upwards, in units of the chart."""
    return round(HEIGHT - _BOTTOM - up.share(value) * (HEIGHT - _BOTTOM - _TOP), 1)
