"""The table of classes in `report.html`, for the evaluation and for the robustness of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from lora_sam.core.wording import plural
from lora_sam.evaluation.class_precision import HEADINGS, precision_rows, precision_title
from lora_sam.evaluation.classes import few_line
from lora_sam.evaluation.naming import naming_line
from lora_sam.report.markup import Child, element, figures_table

_MOST_CLASSES = 40
_FIGURES = {"iou": "IoU", "dice": "Dice", "f1": "F1, pooled", "pooled_dice": "Pooled Dice"}


def class_section(
    classes: Mapping[str, Any],
    head: Mapping[str, Any] | None = None,
    precision: Mapping[str, Mapping[str, Any]] | None = None,
) -> Element:
    """The section of a run's page about its classes.

    Args:
        classes: `classes` of its `evaluation.json`.
        head: `class_head` of it.
        precision: `class_precision` of it.
    """
    return element(
        "section",
        element("h2", "By class"),
        None if head is None else element("p", naming_line(head)),
        class_table(classes, "evaluation.json"),
        element("p", class_note(classes), class_="note"),
        *(part for kind, figures in (precision or {}).items() for part in _precision(kind, figures)),
    )


def _precision(kind: str, figures: Mapping[str, Any]) -> Iterator[Element]:
    yield element("h3", precision_title(kind))
    lines = [
        element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))
        for name, cells in precision_rows(figures, _MOST_CLASSES)
    ]
    yield figures_table(HEADINGS[1:], lines)


def class_note(classes: Mapping[str, Any]) -> str:
    """What the columns of `class_table` are, and which intervals in it nobody can trust."""
    few = few_line(classes, _MOST_CLASSES)
    return (
        "Base → tuned; below, the difference with its 95 % interval, from drawing whole images that have the class "
        "again and again. IoU and Dice are means over objects; F1 counts the pixels of all objects of the class "
        "together. For the pooled Dice, the objects of a class in an image are one mask, and the pixels of all "
        "images one count: the figure per label of OpenVINO Training Extensions (otx eval)."
        + ("" if few is None else f" {few}")
    )


def class_table(classes: Mapping[str, Any], file: str) -> Element:
    """A row for each class, the most frequent first, with base, tuned and difference in each cell.

    Args:
        classes: Content of `lora_sam.evaluation.classes.Classes`.
        file: Where those that are not shown can be found.
    """
    lines = [_line(one["name"], _counts(one), one) for one in classes["classes"][:_MOST_CLASSES]]
    more = len(classes["classes"]) - _MOST_CLASSES
    if more > 0:
        lines.append(_line(f"and {more:,} more", f"in {file}", {}))
    if len(classes["classes"]) == 1:  # what follows says the same again
        return figures_table(_FIGURES.values(), lines)
    means = {figure: classes[f"mean_{figure}"] for figure in ("iou", "dice", "f1")}
    lines.append(_line("mean of classes", "each counts the same", means))
    lines.append(_line("all classes", "their pixels in one count", {"pooled_dice": classes["pooled_dice"]}))
    return figures_table(_FIGURES.values(), lines)


def _counts(one: Mapping[str, Any]) -> str:
    return f"{plural(one['objects'], 'object')} in {plural(one['images'], 'image')}"


def _line(name: str, meaning: str, figures: Mapping[str, Mapping[str, Any]]) -> Element:
    cells = (element("td", *_cell(figures.get(figure))) for figure in _FIGURES)
    return element("tr", element("th", name, element("small", meaning), scope="row"), *cells)


def _cell(values: Mapping[str, Any] | None) -> tuple[Child, ...]:
    if values is None:
        return ()
    difference = f"{values['tuned'] - values['base']:+.3f}"
    if "delta_interval" in values:
        low, high = values["delta_interval"]
        difference += f" [{low:+.3f}, {high:+.3f}]"
    return f"{values['base']:.3f} → {values['tuned']:.3f}", element("small", difference)
