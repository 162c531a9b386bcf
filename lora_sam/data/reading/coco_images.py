"""The images and categories of a COCO file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import identifier_of, whole
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.images import image_size
from lora_sam.data.reading.outlined import split_in
from lora_sam.data.reading.paths import inside, is_text, shown
from lora_sam.data.reading.skipping import Ledger

_NOT_STATED = (None, 0, "", -1)  # what some converters write for the sides of an image


@dataclass(frozen=True)
class CocoImage:
    """An entry of `images` with the annotations that belong to it."""

    name: str
    path: Path
    size: tuple[int, int]
    ids: list[str] = field(default_factory=list)
    counts: list[bytes] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    left_out: list[bytes] = field(default_factory=list)


def read_images(
    entries: list[Any], root: Path, folder: Path, file: Path, ledger: Ledger, finder: ImageFinder
) -> dict[str, CocoImage | None]:
    """Images by id, in the order of the file; None for those that were skipped."""
    images: dict[str, CocoImage | None] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        identifier = identifier_of(entry, "id")
        owner = f"{file}: image {identifier or f'number {position} in the list'}"
        try:
            if identifier is None:
                raise DataError(
                    f'{owner} has no "id" that is a whole number or a string; give it one.', "bad_annotation"
                )
            if identifier in images:
                raise DataError(f"{owner} is listed twice; ids must be unique: remove one entry.", "duplicate_id")
            image = _read_image_entry(entry, root, folder, owner, finder)
            if image.name in names:
                raise DataError(
                    f"{owner}: {image.name} is listed under another id too; merge the two entries.", "duplicate_id"
                )
        except DataError as error:
            ledger.saw(images=1)
            ledger.skip_image(error)
            if identifier is not None:
                images.setdefault(identifier, None)
        else:
            names.add(image.name)
            images[identifier] = image
    return images


def _read_image_entry(entry: dict[str, Any], root: Path, folder: Path, owner: str, finder: ImageFinder) -> CocoImage:
    stated = [entry.get(key) for key in ("height", "width")]
    height, width = map(whole, stated)
    name = entry.get("file_name", entry.get("coco_url"))  # LVIS has the URL alone
    path = None
    if all(value in _NOT_STATED for value in stated) and isinstance(name, str):
        path = _path(name, root, folder, owner, finder)
        height, width = image_size(path)
    if height is None or width is None or height * width > MAX_PIXELS:
        found = f"width {shown(entry.get('width'))}, height {shown(entry.get('height'))}"
        raise DataError(
            f"{owner} has {found}; it takes whole numbers of pixels, at most {MAX_PIXELS} in all.", "bad_annotation"
        )
    if not isinstance(name, str):
        raise DataError(f'{owner} has no "file_name"; give the name of the image file.', "bad_annotation")
    if path is None:
        path = _path(name, root, folder, owner, finder)
    return CocoImage(path.relative_to(root).as_posix(), path, (height, width))


def _path(name: str, root: Path, folder: Path, owner: str, finder: ImageFinder) -> Path:
    """Where an image is: as the file says, or the only image of that name that no other split has."""
    try:
        path = inside(root, name, owner, base=folder)
        if path.exists():
            return path
    except DataError:  # a path of another machine, a URL, or one with `..`
        path = None
    found = finder.search(name, owner, folder)
    if found is not None and split_in(found, root) in (None, split_in(folder / "image", root)):
        return found
    return inside(root, name, owner, base=folder) if path is None else path


def categories_of(entries: object, file: Path) -> dict[str, str]:
    """Names of the categories by id; empty where the file lists none."""
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise DataError(
            f'{file}: "categories" is {shown(entries)}; it takes a list of {{"id": 1, "name": "..."}}.',
            "bad_annotation",
        )
    names: dict[str, str] = {}
    for position, entry in enumerate(entries):
        identifier = identifier_of(entry, "id")
        name = entry.get("name") if isinstance(entry, dict) else None
        if identifier is None or not isinstance(name, str) or not name.strip() or not is_text(name):
            raise DataError(
                f"{file}: category number {position} in the list has no id or no name; give it both.", "bad_annotation"
            )
        if names.setdefault(identifier, name) != name:
            raise DataError(
                f"{file}: category {identifier} is listed twice, with different names; keep one of them.",
                "duplicate_id",
            )
    return names
