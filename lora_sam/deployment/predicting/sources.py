"""The images that `source=` means: a folder, a pattern, a file, or what a COCO file lists."""

from __future__ import annotations

import hashlib
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.core.files import without_ending
from lora_sam.data.reading.annotation_files import identifier_of, json_kind, parsed_json
from lora_sam.data.reading.image_file import MAX_TILED_PIXELS, read_up_to
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.images import SUFFIXES, image_size
from lora_sam.data.reading.likely_pairs import folders_of_masks
from lora_sam.data.reading.paths import shown
from lora_sam.deployment.predicting.walking import OWN_FOLDERS, WILDCARDS, files_below, is_own, matching

_LONGEST = 200
"""Bytes of a name: file systems take 255, of which the name has some more while it is written."""

_ANNOTATIONS = "annotations"


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    Attributes:
        name: Its path relative to the source's root, with `/`.
        path: Where it lies; None where a COCO file lists it and it is not there.
        problem: Why it is not there.
        coco: Its `id` and `file_name` in the COCO file that lists it.
        stated: (height, width) as that file says.
    """

    name: str
    path: Path | None
    problem: str | None = None
    coco: tuple[int | str, str] | None = None
    stated: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """All images of a source, in order of their names, or in that of a COCO file.

    Attributes:
        root: What names are relative to.
        images: The images; no two of one name.
        typed: What was given as `source`.
        kind: `folder`, `pattern`, `file` or `coco`.
        categories: Of a COCO file, names by id.
    """

    root: Path
    images: tuple[SourceImage, ...]
    typed: str
    kind: str
    categories: Mapping[int, str] = field(default_factory=dict)


def open_source(typed: str, output: Path | None = None) -> Source:
    """The images of a source.

    Args:
        typed: A folder (with all that is below it), a pattern (`scans/**/*.tif`), an image file, or a COCO file.
        output: Where predictions will be written: not searched for images, where it lies inside the folder.

    Raises:
        DataError: nothing is there, or no image; names what was looked for and the remedy.
    """
    path = Path(typed).expanduser()
    if path.is_dir():
        found = [file for file in files_below(path, output) if _is_image(file.name)]
        if not found:
            raise DataError(_empty(typed, path))
        return _source(path, found, typed, "folder")
    if path.is_file():
        if path.suffix.lower() == ".json":
            return _listed(path, typed)
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"source = {typed}: is not an image ({_endings()}) and not a COCO file (.json)")
        return _source(path.parent, [path], typed, "file")
    if not WILDCARDS.intersection(typed):
        raise DataError(
            f"source = {typed}: there is no such file or folder ({path.absolute()}); give a folder of images, an "
            "image, a pattern such as 'scans/**/*.tif', or a COCO file"
        )
    return _matching(path, typed, output)


def readable(images: Iterable[SourceImage], typed: str) -> None:
    """Raise `DataError` where no image of all has a header that can be read; stops at the first that has."""
    problems = []
    for image in images:
        try:
            if image.path is not None:
                with read_up_to(MAX_TILED_PIXELS):  # which of them are too large without tiles is said of each
                    image_size(image.path)
                return
            problems.append(str(image.problem))
        except DataError as error:
            problems.append(str(error))
    count = len(problems)
    what = "the image cannot be read" if count == 1 else f"none of its {count:,} images can be read; the first"
    raise DataError(f"source = {typed}: {what}: {problems[0]}")


def masks_among(source: Source) -> str | None:
    """A note where a part of the images seems to be the masks of the others, which the model would be shown as well."""
    if source.kind not in ("folder", "pattern"):
        return None
    names = [image.name for image in source.images]
    found = folders_of_masks(source.root, names)
    if found is None:
        return None
    images, masks, suffix = found
    like = [name for name in names if f"{name}/".startswith(f"{masks}/") or masks == "."]
    like = [name for name in like if without_ending(name).endswith(suffix)]
    if images == masks:
        leave = f"leave the files out whose names end with {suffix}"
    else:
        leave = f"source={shlex.quote((Path(source.typed) / images).as_posix())} leaves them out"
        leave = leave if source.kind == "folder" else "a pattern for the images alone leaves them out"
    return f"note: {len(like):,} of {len(names):,} images look like masks of the others, such as {like[0]}; {leave}"


def stems_of(names: Iterable[str]) -> dict[str, str]:
    """By the name of each image the path without ending of what is written for it.

    The name without its ending; with it where two images differ in nothing else, or where a folder is called so.
    """
    names = list(names)
    folders = {folder.as_posix().casefold() for name in names for folder in PurePosixPath(name).parents}
    stems = {name: without_ending(name) for name in names}
    while True:
        # also where the file system does not tell letters' case
        count = Counter(stem.casefold() for stem in stems.values())
        alike = [
            name
            for name, stem in stems.items()
            if stem != name and (count[stem.casefold()] > 1 or stem.casefold() in folders)
        ]
        if not alike:
            return {name: short(stem) for name, stem in stems.items()}
        # what has its ending now may be called as another is without: a.png and a.png.png
        stems |= {name: name for name in alike}


def short(name: str) -> str:
    """A path with `/`, of which parts that are too long for a file system beside its endings end with their digest."""
    parts = name.split("/")
    for place, part in enumerate(parts):
        if len(os.fsencode(part)) > _LONGEST:
            digest = hashlib.sha256(os.fsencode(part)).hexdigest()[:12]
            parts[place] = os.fsencode(part)[: _LONGEST - 13].decode("utf-8", "ignore") + f"-{digest}"
    return "/".join(parts)


def by_name(images: Iterable[SourceImage]) -> dict[str, list[SourceImage]]:
    """Images by what may name them in a file, as `spelt`: path, file name, and either without the ending."""
    found: dict[str, list[SourceImage]] = {}
    for image in images:
        names = {image.name, PurePosixPath(image.name).name, without_ending(image.name), PurePosixPath(image.name).stem}
        if image.coco is not None:
            names |= {image.coco[1], PurePosixPath(image.coco[1]).name, PurePosixPath(image.coco[1]).stem}
        for name in {spelt(name) for name in names}:
            found.setdefault(name, []).append(image)
    return found


def spelt(name: str) -> str:
    """A name in the one spelling (Unicode NFC) that all that look alike have; macOS and some archives take others."""
    return unicodedata.normalize("NFC", name)


def _source(root: Path, paths: Iterable[Path], typed: str, kind: str) -> Source:
    resolved = root.resolve()
    images = [SourceImage(path.relative_to(root).as_posix(), resolved / path.relative_to(root)) for path in paths]
    return Source(resolved, tuple(sorted(images, key=lambda image: image.name)), typed, kind)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _matching(path: Path, typed: str, output: Path | None) -> Source:
    """Images that a pattern matches; names are relative to the part before the first wildcard."""
    fixed: list[str] = []
    for part in path.parts[:-1]:
        if WILDCARDS.intersection(part):
            break
        fixed.append(part)
    root = Path(*fixed) if fixed else Path()
    # `**` twice in a pattern finds a file in several ways
    matched = dict.fromkeys(matching(root, path.parts[len(fixed) :], output))
    own = None if output is None else output.resolve()
    paths = [found for found in matched if found.is_file() and _is_image(found.name) and not _is_own(found, root, own)]
    if not paths:
        raise DataError(
            f"source = {typed}: no image matches ({_endings()} are read); ** stands for any folders: 'scans/**/*.tif'"
        )
    return _source(root, paths, typed, "pattern")


def _is_own(path: Path, root: Path, own: Path | None) -> bool:
    """Whether a file was written by predictions: it lies in a directory of theirs below `root`, or `root` is one."""
    between = [folder for folder in path.parents if folder != root and folder.is_relative_to(root)]
    ours = bool(between) and between[-1].name in OWN_FOLDERS and is_own(root, own)
    return ours or any(is_own(folder, own) for folder in between)


def _listed(file: Path, typed: str) -> Source:
    """The images that a COCO file lists."""
    if json_kind(file) not in ("coco", None):
        raise DataError(f"source = {typed}: is no COCO file; give a folder of images, or a COCO file")
    content = parsed_json(file, ("images",), "a COCO file that lists images")
    entries: list[Any] = content["images"]
    folder = file.parent.resolve()
    root = folder.parent if folder.name == _ANNOTATIONS else folder
    finder = ImageFinder(root)
    images: list[SourceImage] = []
    names: set[str] = set()
    ids: set[str] = set()
    for position, entry in enumerate(entries, 1):
        owner = f"{file}: image number {position} in the list"
        identifier, given = identifier_of(entry, "id"), entry.get("file_name") if isinstance(entry, dict) else None
        if identifier is None or not isinstance(given, str):
            raise DataError(f"{owner} has no id or no file_name; give it both", "bad_annotation")
        stored = entry["id"] if isinstance(entry["id"], int | str) else int(entry["id"])
        try:
            path = finder.find(given, owner, folder, *_folders(root))
            name, problem = path.relative_to(root).as_posix(), None
        except DataError as error:
            path, name, problem = None, given, str(error)
        for twice, what in ((name in names, name), (identifier in ids, f"the id {identifier}")):
            if twice:
                raise DataError(f"{owner}: {what} is listed twice; remove one entry", "duplicate_id")
        names.add(name)
        ids.add(identifier)
        images.append(SourceImage(name, path, problem, (stored, given), size_of_entry(entry)))
    if not images:
        raise DataError(f"source = {typed}: the file lists no image")
    return Source(root, tuple(images), typed, "coco", categories_of(content, file))


def size_of_entry(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of an image as its entry in a COCO file says; None where it says none."""
    height, width = (entry.get(key) for key in ("height", "width"))
    return (height, width) if type(height) is int and type(width) is int and height > 0 < width else None


def categories_of(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Names by id of the categories of a COCO file; none where it lists none. Raises `DataError`."""
    entries = content.get("categories") or []
    found: dict[int, str] = {}
    names: dict[str, int] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        identifier, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if (
            type(identifier) is not int
            or not isinstance(name, str)
            or names.setdefault(name, identifier) != identifier
            or found.setdefault(identifier, name) != name
        ):
            raise DataError(f"{file}: the category {shown(entry)} needs a whole number as id and a name of its own")
    return found


def _folders(root: Path) -> tuple[Path, ...]:
    return tuple(folder for folder in (root / "images",) if folder.is_dir())


def _empty(typed: str, path: Path) -> str:
    try:
        others = sum(entry.is_file() and not entry.name.startswith(".") for entry in path.iterdir())
    except OSError:
        others = 0
    there = f"{others:,} other files are" if others else "it is empty, or has hidden files only"
    return f"source = {typed}: no image is in this folder or below it ({_endings()} are read; {there})"


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))
