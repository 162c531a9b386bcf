"""Which two folders of an unknown layout may be images and their masks, told by the names of their files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np

from lora_sam.core.calling import data_words
from lora_sam.data.reading.affixes import LABELS, beginnings_of, beside_jpegs, ends_behind_numbers, suffix_of
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.paths import within
from lora_sam.data.splits import spellings

_MOST_FOLDERS = 24
_SEPARATORS = "_-. "
_WORD_FIRST = re.compile(r"train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?", re.IGNORECASE)
_GREY = ("1", "L", "P", "I", "I;16", "F")
_LOOKED_AT, _CLOSE = 64, 16


def likely_pairs(root: Path, paths: Sequence[str], train: str) -> str:
    """What to type where masks seem to lie beside images under names that are not looked for; a sentence or nothing.

    Args:
        root: The directory.
        paths: Of the files below it, relative.
        train: Name of the training split.
    """
    found = folders_of_masks(root, paths)
    if found is None:
        return ""
    images, labels, suffix = found
    images, labels = _as_template(images, labels, train, paths)
    words = data_words(images=images, masks=labels, **({"mask_suffix": suffix} if suffix else {}))
    said = f"{labels} has the masks of {images}"
    if images == labels:
        said = (
            f"names with {suffix} behind are masks" if suffix else f"{images} has images as JPEG and masks beside them"
        )
    return f"If {said}, type data=folder {words}. "


def folders_of_masks(root: Path, paths: Iterable[str]) -> tuple[str, str, str] | None:
    """Folders that seem to hold images and their masks, and what the names of these end with; None where none do.

    Args:
        root: The directory.
        paths: Of the files below it, relative.
    """
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for path in map(PurePosixPath, paths):
        if path.suffix.lower() in SUFFIXES:
            folders[path.parent.as_posix()][path.stem] = path.name
    if not 1 <= len(folders) <= _MOST_FOLDERS:
        return None
    return _two_folders(root, folders) or _one_folder(root, folders)


def _two_folders(root: Path, folders: Mapping[str, Mapping[str, str]]) -> tuple[str, str, str] | None:
    """The two folders with the most files of the same names, as (images, labels, no suffix): it is found again."""
    counts: Counter[tuple[str, str]] = Counter()
    for one, other in combinations(sorted(folders), 2):
        places = [(one, other)] if bool(LABELS.search(other)) > bool(LABELS.search(one)) else []
        places += [(other, one)] if bool(LABELS.search(one)) > bool(LABELS.search(other)) else []
        if not places:  # names of the files say it
            both = ((one, other), (other, one))
            places = [pair for pair in both if LABELS.search(suffix_of(folders[pair[0]], folders[pair[1]]))]
        for images, labels in places:
            suffix = suffix_of(folders[images], folders[labels])
            shared = sum(name.removesuffix(suffix) in folders[images] for name in folders[labels])
            if beginnings_of(folders[images], folders[labels]) or ends_behind_numbers(folders[images], folders[labels]):
                shared = len(folders[labels])
            if shared * 2 >= len(folders[labels]) and _is_grey(root / labels, folders[labels]):
                counts[_without_common_end(images, labels)] += shared
    if not counts:
        return None
    images, labels = counts.most_common(1)[0][0]
    return images, labels, suffix_of(folders[images], folders[labels]) if "." in (images, labels) else ""


def _one_folder(root: Path, folders: Mapping[str, Mapping[str, str]]) -> tuple[str, str, str] | None:
    """A folder where as many files are named as another one with something behind, in grey."""
    for folder, files in folders.items():
        if (root / folder).is_dir() and beside_jpegs(path.name for path in (root / folder).iterdir()):
            return folder, folder, ""
        ends = Counter(
            name[cut:]
            for name in files
            for cut in range(1, len(name))
            if name[cut] in _SEPARATORS and name[:cut] in files
        )
        suffix, count = next(iter(ends.most_common(1)), ("", 0))
        # images may have an end of their own
        known = suffix_of(files, files)
        if known and sum(name.endswith(known) for name in files) > 1:
            suffix, count = known, len(files)
        if count * 3 >= len(files) and count > 1 and _is_grey(root / folder, files, suffix):
            return folder, folder, suffix
    return None


def _is_grey(folder: Path, files: Mapping[str, str], suffix: str = "") -> bool:
    """Whether the first file is grey, in whatever way it is stored; JPEG blurs colours a little."""
    from PIL import Image

    name = next(file for stem, file in sorted(files.items()) if stem.endswith(suffix))
    try:
        with Image.open(folder / name) as image:
            if image.mode in _GREY:
                return True
            small = image.convert("RGB").resize((_LOOKED_AT, _LOOKED_AT), Image.Resampling.NEAREST)
        return int(np.ptp(np.asarray(small).astype(int), axis=2).max()) <= _CLOSE
    except Exception:  # what cannot be read is no hint
        return False


def _without_common_end(one: str, other: str) -> tuple[str, str]:
    """Two folders without the folders in them that are called alike: folders within folders are read too."""
    first, second = one.split("/"), other.split("/")
    while len(first) > 1 and len(second) > 1 and first[-1] == second[-1]:
        first.pop()
        second.pop()
    return "/".join(first), "/".join(second)


def _as_template(images: str, labels: str, train: str, paths: Sequence[str]) -> tuple[str, str]:
    """With `{split}` where both folders lie in one that is called like the training split, or have one, or are ones."""
    tries = [(f"{images}/{{split}}", f"{labels}/{{split}}")]
    first, second = images.split("/"), labels.split("/")
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if (word := _WORD_FIRST.match(one)) and other.startswith(word[0]):
            first[place], second[place] = (f"{{split}}{name.removeprefix(word[0])}" for name in (one, other))
            tries.insert(0, ("/".join(first), "/".join(second)))
            break
    for pair in tries:
        for split in spellings(train):
            if all(any(path.startswith(f"{within(folder, split)}/") for path in paths) for folder in pair):
                return pair
    return images, labels
