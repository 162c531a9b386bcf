"""`report.html`: one page that explains a run, without a single request to anywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from lora_sam.core.files import write_text
from lora_sam.core.wording import duration, plural
from lora_sam.evaluation.lead import found_alone
from lora_sam.evaluation.metrics import PER_OBJECT_METRICS, ROWS, SIZES
from lora_sam.evaluation.result import (
    by_chance,
    clicks_command,
    first_prompts,
    held_out,
    kept_base,
    refuted,
    verdict,
)
from lora_sam.evaluation.scoring import Evaluation
from lora_sam.report.backends import place_of_backends
from lora_sam.report.before_after import before_and_after
from lora_sam.report.charts import histogram, line_chart
from lora_sam.report.classes import class_section
from lora_sam.report.curves import loss_chart, validation_chart
from lora_sam.report.further import further_section
from lora_sam.report.header import header
from lora_sam.report.markup import Child, append, element, figures_table, serialize
from lora_sam.report.next_steps import NextStep
from lora_sam.report.pictures import ReportPicture
from lora_sam.report.robustness import place_of_robustness
from lora_sam.runs.adapter_files import METHOD_NAMES, method_typed
from lora_sam.runs.trained_for import in_words, kinds_of

_METRICS = {row.name: (row.heading, row.explanation) for row in ROWS}
_MOST_NOTES = 30
_SIZES = {"small": "under 32² px", "medium": "32² to 96² px", "large": "96² px or more"}


def object_ious(evaluation: Evaluation) -> dict[str, list[float]]:
    """IoU of every object before and after, by `base` and `tuned`."""
    return {
        name: np.concatenate([image.iou for image in images]).tolist() for name, images in evaluation.scores.items()
    }


def write_report(path: Path, text: str) -> None:
    """Write the page atomically. Raises `TrainingError` if the disk is full."""
    write_text(path, text)


def report_html(
    *,
    report: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    pictures: Sequence[ReportPicture],
    next_steps: Sequence[NextStep],
    everything: Sequence[ReportPicture] = (),
    usage: str | None = None,
    object_iou: Mapping[str, Sequence[float]] | None = None,
    data: Mapping[str, tuple[int, int | None]] | None = None,
    notes: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> str:
    """The whole page. The same arguments give the same text.

    Args:
        report: Content of `evaluation.json`.
        log: Lines of `metrics.jsonl`.
        config: Content of `config.json`.
        facts: Content of the adapter's `lora_sam.json`.
        pictures: Test images with base and tuned masks.
        next_steps: Commands worth trying.
        everything: Test images with what base and tuned find without a prompt.
        usage: Python that uses the result.
        object_iou: IoU of every object by `base` and `tuned`; None shows the means of the images instead.
        data: (images, objects) of each split; objects is None where they are not counted.
        notes: What a user should know about the data.
        overrides: What was typed on the command line.
    """
    main = element("main")
    # what a run is judged by stands first
    further, first_found = further_section(report, everything), found_alone(report)
    append(
        main,
        header(report),
        further if first_found else None,
        before_and_after(pictures) if pictures else None,
        _training(report, log, facts),
        _figures(report, object_iou),
        None if first_found else further,
        class_section(report["classes"], report.get("class_head"), report.get("class_precision"))
        if "classes" in report
        else None,
        *place_of_backends(),
        *place_of_robustness(),
        _settings(report, config, facts, data, notes, overrides),
        _next(next_steps, usage),
    )
    claim = verdict(report).partition(":")[0]
    template = Template(files("lora_sam.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(f"{claim} · lora_sam"), main=serialize(main))


def _training(report: Mapping[str, Any], log: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Element:
    best = facts.get("best_step")
    kept = "" if best is None else f" The weights of step {best:,} were kept: those with the highest validation IoU."
    if kept_base(report):
        kept = (
            " It never rose above that of the adapter that the run began with: its weights were kept."
            if "init_from" in report
            else " It never rose above that of the base: the weights of step 0 were kept, which change nothing."
        )
    if by_chance(report):
        kept = " It rose too little to tell from chance: the weights of step 0 were kept."
    if refuted(report):
        kept = " Cross-validation found no gain on images that had not trained: the weights of step 0 were kept."
    # of training images it rises whatever new ones would say
    measured = "images that are not trained on" if held_out(report) else "the very images that are trained on"
    return element(
        "section",
        element("h2", "Training"),
        element(
            "p",
            f"{facts['steps']:,} steps in {duration(report['seconds'])}. The loss should fall and level off; the "
            f"validation IoU, measured on {measured}, should rise.{kept}",
        ),
        element(
            "div",
            line_chart(loss_chart(log)),
            line_chart(validation_chart(log, best, start="begun with" if "init_from" in report else "base")),
            class_="charts",
        ),
    )


def _figures(report: Mapping[str, Any], object_iou: Mapping[str, Sequence[float]] | None) -> Element:
    if object_iou is None:
        counted, values = (
            "images",
            {key: [row[f"{key}_iou"] for row in report["per_image"]] for key in ("base", "tuned")},
        )
    else:
        counted, values = "objects", {key: list(object_iou[key]) for key in ("base", "tuned")}
    title = "IoU of every object" if counted == "objects" else "Mean IoU of every image"
    first = first_prompts(report)
    whole = report["groups"]["whole"] if "groups" in report else "image"
    alone = f" With a single {whole}, its objects are drawn instead."
    few = alone if report["base"].get("resampled") == "objects" else ""
    return element(
        "section",
        element("h2", f"All figures on the {report['split']} images"),
        all_figures(report),
        element(
            "p",
            f"In brackets: 95 % interval, from drawing whole {whole}s again and again; a difference whose interval "
            f"contains 0 may be luck.{few}",
            class_="note",
        ),
        None
        if first is None
        else element("p", f"{first} ", element("code", clicks_command()), " measures what clicks add."),
        element(
            "div",
            histogram(title, "IoU", counted, [(key, key, values[key]) for key in ("base", "tuned")]),
            class_="charts",
        ),
    )


def all_figures(report: Mapping[str, Any]) -> Element:
    """Every figure of `evaluation.json` about the run's own prompts: base, tuned and their difference."""
    return figures_table(("base", "tuned", "difference"), [_row(*row) for row in _table(report)])


def _table(report: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Name, explanation and the three cells of every figure in `evaluation.json`."""
    parts = [(report[key], form) for key, form in (("base", ".3f"), ("tuned", ".3f"), ("delta", "+.3f"))]
    rows = []
    for key, (name, meaning) in _METRICS.items():
        cells = []
        for part, form in parts:
            low, high = part[f"{key}_interval"]
            cells.append(f"{part[key]:{form}} [{low:{form}}, {high:{form}}]")
        rows.append((name, meaning, cells))
        if key in PER_OBJECT_METRICS:
            cells = [f"{part[f'{key}_median']:{form}}" for part, form in parts]
            rows.append((f"{name}, median", "half of the objects are better", cells))
    for key in ("iou", "dice"):
        for size in SIZES:
            count = report["base"]["by_size"][size]["objects"]
            cells = []
            for part, form in parts:
                value = part["by_size"][size][key]
                cells.append("–" if value is None else f"{value:{form}}")
            rows.append((f"{_METRICS[key][0]}, {size} objects", f"{_SIZES[size]}: {plural(count, 'object')}", cells))
    return rows


def _row(name: str, meaning: str, cells: Sequence[str]) -> Element:
    head = element("th", name, element("small", meaning), scope="row")
    columns = []
    for cell in cells:
        value, _, interval = cell.partition(" ")
        columns.append(element("td", value, element("small", interval) if interval else None))
    return element("tr", head, *columns)


def _settings(
    report: Mapping[str, Any],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    data: Mapping[str, tuple[int, int | None]] | None,
    notes: Sequence[str],
    overrides: Sequence[str],
) -> Element:
    base, memory = facts["base"], report["peak_memory_bytes"]
    rows: list[tuple[str, Child]] = [
        ("typed", element("code", " ".join(overrides) or "nothing: the defaults")),
        ("model", f"{facts['architecture']['variant']} at {facts['image_size']} px"),
        ("base weights", str(base["source"])),
        ("their SHA-256", element("code", str(base["sha256"]))),
        ("method", method_typed(facts)),
        ("its options", _options({name: one for name, one in facts["method"].items() if name not in METHOD_NAMES})),
        ("prompts", "; ".join(filter(None, (in_words(kinds_of(config)), _options(report["prompt"]))))),
        ("seed", str(facts["seed"])),
    ]
    for split, (images, objects) in (data or {}).items():
        rows.append(
            (f"{split} images", f"{images:,}" if objects is None else f"{images:,} with {plural(objects, 'object')}")
        )
    rows.append(("peak memory", "unknown" if memory is None else f"{memory / 1e9:.2f} GB"))
    rows.append(("versions", ", ".join(f"{name} {number}" for name, number in facts["versions"].items())))
    lines = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    shown = [*notes[:_MOST_NOTES], *([f"and {len(notes) - _MOST_NOTES:,} more"] if len(notes) > _MOST_NOTES else [])]
    return element(
        "section",
        element("h2", "What was run"),
        element("div", element("table", element("tbody", *lines), class_="settings"), class_="scroll"),
        element("ul", *(element("li", note) for note in shown)) if shown else None,
        element(
            "details",
            element("summary", "every setting (config.json)"),
            element("pre", element("code", json.dumps(config, indent=2, ensure_ascii=False))),
        ),
    )


def _next(steps: Sequence[NextStep], usage: str | None) -> Element:
    items = [element("li", element("p", step.purpose), element("pre", element("code", step.command))) for step in steps]
    if usage is not None:
        items.append(element("li", element("p", "Use the result in Python"), element("pre", element("code", usage))))
    return element("section", element("h2", "What next"), element("ul", *items, class_="steps"))


def _options(values: Mapping[str, Any]) -> str:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items()) or "none"
