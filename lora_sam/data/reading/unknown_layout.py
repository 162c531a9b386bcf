"""What to say of a directory that has no known format: what is there, which formats it is near, and what they miss."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lora_sam.core.calling import data_words, typed_here
from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.reading.annotation_files import ends_of, first_file_name, json_kind
from lora_sam.data.reading.file_types import counted_types, ending, unread_types
from lora_sam.data.reading.foreign import foreign_files, unknown_keys
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.likely_pairs import likely_pairs
from lora_sam.data.splits import spellings

_IMAGE = ".<image>"
_MAX_SHOWN = 8  # folders whose files are named
_LEVELS = 2  # of folders that are told apart
_MAX_FILES = 20_000  # that needs are compared with
_MAX_OPENED = 20  # files that are looked into for a word
_MAX_NEAR = 3

DATUMARO_NEEDS: Mapping[str, tuple[str, ...]] = {
    "cityscapes": ("leftImg8bit/*.png|*_leftImg8bit.png", "gtFine/*.png|*_gtFine_*.png"),
    "ade20k2017": ("*.<image>", "*_seg.png", "*_atr.txt"),
    "ade20k2020": ("*.<image>", "*_seg.png", '*.json with "annotation"'),
    "kitti_segmentation": ("image_2/*.png", "semantic_rgb/*.png|instance/*.png|semantic/*.png"),
    "mapillary_vistas_instances": ("images/*.<image>", "instances/*.png"),
    "mots": ("images/*.<image>", "instances/*.png", "labels.txt"),
    "coco_panoptic": ("*.<image>", '*.json with "segments_info"'),
    "open_images": ("*.<image>", "*object-segmentation.csv"),
    "synthia_rand": ("RGB/*.png", "GT/*.png|GT/*.txt"),
    "vott_json": ("*.<image>", '*.json with "assets"'),
    "camvid": ("label_colors.txt", "*annot/*.png"),
    "label_me": (
        "Annotations/*.xml with <deleted>|Annotations/*/*.xml with <deleted>",
        "Images/*.<image>|Images/*/*.<image>",
    ),
    "mvtec_segmentation": ("train/*.png|train/*/*.png", "ground_truth/*.png|ground_truth/*/*.png"),
    "datumaro_binary": ("*.datum",),
    "brats": ("imagesTr/*.nii.gz", "labelsTr/*.nii.gz"),
}
"""What lies in directories that the package datumaro imports and no format of ours reads, by its names of formats."""


@dataclass(frozen=True)
class Layout:
    """A format that was looked for.

    Attributes:
        option: Its file in `conf/data`, without the ending.
        what: What it looks for, in words.
        needs: Patterns of paths that all have to be there, below any folder: `|` between alternatives, `.<image>` for
            any ending of an image, `with` before a word in the file.
    """

    option: str
    what: str
    needs: tuple[str, ...]


def unknown_layout(
    root: Path, below: Sequence[Path], as_splits: Sequence[str], layouts: Sequence[Layout], train: str
) -> DataError:
    """The error for a directory without a known format.

    Args:
        root: As returned by `data_root`.
        below: Directories in it that have one.
        as_splits: Options that read them as splits of one data set, where that is possible.
        layouts: The formats that were looked for.
        train: Name of the training split.

    Raises:
        OSError: a directory cannot be listed.
    """
    looked = "; ".join(f"data={layout.option}, {layout.what}" for layout in layouts)
    paths = _paths(root)
    near = "" if below else _near(root, paths, layouts, train)
    there = _what_is_there(paths)
    hint = _where(root, below, as_splits)
    return DataError(f"{root}: has no labelled images in a known layout. {there}{near}{hint} Looked for: {looked}.")


def _where(root: Path, below: Sequence[Path], as_splits: Sequence[str]) -> str:
    """Where to look instead; a sentence."""
    if not below:
        return "Put it into one of these, or name the places with data=<format> and its options (docs/data.md)."
    names = [place.relative_to(root).as_posix() for place in below]
    if len(names) == 1:
        return f"It is in {names[0]}, so set {data_words(root=below[0])}."
    told = ", ".join(names[:_MAX_SHOWN]) + (f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else "")
    hint = f"It holds {len(names)} data sets: {told}. Set data.root to one of them, as {data_words(root=below[0])}"
    splits = f"; as splits of one set they are read with {data_words(root=below[0].parent)} {' '.join(as_splits)}"
    return f"{hint}{splits if as_splits else ''}."


def _what_is_there(paths: Iterable[str]) -> str:
    """Folders of two levels with the types of their files, and what to do with types that are not read; a sentence."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        *parents, name = path.split("/")
        deeper = ["..."] if len(parents) > _LEVELS else []
        folders.setdefault("/".join(parents[:_LEVELS] + deeper) or ".", []).append(name)
    if not folders:
        return "It is empty. "
    said = {".": "in the folder itself"}
    parts = [f"{said.get(folder, folder)}: {counted_types(folders[folder])}" for folder in sorted(folders)[:_MAX_SHOWN]]
    more = f"; and files in {plural(len(folders) - _MAX_SHOWN, 'more folder')}" if len(folders) > _MAX_SHOWN else ""
    names = [name for files in folders.values() for name in files]
    return f"There are {'; '.join(parts)}{more}.{unread_types(names)} "


def _near(root: Path, paths: Sequence[str], layouts: Sequence[Layout], train: str) -> str:
    """Which tool it is of, which folders may be pairs, which formats it is near and what they miss; sentences."""
    first = foreign_files(root, paths) + _coco_files(root, paths, train) + likely_pairs(root, paths, train)
    found = []
    for layout in layouts:
        missing = [need for need in layout.needs if not _met(root, paths, need)]
        there = [need for need in layout.needs if need not in missing]
        if missing and set(there) - {f"*{_IMAGE}"}:
            found.append((len(missing) / len(layout.needs), layout.option, there, missing))
    found.sort(key=lambda entry: entry[0])
    texts = [
        f"data={option} has {_listed(there)} but lacks {_listed(missing)}"
        for _, option, there, missing in found[:_MAX_NEAR]
    ]
    text = f"Nearest: {'; '.join(texts)}. " if texts else ""
    theirs = [name for name, needs in DATUMARO_NEEDS.items() if all(_met(root, paths, need) for need in needs)]
    if theirs:
        options = " or ".join(f"data=datumaro_import data.format={name}" for name in theirs[:_MAX_NEAR])
        text += f"The package datumaro may read it: {options} ({typed_here('pip install datumaro')}). "
    if not texts and not theirs and not first:
        text += unknown_keys(root, paths)
    return first + text


def _coco_files(root: Path, paths: Sequence[str], train: str) -> str:
    """Files of COCO that are in no known place, or several of which may be meant, and what to type; a sentence."""
    files = [path for path in paths if path.casefold().endswith(".json")]
    found = [path for path in sorted(files, key=len)[:_MAX_OPENED] if json_kind(root / path) == "coco"]
    found = [path for path in found if b'"segments_info"' not in ends_of(root / path)]  # COCO panoptic
    found.sort(key=lambda path: "instances" not in path)
    folders = Counter(path.rpartition("/")[0] or "." for path in paths if ending(path.casefold()) in SUFFIXES)
    if not found or not folders:
        return ""
    names = " and ".join(found[:2]) + (f" and {len(found) - 2} more" if len(found) > 2 else "")
    are = "is" if len(found) == 1 else "are"
    pictures = folders.most_common(1)[0][0]
    for template in (_as_template(path, train) for path in found):
        files = [path for path in found if _as_template(path, train) == template]
        if template is not None and len(files) > 1:
            places = {place for path in files for place in _places_of(root / path, paths)} or set(folders)
            return f"{names} {are} COCO: data=coco {data_words(annotations=template, images=_in_common(places))}. "
    return f"{names} {are} COCO: data=coco {data_words(annotations=found[0], images=pictures)}. "


def _as_template(path: str, train: str) -> str | None:
    """A file with `{split}` for the split in its name; None where there is none."""
    folder, _, name = path.rpartition("/")
    words = [word for split in (train, "val", "test") for word in sorted(spellings(split), key=len, reverse=True)]
    for word in words:
        if found := re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", name):
            return f"{folder}/{name[: found.start()]}{{split}}{name[found.end() :]}".lstrip("/")
    return None


def _places_of(file: Path, paths: Iterable[str]) -> set[str]:
    """Folders that have the image that a COCO file names."""
    name = (first_file_name(file) or "").rpartition("/")[2]
    return {path.rpartition("/")[0] for path in paths if name and path.rpartition("/")[2] == name}


def _in_common(folders: Iterable[str]) -> str:
    """The folder that has all of these in it, or is the only one: images are found by their names below it."""
    parts = [folder.split("/") for folder in folders]
    same = [names[0] for names in zip(*parts, strict=False) if len(set(names)) == 1]
    return "/".join(same) or "."


def _paths(root: Path) -> list[str]:
    """Files below the root as relative paths with `/`, none hidden."""
    paths: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(folder).relative_to(root)
        paths += [(place / name).as_posix() for name in sorted(files) if not name.startswith(".")]
        if len(paths) >= _MAX_FILES:
            break
    return paths[:_MAX_FILES]


def _met(root: Path, paths: Iterable[str], need: str) -> bool:
    for alternative in need.split("|"):
        pattern, _, word = alternative.partition(" with ")
        endings = SUFFIXES if pattern.endswith(_IMAGE) else ("",)
        globs = [f"*/{pattern.removesuffix(_IMAGE)}{ending}".casefold() for ending in endings]
        fitting = (path for path in paths if any(fnmatchcase(f"/{path}".casefold(), glob) for glob in globs))
        if not word:
            if next(fitting, None) is not None:
                return True
            continue
        for _, path in zip(range(_MAX_OPENED), fitting, strict=False):
            if word.encode() in ends_of(root / path):
                return True
    return False


def _listed(needs: Sequence[str]) -> str:
    return " and ".join(need.partition("|")[0].replace(_IMAGE, ".png") for need in needs)
