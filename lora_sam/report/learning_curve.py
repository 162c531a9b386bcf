"""A learning curve as a table and as a page that makes no request to anywhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from lora_sam.core.wording import plural
from lora_sam.report.charts import line_chart, x_of, y_of
from lora_sam.report.curves import Chart, Curve, axis
from lora_sam.report.markup import append, element, serialize
from lora_sam.runs.learning_curve import LearningCurve, Size

if TYPE_CHECKING:
    from rich.table import Table

PAGE = "learning_curve.html"
TITLE = "How many labelled images"
_HEADINGS = ("images", "draws", "base", "tuned", "95 %", "difference", "95 %")


def _cells(size: Size) -> list[str]:
    return [
        str(size.shots),
        str(size.draws),
        f"{size.base:.3f}",
        f"{size.tuned:.3f}",
        "{:.3f}–{:.3f}".format(*size.tuned_interval),
        f"{size.delta:+.3f}",
        "{:+.3f} to {:+.3f}".format(*size.delta_interval),
    ]


def table(curve: LearningCurve) -> Table:
    """A row for each number of images; fits 80 columns."""
    from lora_sam.core.console import text_table

    return text_table(
        _HEADINGS,
        [_cells(size) for size in curve.sizes],
        title=TITLE,
        caption="IoU per object on the test split, which is the same for all; intervals over draws and test images, of "
        "one draw over test images alone",
        left=(),
    )


def page(curve: LearningCurve, commands: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        curve: The curve.
        commands: (purpose, command line) of what may follow.
    """
    main = element("main")
    head = element(
        "header",
        element("p", "lora_sam · what labelling brings", class_="kicker"),
        element("h1", TITLE, class_="even"),
        element("p", curve.verdict, class_="lead"),
    )
    append(main, head, _figures(curve), _chart(curve), _more(curve), _failed(curve), _next(commands))
    template = Template(files("lora_sam.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(f"{TITLE} · lora_sam"), main=serialize(main))


def _figures(curve: LearningCurve) -> Element:
    names = list(dict.fromkeys(name for size in curve.sizes for name in size.further))
    heading = element("tr", *(element("th", text) for text in (*_HEADINGS, *names)))
    rows = []
    for size in curve.sizes:
        further = ["{:.3f} → {:.3f}".format(*size.further[name]) if name in size.further else "–" for name in names]
        rows.append(_row(*_cells(size), *further))
    told = (
        "IoU per object on the test split, which is the same for all sizes, with the same prompts for base and tuned. "
        "Intervals: 95 %, over draws of training images and over test images; of one draw over test images alone."
    )
    grid = element("table", element("thead", heading), element("tbody", *rows))
    return element("section", element("h2", "Measured"), element("div", grid, class_="scroll"), element("p", told))


def _row(first: str, *others: str) -> Element:
    return element("tr", element("th", first, scope="row"), *(element("td", text) for text in others))


def _chart(curve: LearningCurve) -> Element | None:
    if not curve.sizes:
        return None
    base = tuple((float(size.shots), size.base) for size in curve.sizes)
    tuned = tuple((float(size.shots), size.tuned) for size in curve.sizes)
    curves = [Curve("base", "base", base), Curve("tuned", "validation", tuned)]
    across = [x for x, _ in base]
    if curve.power_law is not None and curve.fits and not curve.useless:
        level, slope, power = curve.power_law
        last = across[-1]
        steps = [across[0] + (1.5 * last - across[0]) * step / 60 for step in range(61)]
        curves.append(Curve("curve", "raw", tuple((x, level - slope * x**-power) for x in steps)))
        across = steps
    ends = [end for size in curve.sizes for end in size.tuned_interval]
    dots = [value for size in curve.sizes for value in size.each]
    heights = [y for one in curves for _, y in one.points] + ends + dots
    chart = Chart(
        "Test IoU against labelled images",
        "labelled images",
        tuple(curves),
        axis([0.0, *across], lowest=0.0),
        axis(heights),
    )
    svg = line_chart(chart)
    for size in curve.sizes:
        x = x_of(chart.x, size.shots)
        low, high = (y_of(chart.y, end) for end in size.tuned_interval)
        append(svg, element("line", x1=x, x2=x, y1=low, y2=high, class_="line tuned"))
        for value in size.each:
            append(svg, element("circle", cx=x, cy=y_of(chart.y, value), r=2, class_="dot tuned"))
    return element("section", element("h2", "The curve"), element("div", svg, class_="charts"))


def _more(curve: LearningCurve) -> Element | None:
    if not curve.more or curve.useless:
        return None
    rows = [
        _row(f"+{one.images}", f"{one.gain:+.3f}", "{:+.3f} to {:+.3f}".format(*one.interval)) for one in curve.more
    ]
    heading = element("tr", *(element("th", text) for text in ("more images", "IoU", "95 %")))
    told = (
        "By the inverse power law a − b·n^−c through the means; the interval is that of curves through resampled "
        "draws, of this law and of those other shapes (exponential, logarithm) that fit the means as well."
    )
    grid = element("table", element("thead", heading), element("tbody", *rows))
    return element("section", element("h2", "What more images would bring"), grid, element("p", told))


def _failed(curve: LearningCurve) -> Element | None:
    if not curve.failed:
        return None
    lines = [element("li", f"{name}: ", element("code", reason)) for name, reason in curve.failed.items()]
    return element("section", element("h2", f"{plural(len(lines), 'job')} failed"), element("ul", *lines))


def _next(commands: Sequence[tuple[str, str]]) -> Element:
    items = [element("li", element("p", purpose), element("pre", element("code", line))) for purpose, line in commands]
    return element("section", element("h2", "What next"), element("ul", *items, class_="steps"))
