"""Write the tables of README.md and docs/benchmarks.md from the committed results: `python -m benchmarks.tables`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import before_and_after, like_for_like, methods_table
from benchmarks.catalog import all_questions
from benchmarks.markdown import markdown
from benchmarks.questions import engines
from benchmarks.record import RESULTS, ROOT, BenchmarkError, Figure, Result, read_results
from lora_sam.core.files import write_text

_PAGES = ("benchmarks", "deploy", "methods", "nano", "sweeps", "how-many-images")
DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in _PAGES), "lora_sam/models/weights/README.md")
_BLOCK = re.compile(r"(<!-- benchmark:(\w+) -->\n)(.*?)(<!-- /benchmark:\2 -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- /?benchmark:\w+ -->")


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the tables; with `--check` only say which are stale, and return 1 if any is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 if a table is stale")
    given = parser.parse_args(arguments)
    try:
        stale = update([ROOT / name for name in DOCUMENTS], RESULTS, write=not given.check)
    except BenchmarkError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for path in stale:
        state = "is stale; run: python -m benchmarks.tables" if given.check else "written"
        sys.stderr.write(f"{path.relative_to(ROOT)} {state}\n")
    return 1 if given.check and stale else 0


def update(documents: Sequence[Path], results: Path, *, write: bool) -> list[Path]:
    """The documents whose tables differ from the results; they are rewritten with `write`.

    Raises:
        BenchmarkError: a result is damaged, or a marker in a document is unknown or has no partner.
    """
    found = read_results(results)
    stale = []
    for path in documents:
        text = path.read_text(encoding="utf-8")
        new = filled(text, found, path.name)
        if new != text:
            stale.append(path)
            if write:
                write_text(path, new)
    return stale


def filled(text: str, results: Mapping[str, Result], name: str) -> str:
    """`text` with every block between `<!-- benchmark:x -->` and `<!-- /benchmark:x -->` made anew.

    `x` is `figures` (every promise), `like_for_like` (the README's four rows), or the name of a benchmark.
    `name` is the document's, for error messages.

    Raises:
        BenchmarkError: a marker has no partner, or its name is no benchmark's.
    """
    if 2 * len(_BLOCK.findall(text)) != len(_MARKER.findall(text)):
        raise BenchmarkError(f"{name}: a benchmark marker has no partner; each table stands between a pair of them")
    return _BLOCK.sub(lambda block: f"{block[1]}{_table(block[2], results, name)}{block[4]}", text)


def _table(kind: str, results: Mapping[str, Result], document: str) -> str:
    if kind == "figures":
        return promises(results)
    if kind == "like_for_like":
        return markdown(*like_for_like.table(results), "lllrr")
    if kind == "defaults_sweep":
        return before_and_after.table_of_sweep()
    if kind == "few_images":
        return before_and_after.table_of_few_images()
    if kind not in all_questions():
        known = ", ".join(("figures", "like_for_like", *all_questions()))
        raise BenchmarkError(f"{document}: no benchmark is called {kind}; there are {known}")
    if kind not in results:
        return f"*Not measured yet: `python -m benchmarks {kind}`.*\n"
    result = results[kind]
    shown = {"finetune": fine_tuning, "demo": demo, "deploy": deployment, "defaults": before_after, "engines": matrix}
    above = f"{methods_table.text(result)}\n" if kind == "methods" else ""
    return above + shown.get(kind, every_figure)(result)


def promises(results: Mapping[str, Result]) -> str:
    """Every figure that has a limit, misses in bold with their note."""
    rows = [
        (one.what, limit_of(one), measured(one), verdict(one), one.note)
        for result in results.values()
        for one in result.figures
        if one.limit is not None
    ]
    if not rows:
        return "*Not measured yet: `python -m benchmarks`.*\n"
    table = markdown(("what", "must", "measured [range or interval]", "", "note"), rows, "lrrll")
    promising = [result for result in results.values() if any(one.limit is not None for one in result.figures)]
    return table + "".join(f"\n{_conditions(result)}\n" for result in promising)


def every_figure(result: Result) -> str:
    """All figures of one result, and how it was measured."""
    rows = [(one.what, limit_of(one), measured(one), verdict(one), one.note) for one in result.figures]
    table = markdown(("what", "must", "measured [range or interval]", "", "note"), rows, "lrrll")
    checks = "".join(f"- checked, {what}: {found}\n" for what, found in result.checks.items())
    return f"{table}\n{_conditions(result)}\n" + (f"\n{checks}" if checks else "")


def matrix(result: Result) -> str:
    """What becomes of a sweep, an engine a row, before the figures."""
    return f"{markdown(*engines.rows(result.details), 'llll')}\n{every_figure(result)}"


def fine_tuning(result: Result) -> str:
    """Base and tuned of every experiment."""
    heading = (
        "`experiment=`",
        "test IoU, base → tuned",
        "difference [95 % interval]",
        "Dice",
        "F1 (pooled)",
        "boundary F1",
        "trained parameters",
        "adapter",
        "training",
        "peak memory",
    )
    rows = [_fine_tuning_row(name, one) for name, one in result.details["runs"].items()]
    counts = "; ".join(
        f"{name}: {one['images']} images, {one['objects']} objects, {one['steps']} steps (best {one['best_step']}, "
        f"validation IoU {one['validation_iou']:.3f})" + _seeds(one)
        for name, one in result.details["runs"].items()
    )
    return markdown(heading, rows, "l" + "r" * 9) + f"\n{counts}.\n{_missed(result)}\n{_conditions(result)}\n"


def _seeds(one: Mapping[str, Any]) -> str:
    """How many seeds are behind an entry, where it is more than one."""
    count = len(one.get("seeds", ()))
    return f", means of {count} seeds, intervals over seeds and images" if count > 1 else ""


def demo(result: Result) -> str:
    """Base and tuned of the demo with every seed, and what a run cost."""
    heading = (
        "command",
        "test IoU, base → tuned",
        "difference [95 % interval]",
        "boundary F1",
        "training",
        "whole command",
        "peak memory",
        "`report.html`",
    )
    rows = [_demo_row(seed, one) for seed, one in result.details["runs"].items()]
    first = next(iter(result.details["runs"].values()))
    counts = (
        f"Test: {first['images']} images, {first['objects']} objects. The first run also draws the images. Adapter "
        f"{first['adapter_bytes'] / 1e6:.2f} MB, {first['trainable_parameters']:,} trained parameters."
    )
    checks = "".join(f"- checked, {what}: {found}\n" for what, found in result.checks.items())
    table = markdown(heading, rows, "l" + "r" * 7)
    return f"{table}\n{counts}\n{_missed(result)}\n{_conditions(result)}\n\n{checks}"


def before_after(result: Result) -> str:
    """A row for each set and method, then what was promised."""
    return f"{before_and_after.table_of(result.details['rows'])}\n{every_figure(result)}"


def deployment(result: Result) -> str:
    """Every back end on the same prompts, and the promises about merging, exporting and INT8."""
    heading = (
        "back end",
        "IoU",
        "Dice",
        "boundary F1",
        "mask AP",
        "IoU with torch",
        "encode",
        "next prompt",
        "files",
        "peak memory",
    )
    rows = [_backend_row(name, one) for name, one in result.details["backends"]["backends"].items()]
    promised = [
        (one.what, limit_of(one), measured(one), verdict(one), one.note)
        for one in result.figures
        if one.limit is not None
    ]
    checks = "".join(f"- checked, {what}: {found}\n" for what, found in result.checks.items())
    return (
        markdown(heading, rows, "l" + "r" * 9)
        + "\n"
        + markdown(("what", "must", "measured", "", "note"), promised, "lrrll")
        + f"\n{_conditions(result)}\n\n{checks}"
    )


def _backend_row(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    memory, torch_iou = one["peak_memory_bytes"], one["iou_with_torch"]
    return (
        f"{name} ({one['runtime']}, {one['weights']} files, {one['execution']})",
        *(f"{one[key]:.3f}" for key in ("iou", "dice", "boundary_f1", "map")),
        "–" if torch_iou is None else f"{torch_iou:.4f}",
        f"{one['encoder_ms']:.0f} ms",
        f"{one['next_prompt_ms']:.1f} ms",
        f"{one['bytes'] / 1e6:.1f} MB",
        "–" if memory is None else f"{memory / 2**30:.2f} GiB",
    )


def _demo_row(seed: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    base, tuned, delta = one["base"], one["tuned"], one["delta"]
    low, high = delta["iou_interval"]
    return (
        f"`python train.py seed={seed}`",
        f"{base['iou']:.3f} → {tuned['iou']:.3f}",
        f"{delta['iou']:+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{base['boundary_f1']:.3f} → {tuned['boundary_f1']:.3f}",
        f"{one['seconds']:.0f} s, {one['steps']} steps",
        f"{one['wall_seconds']:.0f} s",
        f"{one['peak_memory_bytes'] / 2**30:.2f} GiB",
        f"{one['report_bytes'] / 1e6:.2f} MB",
    )


def _missed(result: Result) -> str:
    return "".join(
        f"- **missed**: {one.what}: {measured(one)}, must be {limit_of(one)}{': ' if one.note else ''}{one.note}\n"
        for one in result.figures
        if one.ok is False
    )


def _fine_tuning_row(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    base, tuned, delta = one["base"], one["tuned"], one["delta"]
    low, high = delta["iou_interval"]
    memory = one["peak_memory_bytes"]
    return (
        name,
        f"{base['iou']:.3f} → {tuned['iou']:.3f}",
        f"{delta['iou']:+.3f} [{low:+.3f}, {high:+.3f}]",
        *(f"{base[key]:.3f} → {tuned[key]:.3f}" for key in ("dice", "f1", "boundary_f1")),
        f"{one['trainable_parameters']:,} ({100 * one['trainable_share']:.1f} %)",
        f"{one['adapter_bytes'] / 1e6:.2f} MB",
        f"{one['seconds'] / 60:.1f} min",
        "–" if memory is None else f"{memory / 2**30:.2f} GiB",
    )


def limit_of(one: Figure) -> str:
    """`≤ 0.8 s`, or nothing without a limit."""
    if one.limit is None:
        return ""
    sign = {"<=": "≤", ">=": "≥", ">": ">"}[one.relation]
    return f"{sign} {_number(one.limit)}{_unit(one)}"


def measured(one: Figure) -> str:
    """`0.41 s [0.40, 0.44]`."""
    spread = "" if one.low is None or one.high is None else f" [{_number(one.low)}, {_number(one.high)}]"
    return f"{_number(one.value)}{_unit(one)}{spread}"


def verdict(one: Figure) -> str:
    """Whether the limit is kept; nothing without one."""
    return {None: "", True: "met", False: "**missed**"}[one.ok]


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _unit(one: Figure) -> str:
    return f" {one.unit}" if one.unit else ""


def _conditions(result: Result) -> str:
    host = result.host
    loads = [f"{value:.1f}" for value in (host.load_before, host.load_after) if value is not None]
    load = f", load {' before and '.join(loads)} after" if len(loads) == 2 else ""
    names = [name for name in ("torch", "transformers", "peft") if name in result.versions]
    packages = ", ".join(f"{name} {result.versions[name]}" for name in names)
    code = f"commit {result.commit[:10]}{' with changes' if result.modified else ''}"
    return (
        f"`{result.command}`: {result.date[:10]}, {code}, {host.cpu}, {host.cores} cores, "
        f"{host.memory_bytes / 2**30:.0f} GiB{load}; Python {host.python}, {packages}."
    )


if __name__ == "__main__":
    sys.exit(main())
