"""The whole examination of a data set: open it, look at every sample, then at all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from lora_sam.core.errors import DataError
from lora_sam.core.groups import groups_in
from lora_sam.data.auto import Auto
from lora_sam.data.check.coco_labels import findings_in_coco
from lora_sam.data.check.datumaro_labels import findings_in_datumaro
from lora_sam.data.check.defects import Finding, Group, grouped
from lora_sam.data.check.opening import open_leniently, refusal
from lora_sam.data.check.samples import Look, look_at, spread
from lora_sam.data.check.sets import findings_of
from lora_sam.data.check.voc_labels import findings_in_voc
from lora_sam.data.coco import Coco
from lora_sam.data.datumaro_json import DatumaroJson
from lora_sam.data.reading.skipping import attempt_all
from lora_sam.data.source import DataSource
from lora_sam.data.sources import SampleSource, groups_of
from lora_sam.data.voc import Voc

_CHUNK = 64


@runtime_checkable
class LooksFurther(Protocol):
    """A format that finds more in its own files than what is looked for in every format."""

    def findings(self, root: Path, looks: Sequence[Look]) -> Iterable[Finding]:
        """What is wrong in the files below `root`, whose samples were looked at."""
        ...


@dataclass(frozen=True)
class Examination:
    """What was found in a data set.

    Attributes:
        sources: Samples by `train`, `val` and `test`, without splits that are the training images themselves; empty
            where nothing could be opened.
        looks: Every sample that was looked at.
        groups: What was found, the worst first.
        notes: What its reader says about how the labels were read.
        format: Name of the class of its format.
        max_objects: Objects of an image that one training step uses; None for all.
    """

    sources: Mapping[str, SampleSource]
    looks: tuple[Look, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    format: str
    max_objects: int | None

    @property
    def classes(self) -> dict[str, Counter[str]]:
        """Number of objects of each class, by split; splits without classes are left out."""
        counts: dict[str, Counter[str]] = {}
        for look in self.looks:
            if look.classes:
                counts.setdefault(look.split, Counter()).update(look.classes)
        return counts


def examine(
    data: DataSource,
    root: Path,
    seed: int,
    most: int | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Examination:
    """Examine a data set.

    Args:
        data: The options of its format.
        root: Its root without symbolic links.
        seed: Seed of the run, which decides what becomes an absent split.
        most: Look at so many images of each split, evenly spaced; None for all.
        progress: Called with the number of images that were looked at, and that of all.
    """
    found = _format(data)
    opened = open_leniently(data, root, seed)
    findings = list(opened.findings)
    training = opened.sources.get("train")
    own = {split: source for split, source in opened.sources.items() if split == "train" or source is not training}
    places = [(split, index) for split, source in own.items() for index in spread(len(source), most)]
    for split in opened.sources.keys() - own.keys():
        findings.append(Finding("split_is_train", split, f"{split}: is the training images themselves"))
    looks: list[Look] = []

    def look(place: tuple[str, int]) -> Look:
        split, index = place
        return look_at(opened.sources[split], split, index, root, data.max_objects_per_image)

    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        for outcome in attempt_all(look, chunk):
            if isinstance(outcome, DataError):
                findings.append(refusal(outcome, root))
            else:
                looks.append(outcome)
                findings.extend(outcome.findings)
        progress(start + len(chunk), len(places))
    if opened.sources:
        images = {split: len(source) for split, source in opened.sources.items()}
        groups = {split: groups_in(groups_of(source), opened.parts) for split, source in opened.sources.items()}
        findings.extend(findings_of(looks, images, opened.carved, groups))
        if isinstance(found, Coco):
            findings.extend(findings_in_coco(found, root, looks))
        elif isinstance(found, Voc):
            findings.extend(findings_in_voc(found, root, looks))
        elif isinstance(found, DatumaroJson):
            findings.extend(findings_in_datumaro(found, root, looks))
        elif isinstance(found, LooksFurther):
            findings.extend(found.findings(root, looks))
    return Examination(
        sources=own,
        looks=tuple(looks),
        groups=grouped(findings),
        notes=opened.notes,
        format=type(found).__name__,
        max_objects=data.max_objects_per_image,
    )


def _format(data: DataSource) -> DataSource:
    """The options of the format that the data has, where it was to be found out."""
    with suppress(DataError):  # opening it says so
        return data.chosen() if isinstance(data, Auto) else data
    return data
