"""Opening a data set that may be damaged, so that all its damages are known and not only the first."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.core.groups import Parts
from lora_sam.data.check.defects import CANNOT_OPEN, REFUSED, Finding
from lora_sam.data.noticed import Noticed
from lora_sam.data.reading.skipping import collected
from lora_sam.data.source import DataSource
from lora_sam.data.sources import SampleSource
from lora_sam.data.splits import Splits, Subset

_LENIENT = {"on_error": "skip", "max_skipped": 1.0, "check": "header"}
_IMAGE = re.compile(r"\(image (.+?)\) ")
_ENTRY = re.compile(r"(?:annotation|image|object|row|line)\b (?:number )?\S+")


@dataclass(frozen=True)
class Opened:
    """What of a data set could be opened.

    Attributes:
        sources: Samples by `train`, `val` and `test`; empty where not even the training images could be opened.
        carved: Those of val and test that were carved out of train.
        findings: What its reader refused, and what it noticed.
        notes: What its reader says about how the labels were read.
        parts: What samples are parts of; None where each is a whole.
    """

    sources: Mapping[str, SampleSource]
    carved: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    parts: Parts | None = None


def open_leniently(data: DataSource, root: Path, seed: int) -> Opened:
    """Open `data` with everything bad skipped and told; pixels are not decoded yet.

    A split that cannot be opened at all is left out, so that the others are looked at.

    Args:
        data: The options of a format; those for errors are replaced.
        root: Its root without symbolic links, for the names in findings.
        seed: Seed of the run, which decides what becomes an absent split.
    """
    found: dict[str, Finding] = {}
    splits: Splits | None = None
    lenient = _with(data, **_LENIENT)
    for options in (lenient, *_with_fewer_splits(lenient)):
        with collected() as refused:
            try:
                splits = options.open(seed)
            except DataError as error:
                finding = refusal(error, root, CANNOT_OPEN)
                found.setdefault(finding.detail, finding)
        for one in refused:
            finding = refusal(one, root)
            found.setdefault(finding.detail, finding)
        if splits is not None:
            break
    if splits is None:
        return Opened({}, (), tuple(found.values()), ())
    sources = {"train": splits.train, "val": splits.val, "test": splits.test}
    held_out = [role for role in ("val", "test") if sources[role] is not splits.train]
    carved = tuple(role for role in held_out if isinstance(sources[role], Subset))
    noticed = [as_finding(one, root) for one in splits.noticed]
    said = {one.text for one in splits.noticed}
    notes = tuple(note for note in splits.notes if note not in said)
    return Opened(sources, carved, (*found.values(), *noticed), notes, splits.parts)


def _below(root: Path, text: str) -> str:
    """`text` in one line, with places as they are below `root`; what is typed stays whole."""
    return re.sub(rf"(?<![='\"]){re.escape(str(root))}/", "", " ".join(text.split()))


def refusal(error: DataError, root: Path, defect: str | None = None) -> Finding:
    """What a reader refused, as a finding of a defect, or of the kind of the error; `root` is left out of its text."""
    text = _below(root, str(error))
    place, _, rest = text.partition(": ")
    entry = _ENTRY.match(rest)
    image = _IMAGE.search(rest)
    name = f"{place}: {entry[0].rstrip(':,')}" if entry else place
    return Finding(defect or error.kind or REFUSED, name, text, None if image is None else image[1])


def as_finding(noticed: Noticed, root: Path) -> Finding:
    """What a reader noticed, as a finding; `root` is left out of its text."""
    text = _below(root, noticed.text)
    place, _, rest = text.partition(": ")
    return Finding(noticed.kind, place if rest else text, text.replace(": warning: ", ": ", 1))


def _with(data: DataSource, **changes: Any) -> DataSource:
    """The same options with those of `changes` that this format has."""
    fields = {field.name for field in dataclasses.fields(data)}  # type: ignore[arg-type]
    changed: DataSource = dataclasses.replace(
        data,  # type: ignore[type-var]
        **{name: value for name, value in changes.items() if name in fields},
    )
    return changed


def _with_fewer_splits(data: DataSource) -> Iterator[DataSource]:
    """The same data without val, without test, without both, and with the training images for both."""
    given = [role for role in ("val", "test") if getattr(data, role, None) is not None]
    yield from (_with(data, **{role: None}) for role in given)
    if len(given) > 1:
        yield _with(data, val=None, test=None)
    training = getattr(data, "train", None)
    if training is not None:
        yield _with(data, val=training, test=training)
