"""Charts of a sweep as inline SVG: IoU against cost, every job across its values, and two values against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from lora_sam.report.charts import HEIGHT, WIDTH, axes, canvas, label_left, x_of, y_of
from lora_sam.report.curves import axis
from lora_sam.report.markup import append, element
from lora_sam.runs.sweep_jobs import Group, Job
from lora_sam.runs.sweep_ranking import pareto

_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 50, 52, 42
_LONGEST = 12  # characters of a value in a chart
_CHARACTER = 6.5  # width of one, in units of the chart
_LEAST = 0.004  # of IoU that an axis covers: jobs closer than that differ by luck of the images


def cost_chart(jobs: Sequence[Job], cost: str, title: str, label: str, unit: float = 1.0) -> Element | None:
    """Validation IoU against what a job costs; those that no other beats in both are marked. None without figures.

    Args:
        jobs: Jobs that are done.
        cost: Field of a job.
        title: Heading.
        label: Of the axis.
        unit: What the axis counts in.
    """
    points = [
        (float(getattr(job, cost)) / unit, job.validation, job.job)
        for job in jobs
        if job.validation is not None and getattr(job, cost) is not None
    ]
    if not points:
        return None
    front = pareto(jobs, cost)
    best = [(x, y) for x, y, number in sorted(points) if number in front]
    described = "Best for their cost: " + "; ".join(f"{y:.3f} at {x:,.4g}" for x, y in best)
    svg = canvas(title, f"{described}.", [("not beaten at its cost", "tuned")])
    costs = [x for x, _, _ in points]
    # from nothing on, unless all cost about as much: they would be one column
    across = axis(costs if min(costs) > 0.5 * max(costs) else [0.0, *costs], lowest=0.0)
    up = axis([y for _, y, _ in points], lowest=0.0, highest=1.0, least=_LEAST)
    axes(svg, across, up, label)
    stairs: list[tuple[float, float]] = []
    for x, y in best:
        stairs += [(x, stairs[-1][1] if stairs else y), (x, y)]
    path = "M" + " ".join(f"{x_of(across, x):g},{y_of(up, y):g}" for x, y in [*stairs, (across.high, best[-1][1])])
    append(svg, element("path", d=path, class_="line tuned"))
    for x, y, number in points:
        kind = "tuned" if number in front else "raw"
        dot = element("circle", cx=x_of(across, x), cy=y_of(up, y), r=4, class_=f"dot {kind}")
        append(dot, element("title", f"job {number}: {y:.4f}"))
        append(svg, dot)
        if number in front:
            append(svg, element("text", str(number), x=x_of(across, x) - 5, y=y_of(up, y) - 6, class_="tick end halo"))
    return svg


def parallel_chart(jobs: Sequence[Job], names: Mapping[str, str], best: int | None = None) -> Element | None:
    """A line for each job across the values in which jobs differ, to its validation IoU. None without two jobs.

    Args:
        jobs: Jobs that are done, the best first.
        names: Short names of the keys, in their order.
        best: Number of the best job; None for the first.
    """
    if len(jobs) < 2 or not names:
        return None
    marked = next((job for job in jobs if job.job == best), jobs[0])
    described = ", ".join(f"{names[key]} {marked.values.get(key, '-')}" for key in names)
    svg = canvas("Every job", f"Best: {described}.", [("best", "tuned")])
    width = (WIDTH - _LEFT - _RIGHT) / len(names)
    bottom = HEIGHT - _BOTTOM
    most = max(3, min(_LONGEST, int((width - 8) / _CHARACTER)))  # between two axes; the first has the margin
    places: dict[str, dict[str, float]] = {}
    labels = []
    for number, (key, name) in enumerate(names.items()):
        x = _LEFT + number * width
        append(svg, element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="axis"))
        append(svg, element("text", shortened(name, most), x=x, y=bottom + 18, class_="tick middle"))
        values = ordered(job.values.get(key, "-") for job in jobs)
        gap = (bottom - _TOP) / max(1, len(values) - 1)
        places[key] = {value: bottom - place * gap for place, value in enumerate(values)}
        for value, y in places[key].items():
            labels.append(label_left(shortened(value, most), x - 5, y))
    up = axis([job.validation or 0.0 for job in jobs], lowest=0.0, highest=1.0, least=_LEAST)
    x = WIDTH - _RIGHT
    append(svg, element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="axis"))
    append(svg, element("text", "IoU", x=x, y=bottom + 18, class_="tick middle"))
    for tick in up.ticks:
        y = bottom - up.share(tick) * (bottom - _TOP)
        append(svg, element("text", up.label(tick), x=x + 5, y=round(y + 4, 1), class_="tick"))
    for job in [*(job for job in reversed(jobs) if job is not marked), marked]:
        steps = [(_LEFT + n * width, places[key][job.values.get(key, "-")]) for n, key in enumerate(names)]
        steps.append((x, bottom - up.share(job.validation or 0.0) * (bottom - _TOP)))
        path = "M" + " ".join(f"{a:.1f},{b:.1f}" for a, b in steps)
        line = element("path", d=path, class_="line tuned" if job is marked else "line raw")
        append(line, element("title", f"job {job.job}: {job.validation:.4f}"))
        append(svg, line)
    for label in labels:  # over the lines that end there
        label.set("class", "tick end halo")
    append(svg, *labels)
    return svg


def heat_map(jobs: Sequence[Job | Group], keys: tuple[str, str], names: Mapping[str, str]) -> Element | None:
    """The highest validation IoU for each pair of two values, in figures and shades. None unless both vary.

    Args:
        jobs: Jobs that are done, or configurations with the mean over their seeds.
        keys: Down, and across.
        names: Short names of the keys.
    """
    down, across = (ordered(job.values.get(key, "-") for job in jobs) for key in keys)
    if len(down) < 2 or len(across) < 2:
        return None
    cells: dict[tuple[str, str], float] = {}
    for job in jobs:
        place = (job.values.get(keys[0], "-"), job.values.get(keys[1], "-"))
        cells[place] = max(cells.get(place, 0.0), job.validation or 0.0)
    low, high = min(cells.values()), max(cells.values())
    best = max(cells, key=lambda place: cells[place])
    title = f"{names[keys[0]]} against {names[keys[1]]}"
    svg = canvas(title, f"Highest validation IoU {high:.3f} at {best[0]} and {best[1]}; lowest {low:.3f}.")
    width, height = (WIDTH - _LEFT - 12) / len(across), (HEIGHT - _TOP - _BOTTOM) / len(down)
    append(svg, element("text", f"validation IoU; down {names[keys[0]]}", x=_LEFT, y=40, class_="tick"))
    for row, one in enumerate(reversed(down)):
        y = _TOP + row * height
        append(svg, label_left(shortened(one), _LEFT - 6, y + height / 2))
        for column, two in enumerate(across):
            x = _LEFT + column * width
            value = cells.get((one, two))
            shade = 0.0 if value is None else 0.12 + 0.5 * (value - low) / ((high - low) or 1.0)
            size = {
                "x": round(x + 1, 1),
                "y": round(y + 1, 1),
                "width": round(width - 2, 1),
                "height": round(height - 2, 1),
            }
            append(svg, element("rect", class_="cell", fill_opacity=round(shade, 3), **size))
            text = "" if value is None else f"{value:.3f}"
            kind = "mark middle" if (one, two) == best else "tick middle"
            append(svg, element("text", text, x=round(x + width / 2, 1), y=round(y + height / 2 + 4, 1), class_=kind))
    for column, two in enumerate(across):
        x = round(_LEFT + (column + 0.5) * width, 1)
        append(svg, element("text", shortened(two), x=x, y=HEIGHT - _BOTTOM + 16, class_="tick middle"))
    append(svg, element("text", names[keys[1]], x=WIDTH / 2, y=HEIGHT - 5, class_="tick middle"))
    return svg


def shortened(value: str, most: int = _LONGEST) -> str:
    """A value with as many characters as a chart has room for; a number stays the number that it is."""
    if len(value) <= most:
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value[: most - 1] + "…"


def ordered(values: object) -> list[str]:
    """Different values, numbers by size and before words."""
    found = {str(value) for value in values}  # type: ignore[attr-defined]

    def place(value: str) -> tuple[bool, float, str]:
        try:
            return False, float(value), value
        except ValueError:
            return True, 0.0, value

    return sorted(found, key=place)
