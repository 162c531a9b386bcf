"""What the names of label files have behind those of their images: `x_mask.png` beside `x.jpg`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

KNOWN = (
    "_masks", "_cp_masks", "_mask", "-mask", "_labels", "-labels", "_label", "_labelled", "-labelled", "_gt",
    "_segmentation", "_seg", "_annotation", "_anno", "_Simple Segmentation", "_Object Identities",
    "_label_ground-truth",
)  # fmt: skip
"""Endings by which labels are told from the images that they lie beside."""

OF_IMAGES = ("_0000", "_img", "_image", "_raw", "_rgb", "_sat")
"""What names of images have behind them where those of labels have an ending too: nnU-Net's first channel, cellpose,
CVPPP, DeepGlobe."""

LABELS = re.compile(r"mask|gt|truth|label|(?<![a-z])lab(?![a-z])|anno|seg|trimap|manual|target", re.IGNORECASE)
"""What names of files and folders of labels have in them."""

JPEGS = (".jpg", ".jpeg")

Files = dict[str, list[Path]]


def suffix_of(images: Iterable[str], labels: Iterable[str]) -> str:
    """What most names of labels have behind the name of an image; empty where a label has an image's name as it is.

    Args:
        images: Names without ending.
        labels: Likewise; those of one folder are in both.
    """
    known, others = set(images), set(labels)
    if known == others:  # one folder
        begun = known | {name.removesuffix(end) for end in OF_IMAGES for name in known}
        counts = Counter(end for end in KNOWN for name in others if name.endswith(end) and name[: -len(end)] in begun)
    elif known & others:
        return ""
    else:
        counts = Counter()
        for name in others:
            cuts = [cut for cut in range(1, len(name)) if name[:cut] in known]
            if cuts and name[max(cuts)] in "_-. ":
                counts[name[max(cuts) :]] += 1
    (suffix, count), *_ = [*counts.most_common(1), ("", 0)]
    # one name may begin with another by chance
    return suffix if count * 2 >= len(others) - (len(known & others) - count if known == others else 0) else ""


def beginnings_of(images: Iterable[str], labels: Iterable[str]) -> tuple[str, str] | None:
    """What the names of images and of labels have before the number that they share: `img_` and `mask_`.

    Args:
        images: Names without ending.
        labels: Likewise.

    Returns:
        None where not all names are a word and a number, that of labels says nothing of labels, or they have numbers
        that no image has.
    """
    return _words_beside_numbers(images, labels, re.compile(r"(?P<word>.*?)(?P<number>\d+)", re.DOTALL))


def ends_behind_numbers(images: Iterable[str], labels: Iterable[str]) -> tuple[str, str] | None:
    """The same of what is behind the number: `_training` and `_manual1` of 21_training and 21_manual1, as in DRIVE."""
    return _words_beside_numbers(images, labels, re.compile(r"(?P<number>\d+)(?P<word>[-_. ].*)", re.DOTALL))


def _words_beside_numbers(
    images: Iterable[str], labels: Iterable[str], form: re.Pattern[str]
) -> tuple[str, str] | None:
    found = []
    numbers = []
    for names in (list(images), list(labels)):
        parts = [form.fullmatch(name) for name in names]
        words = {part["word"] for part in parts if part}
        if not names or not all(parts) or len(words) != 1:
            return None
        found.append(words.pop())
        numbers.append({part["number"] for part in parts if part})
    told = found[0] != found[1] and LABELS.search(found[1]) is not None and numbers[1] <= numbers[0]
    return (found[0], found[1]) if told else None


def beside_jpegs(names: Iterable[str]) -> bool:
    """Whether most pictures of a folder are a JPEG and another one of the same name: its label, as JPEG blurs values.

    Args:
        names: Of files, with their endings.
    """
    stems: dict[str, list[str]] = {}
    for name in names:
        stem, _, end = name.rpartition(".")
        stems.setdefault(stem, []).append(f".{end.lower()}")
    pairs = sum(len(ends) == 2 and sum(end in JPEGS for end in ends) == 1 for ends in stems.values())
    return pairs > 1 and pairs * 2 >= len(stems) and all(len(ends) <= 2 for ends in stems.values())


def ending_of(names: Iterable[str], endings: Iterable[str]) -> str:
    """The first of the endings that all names have; empty where there is none."""
    every = list(names)
    return next((end for end in endings if all(name.endswith(end) for name in every)), "")


def stripped(labels: Mapping[str, list[Path]], suffix: str) -> Files:
    """Labels by the names of their images: those that end in `suffix`, without it."""
    return {name.removesuffix(suffix): files for name, files in labels.items() if name.endswith(suffix)}


def without(images: Mapping[str, list[Path]], suffix: str) -> Files:
    """The files of one folder that are no labels."""
    return {name: files for name, files in images.items() if not name.endswith(suffix)}
