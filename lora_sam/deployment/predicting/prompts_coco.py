"""Prompts in COCO's layouts: instances with their categories, and the list of results that a detector writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lora_sam.core.console import note
from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import identifier_of
from lora_sam.data.reading.numbers import is_number
from lora_sam.data.reading.paths import shown
from lora_sam.deployment.predicting.prompted import OBJECT, PromptedObject, prompted
from lora_sam.deployment.predicting.sources import Source, SourceImage, size_of_entry

INSTANCES, RESULTS = "COCO boxes", "COCO results"
"""What the two are called."""

_BEYOND = 1.05
"""Detectors do not clip their boxes; by so much of an image they do not miss it."""


def instances(
    file: Path, content: Mapping[str, Any], categories: Mapping[int, str]
) -> Iterator[tuple[str, PromptedObject]]:
    """(image, object) of each annotation by its box."""
    names: dict[str, tuple[str, tuple[int, int] | None]] = {}
    for entry in content.get("images") or []:
        identifier, name = identifier_of(entry, "id"), entry.get("file_name") if isinstance(entry, dict) else None
        if identifier is None or not isinstance(name, str):
            raise DataError(f"prompts = {file}: the image {shown(entry)} has no id or no file_name; give it both")
        if names.setdefault(identifier, (name, size_of_entry(entry)))[0] != name:
            raise DataError(
                f"prompts = {file}: {shown(names[identifier][0])} and {shown(name)} both have the id {identifier}, so "
                "that nobody can tell whose boxes are whose; give each image an id of its own"
            )
    for position, entry in enumerate(content["annotations"], 1):
        identifier = identifier_of(entry, "id") or f"#{position}"
        place = f"annotation {identifier}"
        image, size = names.get(identifier_of(entry, "image_id") or "", (None, None))
        if image is None:
            raise DataError(f"prompts = {file}: {place} belongs to no image that the file lists; correct its image_id")
        category = entry.get("category_id")
        if not _may_be(category, categories):
            raise DataError(
                f"prompts = {file}: {place} has the category {shown(category)}, which the file does not list"
            )
        name = categories.get(category, OBJECT) if categories else OBJECT
        yield image, _boxed(file, place, identifier, entry.get("bbox"), name, size)


def results(file: Path, content: Sequence[Any], source: Source) -> Iterator[tuple[str, PromptedObject]]:
    """(image, object) of each result; images are the ids of a COCO file that is the source, or names of files."""
    names = {str(image.coco[0]): image for image in source.images if image.coco is not None}
    numbers = _by_number(source.images)
    otherwise: list[tuple[str, SourceImage, SourceImage]] = []
    for position, entry in enumerate(content, 1):
        place = f"result {position}"
        identifier = identifier_of(entry, "image_id")
        if identifier is None or "bbox" not in entry:
            raise DataError(f"prompts = {file}: {place} has no image_id or no bbox; a list must be COCO results")
        image, number = names.get(identifier), not isinstance(entry["image_id"], str)
        if number and not names:
            raise DataError(
                f"prompts = {file}: its images are numbers ({identifier}), which a folder does not know; give the COCO "
                "file that lists them as source=..., or names of files as image_id"
            )
        if number and image is None:
            raise DataError(
                f"prompts = {file}: {place} has the image_id {identifier}, which {source.typed} does not list; give "
                "the COCO file that the detector read as source=..."
            )
        other = numbers.get(int(identifier)) if identifier.isdecimal() else None
        if image is not None and other not in (None, image):
            assert other is not None
            otherwise.append((identifier, image, other))
        category = entry.get("category_id")
        if not _may_be(category, source.categories):
            raise DataError(
                f"prompts = {file}: {place} has the category {shown(category)}, which {source.typed} does not list"
            )
        name = OBJECT if category is None else source.categories.get(category, f"category {category}")
        one = _boxed(file, place, str(position), entry["bbox"], name, None if image is None else image.stated)
        yield identifier if image is None else image.name, one
    if otherwise:
        identifier, image, other = otherwise[0]
        note(
            f"note: prompts = {file}: image_id is the id that {source.typed} gives an image: {identifier} is "
            f"{image.name}. Where the detector wrote numbers of file names instead, it is {other.name}: write the file "
            f"names then ({len(otherwise):,} results in all)"
        )


def _by_number(images: Iterable[SourceImage]) -> dict[int, SourceImage]:
    """Images whose file names are numbers, as some detectors write them for ids."""
    stems = ((PurePosixPath(image.name).stem, image) for image in images)
    return {int(stem): image for stem, image in stems if stem.isdecimal()}


def check_sides(
    file: Path, found: Mapping[str, Sequence[PromptedObject]], sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Raise `DataError` where a file of COCO boxes has their corners [x1, y1, x2, y2], not their width and height.

    That is so if all of them are boxes inside of their images as corners, and some are far outside as they are.

    Args:
        file: Where they come from.
        found: By the name of the image.
        sizes: (height, width) of images by name, where known.
    """
    beyond: PromptedObject | None = None
    for name, size in sizes.items():
        for one in found.get(name, ()):
            assert one.prompts.box is not None
            x1, y1, right, lower = one.prompts.box
            x2, y2 = right - x1, lower - y1
            if not (x1 < x2 <= size[1] + 1 and y1 < y2 <= size[0] + 1):
                return
            if right > size[1] * _BEYOND + 1 or lower > size[0] * _BEYOND + 1:
                beyond = beyond or one
    if beyond is not None:
        assert beyond.prompts.box is not None
        x1, y1, right, lower = beyond.prompts.box
        given = ", ".join(f"{side:g}" for side in (x1, y1, right - x1, lower - y1))
        raise DataError(
            f"prompts = {file}: {beyond.place} has the bbox [{given}], which as [x, y, width, height] reaches far out "
            "of its image, and all boxes of the file fit as corners [x1, y1, x2, y2]; write x2 - x1 and y2 - y1"
        )


def _may_be(category: object, categories: Mapping[int, str]) -> bool:
    """Whether a category is none, or one of those that are listed; any number or text where none are."""
    return category is None or (isinstance(category, int | float | str) and (not categories or category in categories))


def _boxed(
    file: Path, place: str, identifier: str, box: object, category: str, size: tuple[int, int] | None
) -> PromptedObject:
    """An object by its COCO box [x, y, width, height] in an image of `size` = (height, width), if that is known."""
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(side) for side in box):
        raise DataError(f"prompts = {file}: {place} has the bbox {shown(box)}; it takes [x, y, width, height]")
    x, y, width, height = box
    return prompted(file, place, identifier, category, box=(x, y, x + width, y + height), size=size)
