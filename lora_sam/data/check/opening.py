"""Opening a data set that may be damaged, so that all its damages are known and not only the first."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.check.defects import CANNOT_OPEN, REFUSED, Finding
from lora_sam.data.reading.skipping import collected
from lora_sam.data.source import DataSource
from lora_sam.data.splits import SampleSource, Splits, Subset

_LENIENT = {"on_error": "skip", "max_skipped": 1.0, "check": "header"}
_IMAGE = re.compile(r"\(image (.+?)\) ")
_ENTRY = re.compile(r"(?:annotation|image|object|row|line)\b (?:number )?\S+")

# Readers say in one way what is wrong, whatever the format; the first pattern that is found counts.
_WORDING = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("path_escape", r"; only files under .* are read"),
        (
            "duplicate_id",
            r"\bis listed twice|is listed under another id|is the image of another item|same name but for the ending",
        ),
        ("size_mismatch", r"is \d+x\d+ pixels \(width x height\), but "),
        ("bad_rle", r"\bhas (an RLE|a damaged compressed RLE)\b"),
        ("bad_polygon", r"\bhas (a polygon|an ellipse|more than \d+ polygon)\b"),
        ("bad_box", r"\bhas (the box|a box)\b"),
        ("empty_mask", r"\ban empty (mask|segmentation)\b"),
        ("too_large", r"at most [\d.]+ (megapixels|GiB)|is larger than"),
        ("ambiguous_mask", r": a mask with |of the foreground is 255|JPEG blurs|that .* does not list| values[;( ]"),
        ("image_without_label", r"has no (mask|label|classes)\b"),
        ("label_without_image", r"has no image\b|, which is not listed"),
        ("missing_file", r": (does not exist|is not a regular file)"),
        ("unreadable_file", r"damaged|(may not|cannot) be read|has \d+ pages|floating-point|8 or 16 bits|not UTF-8"),
        ("bad_annotation", r'has no "|has no segmentation|it takes |is not valid|entities|is null'),
    )
)


@dataclass(frozen=True)
class Opened:
    """What of a data set could be opened.

    Attributes:
        sources: Samples by `train`, `val` and `test`; empty where not even the training images could be opened.
        carved: Those of val and test that were carved out of train.
        findings: What its reader refused.
        notes: What its reader says about how the labels were read.
    """

    sources: Mapping[str, SampleSource]
    carved: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


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
                finding = refusal(str(error), root, CANNOT_OPEN)
                found.setdefault(finding.detail, finding)
        for message in refused:
            finding = refusal(message, root, defect_of(message))
            found.setdefault(finding.detail, finding)
        if splits is not None:
            break
    if splits is None:
        return Opened({}, (), tuple(found.values()), ())
    sources = {"train": splits.train, "val": splits.val, "test": splits.test}
    carved = tuple(role for role in ("val", "test") if isinstance(sources[role], Subset))
    return Opened(sources, carved, tuple(found.values()), splits.notes)


def refusal(message: str, root: Path, defect: str) -> Finding:
    """What a reader refused, as a finding; `root` is left out of its text."""
    text = " ".join(message.split()).replace(f"{root}/", "")
    place, _, rest = text.partition(": ")
    entry = _ENTRY.match(rest)
    image = _IMAGE.search(rest)
    name = f"{place}: {entry[0].rstrip(':,')}" if entry else place
    return Finding(defect, name, text, None if image is None else image[1])


def defect_of(message: str) -> str:
    """The defect that the message of a reader is about; `REFUSED` for what has no name of its own."""
    return next((name for name, pattern in _WORDING if pattern.search(message)), REFUSED)


def _with(data: DataSource, **changes: Any) -> DataSource:
    """The same options with those of `changes` that this format has."""
    fields = {field.name for field in dataclasses.fields(data)}  # type: ignore[arg-type]
    changed: DataSource = dataclasses.replace(
        data,  # type: ignore[type-var]
        **{name: value for name, value in changes.items() if name in fields},
    )
    return changed


def _with_fewer_splits(data: DataSource) -> Iterator[DataSource]:
    """The same data without val, without test, and without both."""
    given = [role for role in ("val", "test") if getattr(data, role, None) is not None]
    yield from (_with(data, **{role: None}) for role in given)
    if len(given) > 1:
        yield _with(data, val=None, test=None)
