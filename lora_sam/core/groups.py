"""What samples are parts of: slices of a volume, tiles of an image, images of a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.wording import plural


@dataclass(frozen=True)
class Parts:
    """The words for it, in the singular.

    Attributes:
        whole: What samples are parts of, such as `volume`.
        part: What samples are, such as `slice`.
    """

    whole: str
    part: str


@dataclass(frozen=True)
class Groups:
    """How many there are among some samples.

    Attributes:
        count: Number of groups; a sample that is a whole is one of its own.
        whole: See `Parts`.
        part: See `Parts`.
    """

    count: int
    whole: str
    part: str


def clusters_of(groups: Sequence[str | None]) -> NDArray[np.intp]:
    """Which cluster each sample belongs to, counted from 0 as they come; one without a group is one of its own."""
    number: dict[str | int, int] = {}
    keys = [place if group is None else group for place, group in enumerate(groups)]
    return np.array([number.setdefault(key, len(number)) for key in keys], np.intp)


def groups_in(groups: Sequence[str | None], parts: Parts | None) -> Groups | None:
    """The groups of some samples; None where each is one of its own."""
    count = len(set(clusters_of(groups).tolist()))
    if count == len(groups):
        return None
    words = parts or Parts("group", "image")
    return Groups(count, words.whole, words.part)


def named(group: str | None) -> dict[str, str]:
    """What an image in a JSON file has beside its id: its group, if it is part of one."""
    return {} if group is None else {"group": group}


def independent(content: Mapping[str, Any]) -> int:
    """How many things were measured that have nothing to do with each other: groups, or images where each is one.

    Args:
        content: Of `evaluation.json`, or of another file with `images` and `groups`.
    """
    groups = content.get("groups")
    return int(content["images"] if groups is None else groups["count"])


def counted_images(content: Mapping[str, Any], of: str | None = None) -> str:
    """How many images were measured, in words: `12 images`, or `2 volumes (40 slices)`.

    Args:
        content: Of `evaluation.json`, or of another file with `images` and `groups`.
        of: A word before `images`, such as the name of their split.
    """
    groups, before = content.get("groups"), "" if of is None else f"{of} "
    if groups is None:
        return plural(content["images"], f"{before}image")
    parts = plural(content["images"], groups["part"])
    return f"{plural(groups['count'], before + groups['whole'])} ({parts})"
