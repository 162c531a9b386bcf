"""Files of a folder by name, and which of them is the label of which image."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.noticed import Notes
from lora_sam.data.reading.affixes import (
    JPEGS,
    KNOWN,
    OF_IMAGES,
    Files,
    beginnings_of,
    beside_jpegs,
    ending_of,
    ends_behind_numbers,
    stripped,
    suffix_of,
    without,
)
from lora_sam.data.reading.file_types import ending
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.paths import data_folders, listing

_SHOWN = 3
_SPLIT_FIRST = re.compile(r"(train|val|test)(?:ing|id|idation)?[A-Z]?(?![a-z])")


def by_name(folder: Path, suffixes: frozenset[str], notes: Notes) -> dict[str, list[Path]]:
    """Files by their path below `folder` without the ending, in one Unicode form; folders below are read too."""
    files: dict[str, list[Path]] = {}
    others: list[str] = []
    seen: set[Path] = set()

    def look(place: Path) -> None:
        if place.resolve() in seen:
            return  # a loop of links
        seen.add(place.resolve())
        with listing(place):
            entries = sorted(place.iterdir())
        for path in entries:
            if path.name.startswith("."):
                continue
            if (end := ending(path.name)) in suffixes:
                name = path.relative_to(folder).as_posix()[: -len(end)]
                files.setdefault(unicodedata.normalize("NFC", name), []).append(path)
            elif path.is_dir():
                look(path)
            else:
                others.append(path.relative_to(folder).as_posix())

    look(folder)
    if others:
        notes.found(
            "unread_file", f"{folder}: {len(others)} entries that are not images were not read, e.g. {others[0]}"
        )
    return files


def told_apart(
    images: Files,
    labels: Files,
    folder: Path,
    other: Path,
    *,
    suffix: str | None,
    key: str,
    what: str,
    notes: Notes,
) -> None:
    """Take away what names of labels have behind those of images, and from the images what is a label.

    Args:
        images: Images by name; changed.
        labels: Labels by name; changed.
        folder: Where the images lie.
        other: Where the labels lie.
        suffix: What label files have behind the name of their image; None finds it out.
        key: The option that says where the labels lie.
        what: What a label file is called in messages.
        notes: Says what was found out.

    Raises:
        DataError: images and labels are the same files, or an image has several labels.
    """
    suffix = suffix_of(images, labels) if suffix is None else suffix
    if folder.resolve() == other.resolve():
        if not suffix and beside_jpegs(path.name for files in images.values() for path in files):
            _part_by_ending(images, labels)
            notes.append(f"{folder}: images are the JPEG files, {what}s the others of the same names")
            return
        if not suffix:
            raise DataError(
                f"{folder}: data.images and data.{key} are the same folder, so every image would be its own "
                f"label; set data.{key}=<folder of the {what}s>, or data.mask_suffix=_mask where their "
                "names end so."
            )
        kept = without(images, suffix)
        images.clear()
        images.update(kept)
    if suffix:
        _one_each(labels, suffix, what)
        found = stripped(labels, suffix)
        others = labels.keys() - {f"{name}{suffix}" for name in found}
        labels.clear()
        labels.update(found)
        notes.append(f"{other}: {what}s are named as their images with {suffix} behind (data.mask_suffix)")
        if others and folder.resolve() != other.resolve():
            lost = f"{plural(len(others), what)} without {suffix} were not used, e.g. {min(others)}"
            notes.found("unused_label", f"{other}: {lost}")
    elif images and labels and not images.keys() & labels.keys() and (numbered := _by_number(images, labels)):
        renamed, said = numbered
        labels.clear()
        labels.update(renamed)
        notes.append(f"{other}: {what}s belong to the images of the same number: they are called {said}")
    if images and labels and not images.keys() & labels.keys() and (end := _end_of_images(images, labels)):
        if unused := sorted(name for name in images if not name.endswith(end)):
            lost = f"{plural(len(unused), 'picture')} without {end} were not used, e.g. {unused[0]}"
            notes.found("unread_file", f"{folder}: {lost}")
        kept, behind = stripped(images, end), ending_of(labels, KNOWN)
        if kept.keys() & labels.keys():
            behind = ""
        elif not kept.keys() & stripped(labels, behind).keys():
            return
        found = stripped(labels, behind)
        for files, new in ((images, kept), (labels, found)):
            files.clear()
            files.update(new)
        if behind or suffix:
            said = f"{end} and {what}s with {behind or suffix}"
            notes.append(f"{folder}: images are named with {said} behind what both have in common")


def _by_number(images: Files, labels: Files) -> tuple[Files, str] | None:
    """Labels by the names of the images that have their numbers, and how both are called; None where it is not so."""
    if words := beginnings_of(images, labels):
        renamed = {f"{words[0]}{name.removeprefix(words[1])}": files for name, files in labels.items()}
        return renamed, f"{words[0]}... and {words[1]}..."
    if words := ends_behind_numbers(images, labels):
        renamed = {f"{name.removesuffix(words[1])}{words[0]}": files for name, files in labels.items()}
        return renamed, f"...{words[0]} and ...{words[1]}"
    return None


def _end_of_images(images: Files, labels: Files) -> str:
    """What all images have behind what they share with their labels; or those for which every label has one."""
    return ending_of(images, OF_IMAGES) or next(
        (end for end in OF_IMAGES if labels.keys() <= stripped(images, end).keys()), ""
    )


def _part_by_ending(images: Files, labels: Files) -> None:
    """Keep the JPEG files as images, and the others as labels."""
    for files, jpeg in ((images, True), (labels, False)):
        kept = {
            name: [path for path in paths if (path.suffix.lower() in JPEGS) == jpeg] for name, paths in files.items()
        }
        files.clear()
        files.update({name: paths for name, paths in kept.items() if paths})


def _one_each(labels: Files, suffix: str, what: str) -> None:
    """Raise `DataError` where names go on with a number behind `suffix`: further objects, which would be lost."""
    for name in sorted(labels):
        first = re.sub(r"[-_. ]?\(?\d+\)?$", "", name)
        if first != name and first.endswith(suffix) and first in labels:
            raise DataError(
                f"{labels[first][0]}: its image has another {what}, {labels[name][0].name}; join the {what}s of an "
                "image into one label image with a value for each object, or put images into images/ and masks into "
                "masks/ for data=mask_per_object.",
                "duplicate_id",
            )


def unread_siblings(folder: Path, other: Path, read: Iterable[Path], key: str, what: str, notes: Notes) -> None:
    """Note folders beside the labels that have about as many pictures and are not read.

    Args:
        folder: Where the images lie.
        other: Where the labels lie.
        read: Folders of all splits, whether they are there or not.
        key: The option that says where the labels lie.
        what: What a label file is called.
        notes: Gets the note.
    """
    parent = other.parent
    if parent != folder.parent:
        return
    used = {place.name.casefold() for place in read if place.parent == parent}
    least = max(2, len(names_in(other)) // 2)
    try:
        beside = [path for path in sorted(parent.iterdir()) if path.is_dir() and path not in (folder, other)]
        counted = {
            path.name: sum(ending(file.name) in SUFFIXES for file in path.iterdir())
            for path in beside
            if path.name.casefold() not in used and not path.name.startswith(".")
        }
    except OSError:
        return  # what is not read needs no permission
    found = [name for name, count in counted.items() if count >= least]
    if found:
        told = ", ".join(f"{name} ({counted[name]} files)" for name in found[:_SHOWN])
        text = f"{parent}: {other.name} has the {what}s, as data.{key} says; not read: {told}"
        notes.found("unread_folder", text, tuple(found))


def say_splits_in_names(folder: Path, ids: Iterable[str], notes: Notes) -> None:
    """A note where all names begin with a split, as `train_1` and `testA_1`, but are one set."""
    words = [_SPLIT_FIRST.match(name.rpartition("/")[2]) for name in ids]
    called = sorted({word[1].lower() for word in words if word})
    if all(words) and len(called) > 1 and "train" in called:
        notes.found(
            "unused_split",
            f"{folder}: names begin with {' and '.join(called)}, but are parted anew; put files into folders called so "
            "to keep their splits",
        )


def names_in(folder: Path) -> list[str]:
    """Names of all files below a folder that are not hidden."""
    with listing(folder):
        return [name for _, names in data_folders(folder) for name in names]


def pair_by_base_name(images: Mapping[str, list[Path]], labels: dict[str, list[Path]]) -> None:
    """Give labels without an image the name of the one that has the same base name, in whatever folder, if only one has
    on either side."""
    lonely = [name for name in labels if name not in images]
    free = [name for name in images if name not in labels]
    counts = [Counter(_base(name) for name in names) for names in (free, lonely)]
    known = {_base(name): name for name in free}
    for name in lonely:
        base = _base(name)
        if counts[0][base] == counts[1][base] == 1:
            labels[known[base]] = labels.pop(name)


def _base(name: str) -> str:
    return name.rpartition("/")[2]
