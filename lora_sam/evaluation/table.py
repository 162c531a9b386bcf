"""The figures of an `evaluation.json` as a table for the terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_sam.core.groups import counted_images
from lora_sam.core.wording import duration, in_bytes, plural, unturned
from lora_sam.evaluation.class_precision import HEADINGS as PRECISION_HEADINGS
from lora_sam.evaluation.class_precision import precision_rows, precision_title
from lora_sam.evaluation.classes import few_line
from lora_sam.evaluation.further_rows import ROWS as FURTHER
from lora_sam.evaluation.kinds import where_further
from lora_sam.evaluation.metrics import ROWS, SIZES
from lora_sam.evaluation.naming import naming_line
from lora_sam.evaluation.result import clicks_command, drawn_line, first_prompts
from lora_sam.evaluation.thinness import thinness_lines

if TYPE_CHECKING:
    from rich.table import Table

_MOST_CLASSES, _WIDEST_NAME = 20, 20


_MEAN, *_OTHERS = ROWS
_HEADINGS = (
    "",
    f"{_MEAN.heading} [95 % interval]",
    f"{_MEAN.heading} median",
    *(row.heading for row in _OTHERS),
    *(f"{_MEAN.heading} {size[0].upper()}" for size in SIZES),
)
_CLASS_HEADINGS = ("class", "objects", "IoU", "difference [95 % interval]", "Dice", "F1 (pooled)", "Dice (pooled)")

_FURTHER_HEADINGS = ("", "base", "tuned", "difference [95 % interval]")


def render_table(report: Mapping[str, Any]) -> Table:
    """The base, tuned and difference rows of a report as a table for the terminal (fits 80 columns).

    Below them, what was measured without prompts and with clicks, and where there are several classes a row for each.
    """
    from rich.table import Table
    from rich.text import Text

    overall = _table(f"base vs tuned, split {report['split']}", _HEADINGS, "\n".join(_caption(report)))
    for name, cells in _rows(report):
        overall.add_row(Text(unturned(name)), *(Text(cell.replace(" [", "\n[")) for cell in cells))
    parts: list[Table] = [overall]
    if further := list(_further_rows(report)):
        more = _table("without prompts, and with clicks", _FURTHER_HEADINGS, "\n".join(where_further(report)))
        for name, cells in further:
            more.add_row(Text(unturned(name)), *(Text(cell) for cell in cells))
        parts.append(more)
    if "classes" in report:
        parts.append(_class_table(report))
    parts += [_precision_table(kind, figures) for kind, figures in report.get("class_precision", {}).items()]
    if len(parts) == 1:
        return overall
    together = Table.grid()
    for number, part in enumerate(parts):
        if number:
            together.add_row(Text())
        together.add_row(part)
    return together


def _class_table(report: Mapping[str, Any]) -> Table:
    from rich.text import Text

    few = few_line(report["classes"], _MOST_CLASSES)
    classes = _table("classes: base -> tuned", _CLASS_HEADINGS, None if few is None else unturned(few))
    for name, cells in _class_rows(report["classes"]):
        classes.add_row(
            Text(unturned(name)), *(Text(cell.replace(" [", "\n[").replace(" -> ", "\n-> ")) for cell in cells)
        )
    return classes


def _precision_table(kind: str, figures: Mapping[str, Any]) -> Table:
    from rich.text import Text

    table = _table(precision_title(kind), PRECISION_HEADINGS, None)
    for name, cells in precision_rows(figures, _MOST_CLASSES):
        table.add_row(Text(unturned(name)), *(Text(cell) for cell in cells))
    return table


def markdown_table(report: Mapping[str, Any]) -> str:
    """The same tables as GitHub-flavoured Markdown, with the caption below; ends with a newline."""
    lines = _markdown(_HEADINGS, _rows(report))
    lines += ["", " ".join(_caption(report)).replace("|", r"\|")]
    if further := list(_further_rows(report)):
        lines += ["", *_markdown(_FURTHER_HEADINGS, further), "", " ".join(where_further(report))]
    if "classes" in report:
        lines += ["", *_markdown(_CLASS_HEADINGS, _class_rows(report["classes"]))]
        if (few := few_line(report["classes"], _MOST_CLASSES)) is not None:
            lines += ["", few.replace("|", r"\|")]
    for kind, figures in report.get("class_precision", {}).items():
        rows = precision_rows(figures, _MOST_CLASSES)
        lines += ["", f"{precision_title(kind)}:", "", *_markdown(PRECISION_HEADINGS, rows)]
    return "\n".join(lines) + "\n"


def _table(title: str, headings: Sequence[str], caption: str | None) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title),
        caption=None if caption is None else Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0),
    )
    for place, heading in enumerate(headings):
        # two lines, the second for the last word or the interval
        first, _, rest = heading.partition(" ")
        if place:
            table.add_column(Text(f"{first}\n{rest}"), justify="right", no_wrap=True)
        else:
            table.add_column(Text(f"{first}\n{rest}"), no_wrap=not first, max_width=_WIDEST_NAME, overflow="fold")
    return table


def _markdown(headings: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    return lines + [
        "| " + " | ".join((" ".join(name.split()).replace("|", r"\|"), *cells)) + " |" for name, cells in rows
    ]


def _rows(report: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    rows = []
    for key, name, form in (("base", "base", ".3f"), ("tuned", "tuned", ".3f"), ("delta", "difference", "+.3f")):
        part = report[key]
        low, high = part["iou_interval"]
        sizes = [part["by_size"][size]["iou"] for size in SIZES]
        cells = (
            f"{part['iou']:{form}} [{low:{form}}, {high:{form}}]",
            *(f"{part[figure]:{form}}" for figure in ("iou_median", *(row.name for row in _OTHERS))),
            *("-" if iou is None else f"{iou:{form}}" for iou in sizes),
        )
        rows.append((name, cells))
    return rows


def _further_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for row in FURTHER:
        if row.section in report:
            values = report[row.section][row.name]
            low, high = values["delta_interval"]
            base, tuned = (f"{values[key]:{row.form}}" for key in ("base", "tuned"))
            yield row.heading, (base, tuned, f"{values['delta']:+{row.form}} [{low:+{row.form}}, {high:+{row.form}}]")


def _class_rows(classes: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for one in classes["classes"][:_MOST_CLASSES]:
        low, high = one["iou"]["delta_interval"]
        yield (
            one["name"],
            (
                f"{one['objects']:,}",
                _pair(one["iou"]),
                f"{one['iou']['delta']:+.3f} [{low:+.3f}, {high:+.3f}]",
                *(_pair(one[figure]) for figure in ("dice", "f1", "pooled_dice")),
            ),
        )
    more = len(classes["classes"]) - _MOST_CLASSES
    if more > 0:
        yield f"and {more:,} more in evaluation.json", ("",) * (len(_CLASS_HEADINGS) - 1)
    iou, *others = (_pair(classes[f"mean_{figure}"]) for figure in ("iou", "dice", "f1"))
    rise = classes["mean_iou"]["tuned"] - classes["mean_iou"]["base"]
    yield "mean of classes", ("", iou, f"{rise:+.3f}", *others, "")
    yield "all in one count", ("", "", "", "", "", _pair(classes["pooled_dice"]))


def _pair(values: Mapping[str, float]) -> str:
    return f"{values['base']:.3f} -> {values['tuned']:.3f}"


def _caption(report: Mapping[str, Any]) -> list[str]:
    share = report["trainable_parameters"] / max(1, report["total_parameters"])
    sizes = [report["base"]["by_size"][size]["objects"] for size in SIZES]
    memory = report["peak_memory_bytes"]
    first, drawn = first_prompts(report), drawn_line(report)
    return [
        f"{counted_images(report)}, {plural(report['objects'], 'object')} "
        f"(S {sizes[0]:,}, M {sizes[1]:,}, L {sizes[2]:,}; limits 32² and 96² px);",
        f"{report['trainable_parameters']:,} trainable parameters ({share:.2%}), "
        f"adapter {in_bytes(report['adapter_bytes'])};",
        f"training {duration(report['seconds'])}, peak memory {'unknown' if memory is None else in_bytes(memory)}.",
        *([] if drawn is None else [drawn]),
        *([] if first is None else [first, f"What clicks add: {clicks_command()}"]),
        *([naming_line(report["class_head"])] if "class_head" in report else []),
        *(thinness_lines(report["thin"]) if "thin" in report else []),
    ]
