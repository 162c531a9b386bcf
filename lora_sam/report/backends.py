"""The section of `report.html` about back ends, put into the page of a run that has long finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Comment, Element

from lora_sam.core.files import write_text
from lora_sam.core.wording import plural
from lora_sam.evaluation.backends.result import MEASURED_METRICS
from lora_sam.evaluation.metrics import ROWS
from lora_sam.report.markup import element, figures_table, serialize

# Comments, which no text and no attribute of a page can hold: it is built as a tree, so "<" and ">" are escaped.
_BEGIN, _END = "back-ends", "/back-ends"

_RUNTIMES = {"torch": "torch", "openvino": "OpenVINO"}
_QUALITY = {
    **{row.name: row.heading for row in ROWS if row.name in MEASURED_METRICS},
    "map": "COCO mAP",
    "iou_with_torch": "IoU with torch",
}
_COST = {
    "encoder_ms": "Encode, ms",
    "decoder_ms": "Decode, ms",
    "first_prompt_ms": "First prompt, ms",
    "next_prompt_ms": "Next prompt, ms",
    "bytes": "Files, MB",
    "peak_memory_bytes": "Memory, MB",
}


def place_of_backends() -> tuple[Element, Element]:
    """Where the section goes; invisible as long as there is none."""
    return cast("Element", Comment(_BEGIN)), cast("Element", Comment(_END))


def put_backends(path: Path, content: Mapping[str, Any], verdicts: Sequence[str]) -> bool:
    """Put the section into a page, or replace the one that is there.

    Args:
        path: `report.html` of a run.
        content: Content of its `backends.json`, checked.
        verdicts: A sentence for each deployed back end.

    Returns:
        Whether the page was written; a file that is no page of ours is left alone.

    Raises:
        TrainingError: it cannot be written.
    """
    return put_section(path, (_BEGIN, _END), backends_section(content, verdicts))


def put_section(path: Path, place: tuple[str, str], section: Element) -> bool:
    """Put a section into a page between two comments, replacing what is there; at the end where there are none.

    Args:
        path: `report.html` of a run.
        place: Content of the two comments.
        section: The section.

    Returns:
        Whether the page was written; a file that is no page of ours is left alone.

    Raises:
        TrainingError: it cannot be written.
    """
    page = path.read_text(encoding="utf-8", errors="replace")
    begin, end = (f"<!--{name}-->" for name in place)
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):  # a page without the place for it, or with half of it
        before, closed, rest = page.replace(begin, "").replace(end, "").rpartition("</main>")
        if not closed:
            return False
        after = closed + rest
    write_text(path, "".join((before, begin, serialize(section), end, after)))
    return True


def backends_section(content: Mapping[str, Any], verdicts: Sequence[str]) -> Element:
    """The section: verdicts, what the masks are worth, and what they cost.

    Args:
        content: Content of `backends.json`, checked.
        verdicts: A sentence for each deployed back end.
    """
    return element(
        "section",
        element("h2", "Back ends"),
        element("p", _how(content)),
        element("ul", *(element("li", verdict) for verdict in verdicts)) if verdicts else None,
        _table(content["backends"], _QUALITY, _quality_cell),
        element(
            "p",
            "In brackets: 95 % interval. IoU with torch compares a mask with that of the tuned model in torch, not "
            "with the truth: 1 is the same mask. COCO mAP ranks the masks of all images by the IoU that the model "
            "predicts.",
            class_="note",
        ),
        _table(content["backends"], _COST, _cost_cell),
        element("p", _conditions(content), class_="note"),
    )


def _how(content: Mapping[str, Any]) -> str:
    text = (
        "The model before training (base), after it (tuned), and what was made of that to be deployed; all on the "
        f"same {plural(content['images'], content['split'] + ' image')} with {plural(content['objects'], 'object')}, "
        "and with the same prompts."
    )
    threshold = content["mask_threshold"]
    tuned = content["tuned_threshold"]
    if tuned is not None:
        text += (
            f" A pixel belongs to a mask above the logit {threshold:g}, the best for {content['tuned_by']} on "
            f"{tuned['images']:,} validation images (IoU {tuned['iou_at_zero']:.3f} → {tuned['iou']:.3f})."
        )
    elif threshold:
        text += f" A pixel belongs to a mask above the logit {threshold:g}."
    if content["multimask"]:
        text += " Of three masks, the one with the highest predicted IoU was taken."
    return text


def _conditions(content: Mapping[str, Any]) -> str:
    height, width = content["image_size"]
    host = content["host"]
    threads = "" if host["threads"] is None else f", {host['threads']} threads"
    if host["torch_threads"] not in (None, host["threads"], host["cores"]):
        threads += f", torch on {host['torch_threads']}"
    versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items() if number is not None)
    return (
        f"Medians of {content['repeats']} turns, in brackets the range; prompts on an image of {width} x {height} px. "
        "Memory is the peak of a process of its own that loads the back end and segments one image. "
        f"{host['cpu']}, {host['cores']} cores{threads}; {versions}."
    )


def _table(rows: Mapping[str, Any], columns: Mapping[str, str], cell: Any) -> Element:
    lines = []
    for name, found in rows.items():
        what = f"{_RUNTIMES.get(found['runtime'], found['runtime'])}, {found['weights']}, runs in {found['execution']}"
        cells = (element("td", *cell(found, key)) for key in columns)
        lines.append(element("tr", element("th", name, element("small", what), scope="row"), *cells))
    return figures_table(columns.values(), lines)


def _quality_cell(found: Mapping[str, Any], key: str) -> tuple[str | Element | None, ...]:
    value = found[key]
    if value is None:
        return ("–",)
    if key == "iou_with_torch":
        return (f"{value:.4f}",)
    interval = found.get(f"{key}_interval")
    small = None if interval is None else element("small", f"[{interval[0]:.3f}, {interval[1]:.3f}]")
    return f"{value:.3f}", small


def _cost_cell(found: Mapping[str, Any], key: str) -> tuple[str | Element | None, ...]:
    value = found[key]
    if value is None:
        return ("–",)
    if key.endswith("_ms"):
        low, high = found[f"{key}_range"]
        return _digits(value), element("small", f"[{_digits(low)}, {_digits(high)}]")
    return (_digits(value / 1e6),)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
