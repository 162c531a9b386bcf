"""What was found, as JSON and as a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.core.version import __version__
from lora_sam.core.wording import plural
from lora_sam.data.check.defects import SEVERITIES, Severity, total
from lora_sam.data.check.examination import Examination

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1
MOST_IDS = 20
"""So many cases of a defect are named; all are counted."""

_EXAMPLES = 3
_COLOURS: dict[Severity, str] = {"error": "red", "warning": "yellow", "info": "cyan"}


def content(examination: Examination, *, root: str, strict: bool) -> dict[str, Any]:
    """Content of `check.json`.

    Args:
        examination: What was found.
        root: The data root, as the user gave it.
        strict: Whether warnings count as errors.

    Returns:
        `ok`; `errors`, `warnings` and `infos` (counts); `defects`: for each its `name`, `severity`, `title`, `remedy`,
        `count`, and the first `MOST_IDS` of its `cases` as {`id`, `detail`}; `splits`: images, images looked at and
        their objects; `classes`: objects by split; `distributions`: minimum, percentiles and maximum.
    """
    groups = examination.groups
    splits = {}
    for split, source in examination.sources.items():
        looks = [look for look in examination.looks if look.split == split]
        objects = sum(len(look.areas) for look in looks)
        splits[split] = {"images": len(source), "looked_at": len(looks), "objects": objects}
    return {
        "schema_version": SCHEMA_VERSION,
        "lora_sam": __version__,
        "data": examination.format,
        "root": root,
        "strict": strict,
        "ok": passed(examination, strict),
        "errors": total(groups, "error"),
        "warnings": total(groups, "warning"),
        "infos": total(groups, "info"),
        "splits": splits,
        "classes": {split: dict(counts.most_common()) for split, counts in examination.classes.items()},
        "defects": [
            {
                "name": group.defect.name,
                "severity": group.defect.severity,
                "title": group.defect.title,
                "remedy": group.defect.remedy,
                "count": len(group.findings),
                "cases": [{"id": found.id, "detail": found.detail} for found in group.findings[:MOST_IDS]],
            }
            for group in groups
        ],
        "distributions": {
            "objects_per_image": _summary([len(look.areas) for look in examination.looks]),
            "object_pixels": _summary([area for look in examination.looks for area in look.areas.tolist()]),
            "longer_side": _summary([max(look.size) for look in examination.looks]),
        },
        "notes": list(examination.notes),
    }


def messages(examination: Examination) -> Iterator[str]:
    """Every message that `check.json` has, a line each: cases of defects as far as they are named, then the notes."""
    for group in examination.groups:
        defect, more = group.defect, len(group.findings) - MOST_IDS
        yield from (f"{defect.name}: {case.detail}" for case in group.findings[:MOST_IDS])
        if more > 0:
            yield f"{defect.name}: and {more:,} more"
    yield from (f"note: {note}" for note in examination.notes)


def passed(examination: Examination, strict: bool) -> bool:
    """Whether there is no error; with `strict` no warning either."""
    return not total(examination.groups, "error") and not (strict and total(examination.groups, "warning"))


def table(examination: Examination) -> Table:
    """What was found, the worst first, with a remedy each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    made.add_column("")
    made.add_column("count", justify="right")
    made.add_column("defect", min_width=20, overflow="fold")
    made.add_column("for example", overflow="fold", min_width=11, max_width=40)
    made.add_column("remedy", min_width=24)
    for group in examination.groups:
        defect, found = group.defect, group.findings
        names = "\n".join(case.id for case in found[:_EXAMPLES])
        more = f"\nand {len(found) - _EXAMPLES:,} more" if len(found) > _EXAMPLES else ""
        made.add_row(
            Text(defect.severity, style=_COLOURS[defect.severity]),
            f"{len(found):,}",
            Text(f"{defect.title}\n({defect.name})"),
            Text(f"{names}{more}"),  # names of files are no markup
            Text(defect.remedy),
        )
    return made


def verdict(examination: Examination, strict: bool) -> str:
    """One sentence: how many problems in how many images."""
    images, objects = len(examination.looks), sum(len(look.areas) for look in examination.looks)
    counts = [(total(examination.groups, severity), severity) for severity in SEVERITIES[:2]]
    problems = " and ".join(plural(count, name) for count, name in counts if count)
    looked = f"{plural(images, 'image')} with {plural(objects, 'object')}"
    if not problems:
        return f"no error and no warning in {looked}"
    strictly = ", which strict=true counts as errors" if strict and not counts[0][0] else ""
    return f"{problems} in {looked}{strictly}"


def _summary(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    names = {"min": 0, "p05": 5, "median": 50, "p95": 95, "max": 100}
    found = np.percentile(values, list(names.values()))
    return {name: float(value) for name, value in zip(names, found, strict=True)}
