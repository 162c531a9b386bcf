"""The section of `report.html` about robustness: base and tuned away from what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Comment, Element

from lora_sam.core.groups import counted_images, independent
from lora_sam.core.wording import plural
from lora_sam.evaluation.comparison import FEW_IMAGES
from lora_sam.report.backends import put_section
from lora_sam.report.charts import line_chart
from lora_sam.report.classes import class_note, class_table
from lora_sam.report.curves import Axis, Chart, Curve, Point, axis
from lora_sam.report.markup import Child, element, figures_table

_PLACE = ("robustness", "/robustness")
_SHARES = Axis(0.0, 1.0, tuple(round(0.2 * k, 1) for k in range(6)))


def place_of_robustness() -> tuple[Element, Element]:
    """Where the section goes; invisible as long as there is none."""
    return cast("Element", Comment(_PLACE[0])), cast("Element", Comment(_PLACE[1]))


def put_robustness(path: Path, content: Mapping[str, Any]) -> bool:
    """Put the section into a page, or replace the one that is there; as `lora_sam.report.backends.put_section`.

    Args:
        path: `report.html` of a run.
        content: Content of its `robustness.json`.
    """
    return put_section(path, _PLACE, robustness_section(content))


def robustness_section(content: Mapping[str, Any]) -> Element:
    """The section: what was forgotten, charts, and every figure.

    Args:
        content: Content of `robustness.json`.
    """
    forgetting, classes, charts = content["forgetting"], content["classes"], _charts(content)
    trust = " So few images make intervals too narrow." if independent(content) < FEW_IMAGES else ""
    few = f"{counted_images(content, content['split'])} with {plural(content['objects'], 'object')}"
    return element(
        "section",
        element("h2", "Robustness"),
        element("p", f"Base and tuned with the same prompts, of other kinds than those of the run too, on {few}."),
        None if forgetting is None else element("p", element("strong", _sentence(forgetting["sentence"]))),
        element("div", *charts, class_="charts") if charts else None,
        *_prompted(content),
        *_other(content),
        None if classes is None else element("h3", "By class"),
        None if classes is None else class_table(classes, "robustness.json"),
        None if classes is None else element("p", class_note(classes), class_="note"),
        element(
            "p",
            "In brackets: 95 % interval from drawing whole images again and again, the same for both; a difference "
            f"whose interval contains 0 may be luck.{trust}",
            class_="note",
        ),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _charts(content: Mapping[str, Any]) -> list[Element]:
    found = []
    for key, title, x_label, factor in (
        ("jitter", "IoU against box jitter", "jitter, % of the side", 100),
        ("points", "IoU against number of points", "points", 1),
    ):
        if content[key] is not None and len(content[key]) > 1:
            rows = sorted(content[key], key=lambda row: float(row["value"]))
            lines = {
                name: [(factor * float(row["value"]), float(row["iou"][name])) for row in rows]
                for name in ("base", "tuned")
            }
            found.append(_chart(title, x_label, lines))
    if content["clicks"] is not None:
        histories = content["clicks"]["mean_iou"]
        lines = {name: list(enumerate(histories[name], 1)) for name in ("base", "tuned")}
        found.append(_chart("IoU after simulated clicks", "clicks", lines))
    if content["calibration"] is not None:
        found.append(_reliability(content["calibration"]))
    return found


def _chart(title: str, x_label: str, lines: Mapping[str, Sequence[Point]]) -> Element:
    curves = tuple(Curve(name, name, tuple(points)) for name, points in lines.items())
    heights = [y for points in lines.values() for _, y in points]
    across = axis([x for points in lines.values() for x, _ in points], whole_ticks=False)
    return line_chart(Chart(title, x_label, curves, across, axis(heights, lowest=0.0, highest=1.0)))


def _reliability(calibration: Mapping[str, Any]) -> Element:
    """Mean actual against mean predicted IoU of each bin, and the diagonal on which both are the same."""
    curves = [Curve("perfect", "raw", ((0.0, 0.0), (1.0, 1.0)))]
    for name in ("base", "tuned"):
        bins = [one for one in calibration[name]["bins"] if one["objects"]]
        curves.append(Curve(name, name, tuple((one["predicted"], one["actual"]) for one in bins)))
    return line_chart(Chart("Actual against predicted IoU", "predicted IoU", tuple(curves), _SHARES, _SHARES))


def _prompted(content: Mapping[str, Any]) -> tuple[Element, ...]:
    kinds, *axes = (
        {row["prompt"]: row["iou"] for row in content[key] or ()} for key in ("prompts", "jitter", "points")
    )
    # what lies on an axis is shown there, in its order
    alone = {name: iou for name, iou in kinds.items() if not any(name in axis for axis in axes)}
    lines = [_row(_named(name), None, _pair(iou, ".3f")) for part in (alone, *axes) for name, iou in part.items()]
    return _table("IoU by prompt", lines)


def _named(prompt: str) -> str:
    return "the run's own prompts" if prompt == "own" else prompt


def _other(content: Mapping[str, Any]) -> tuple[Element, ...]:
    lines: list[Element] = []
    if content["clicks"] is not None:
        most = content["clicks"]["most"]
        for one in content["clicks"]["levels"]:
            never = " and ".join(f"{one['never'][name]:.0%} ({name})" for name in ("base", "tuned"))
            meaning = f"clicks until IoU {one['level']:g}, at most {most}; never: {never} of the objects"
            lines.append(_row(f"NoC@{100 * one['level']:.0f}", meaning, _pair(one["clicks"], ".2f")))
    if content["outlines"] is not None:
        meaning = "95 % of the outline is nearer than this, in pixels"
        lines.append(_row("Hausdorff 95", meaning, _pair(content["outlines"], ".2f")))
    if content["calibration"] is not None:
        errors = {name: found["error"] for name, found in content["calibration"].items()}
        lines.append(_row("Calibration error", "of the IoU that the model predicts; 0 is perfect", _plain(errors)))
    if content["detection"] is not None:
        for size in content["detection"]["base"]:
            for key, name in (("precision", "mAP"), ("recall", "mAR")):
                values = {which: found[size][key] for which, found in content["detection"].items()}
                if None not in values.values():  # there are objects of this size
                    lines.append(_row(f"COCO {name}, {size}", None, _plain(values)))
    return _table("Other figures", lines)


def _pair(values: Mapping[str, Any], form: str) -> tuple[str, ...]:
    """The three cells of means with intervals."""
    cells = []
    for name, sign in (("base", ""), ("tuned", ""), ("delta", "+")):
        low, high = values[f"{name}_interval"]
        cells.append(f"{values[name]:{sign}{form}} [{low:{sign}{form}}, {high:{sign}{form}}]")
    return tuple(cells)


def _plain(values: Mapping[str, float]) -> tuple[str, ...]:
    """The three cells of figures without intervals."""
    base, tuned = values["base"], values["tuned"]
    return f"{base:.3f}", f"{tuned:.3f}", f"{tuned - base:+.3f}"


def _row(name: str, meaning: str | None, cells: Sequence[str]) -> Element:
    columns: list[Child] = []
    for cell in cells:
        value, _, interval = cell.partition(" ")
        columns.append(element("td", value, element("small", interval) if interval else None))
    small = None if meaning is None else element("small", meaning)
    return element("tr", element("th", name, small, scope="row"), *columns)


def _table(title: str, lines: Sequence[Element]) -> tuple[Element, ...]:
    """Title and table; nothing without lines."""
    if not lines:
        return ()
    return element("h3", title), figures_table(("base", "tuned", "difference"), lines)
