"""What a format notices while it reads labels: notes on how they were read, and what may be wrong, by its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

NoticeKind = Literal[
    "alpha_masks",
    "background_class",
    "boxes_as_outlines",
    "colours_of_classes",
    "crowds_as_objects",
    "crowds_left_out",
    "damaged_parts",
    "duplicates_not_sought",
    "gradient_masks",
    "hollow_masks",
    "ids_at_the_limit",
    "importer_warning",
    "instance_encoding",
    "inverted_masks",
    "masks_of_many_parts",
    "no_background",
    "no_outline",
    "objects_in_a_quarter",
    "odd_ids",
    "other_frame",
    "other_name",
    "parted_group",
    "polygon_outside_image",
    "rectangles",
    "same_masks",
    "several_annotations",
    "small_objects",
    "soft_edges",
    "trimap",
    "ungrouped_image",
    "unlabelled_image",
    "unlisted_image",
    "unread_file",
    "unread_folder",
    "unused_label",
    "unused_split",
    "void_values",
    "zero_is_an_object",
]
"""What may be wrong with labels that are read; `lora_sam.data.check.defects` says how bad each is, and the remedy."""

LeftOut: TypeAlias = Counter[tuple[NoticeKind | None, str]]
"""How many things were left out or read otherwise, by kind and in words; no kind where the check finds each itself."""


@dataclass(frozen=True)
class Noticed:
    """One thing that was noticed.

    Attributes:
        kind: What it is.
        text: It in one line, which begins with the split, file or folder, and a colon.
        names: Of the folders that it is about.
    """

    kind: NoticeKind
    text: str
    names: tuple[str, ...] = ()


class Notes:
    """Collects both in the order in which they come."""

    def __init__(self) -> None:
        self._entries: list[str | Noticed] = []

    def append(self, text: str) -> None:
        """Say how something was read."""
        self._entries.append(text)

    def extend(self, texts: Iterable[str]) -> None:
        """Say several such things."""
        self._entries.extend(texts)

    def found(self, kind: NoticeKind, text: str, names: tuple[str, ...] = ()) -> None:
        """Say what may be wrong, and with which folders."""
        self._entries.append(Noticed(kind, text, names))

    def counted(self, place: str, left_out: LeftOut) -> None:
        """Say what was left out of a place, and how often."""
        for (kind, what), count in left_out.items():
            if count:
                text = f"{place}: {count} {what}"
                self._entries.append(text if kind is None else Noticed(kind, text))

    @property
    def texts(self) -> tuple[str, ...]:
        """All of it in words."""
        return tuple(entry if isinstance(entry, str) else entry.text for entry in self._entries)

    @property
    def noticed(self) -> tuple[Noticed, ...]:
        """What may be wrong."""
        return tuple(entry for entry in self._entries if isinstance(entry, Noticed))
