"""What `prompts=` gives: COCO boxes, another detector's boxes, tables of points or boxes, the app's prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.console import note
from lora_sam.core.errors import DataError
from lora_sam.core.files import last_part
from lora_sam.core.tile_grid import image_of_tile
from lora_sam.data.reading.annotation_files import any_json
from lora_sam.data.reading.numbers import is_number
from lora_sam.data.reading.paths import shown
from lora_sam.deployment.predicting.prompted import OBJECT, PromptedObject, check_inside, prompted
from lora_sam.deployment.predicting.prompts_coco import INSTANCES, RESULTS, check_sides, instances, results
from lora_sam.deployment.predicting.prompts_table import TABLES, read_table
from lora_sam.deployment.predicting.sources import Source, SourceImage, by_name, categories_of, size_of_entry, spelt
from lora_sam.prompts.objects import are_shares

_KINDS = (
    "COCO instances, a list of COCO results, the prompts.json of the app, or a table (.csv) with the columns "
    "image,x,y,label,object or image,x1,y1,x2,y2"
)


@dataclass(frozen=True)
class PromptsFile:
    """All prompts of a file.

    Attributes:
        kind: What the file is, in words.
        objects: By the name of the image, in the order of the file.
        categories: Names by COCO id.
    """

    kind: str
    objects: Mapping[str, tuple[PromptedObject, ...]]
    categories: Mapping[int, str]

    @property
    def names_classes(self) -> bool:
        """Whether it says of any object of which class it is; objects without a class are `OBJECT` then."""
        return any(one.category != OBJECT for ones in self.objects.values() for one in ones)


def read_prompts(file: Path, source: Source) -> PromptsFile:
    """The prompts of a file for the images of a source.

    Images are named by their path relative to the source's root, or by the file name, with or without its ending.

    Raises:
        DataError: the file cannot be read or is none of those that are known; it names images that the source does not
            have, or several may be meant; a number is wrong. Names the file, the place in it and the remedy.
    """
    if not file.is_file():
        raise DataError(f"prompts = {file}: there is no such file; give {_KINDS}")
    categories: Mapping[int, str] = {}
    if file.suffix.lower() in TABLES:
        kind, found = read_table(file, _KINDS)
    else:
        content = any_json(file)
        if isinstance(content, list):
            kind, found = RESULTS, list(results(file, content, source))
            categories = source.categories
        elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
            categories = categories_of(content, file)
            kind, found = INSTANCES, list(instances(file, content, categories))
        elif isinstance(content, dict) and isinstance(content.get("objects"), list) and "image" in content:
            kind, found = "prompts of the app", list(_app(file, content))
        elif isinstance(content, dict) and isinstance(content.get("images"), list) and "schema_version" in content:
            kind, found = "prompts of an evaluation", list(_stored(file, content))
        else:
            raise DataError(f"prompts = {file}: is none of the files that are read: {_KINDS}")
    if not found:
        raise DataError(f"prompts = {file}: holds no box and no point ({kind})")
    if are_shares(_coordinates(one for _, one in found)):
        raise DataError(
            f"prompts = {file}: all coordinates lie between 0 and 1, so they are shares of the image, where pixels are "
            "needed; multiply x by the width and y by the height of the image"
        )
    return PromptsFile(kind, _by_image(file, found, source), _complete(categories, found))


def check_within(
    file: Path, found: PromptsFile, images: Iterable[SourceImage], sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Raise `DataError` for prompts that do not lie in their images; takes the (height, width) of these by name."""
    if found.kind in (INSTANCES, RESULTS):
        check_sides(file, found.objects, sizes)
    for image in images:
        if image.name in sizes:
            check_inside(file, image, found.objects[image.name], sizes[image.name])


def _coordinates(objects: Iterable[PromptedObject]) -> NDArray[np.float64]:
    values: list[float] = []
    for one in objects:
        values += one.prompts.box or ()
        values += [value for x, y, _ in one.prompts.points for value in (x, y)]
    return np.array(values, np.float64)


def _by_image(
    file: Path, found: Iterable[tuple[str, PromptedObject]], source: Source
) -> dict[str, tuple[PromptedObject, ...]]:
    images = by_name(source.images)
    objects: dict[str, list[PromptedObject]] = {}
    unknown: dict[str, str] = {}
    elsewhere: dict[str, SourceImage] = {}
    called: dict[str, str] = {}
    for name, one in found:
        fitting = images.get(spelt(name)) or images.get(last_part(spelt(name))) or []
        exact = [image for image in fitting if name in (image.name, image.coco and image.coco[1])]
        fitting = exact if len(exact) == 1 else fitting
        if len(fitting) > 1:
            raise DataError(
                f"prompts = {file}: {one.place} names the image {shown(name)}, which may be {fitting[0].name} or "
                f"{fitting[1].name}; give its path relative to {source.root}"
            )
        if fitting:
            other = called.setdefault(fitting[0].name, name)
            if _parted(other, name):
                raise DataError(
                    f"prompts = {file}: {one.place} is for {shown(name)}, others for {shown(other)}, and "
                    f"source = {source.typed} has {fitting[0].name} alone for both; give the prompts of these images "
                    "alone, or the source that has both"
                )
            if len(name) > len(other):
                called[fitting[0].name] = name
            objects.setdefault(fitting[0].name, []).append(one)
            if _is_elsewhere(name, fitting[0]):
                elsewhere.setdefault(name, fitting[0])
        else:
            unknown.setdefault(name, one.place)
    if unknown:
        name, place = next(iter(unknown.items()))
        more = "" if len(unknown) == 1 else f", and {len(unknown) - 1:,} more that are not there"
        raise DataError(
            f"prompts = {file}: {place} names the image {shown(name)}{more}; source = {source.typed} has "
            f"{len(source.images):,} images, the first is {source.images[0].name}. Correct the names, or give the "
            "source that they belong to"
        )
    if elsewhere:
        name, image = next(iter(elsewhere.items()))
        note(
            f"note: prompts = {file}: images of other folders than it names are taken by their file names alone, such "
            f"as {image.path or image.name} for {shown(name)} ({len(elsewhere):,} in all)"
        )
    return {name: tuple(ones) for name, ones in objects.items()}


def _is_elsewhere(name: str, image: SourceImage) -> bool:
    """Whether a name in a file has a folder, and that of the image is called otherwise."""
    folder = spelt(name).replace("\\", "/").rpartition("/")[0].rpartition("/")[2]
    listed = image.name if image.coco is None else image.coco[1]
    if not folder or name in (image.name, listed):
        return False
    return folder not in (PurePosixPath(spelt(image.path.as_posix() if image.path else image.name)).parent.name, ".")


def _parted(one: str, other: str) -> bool:
    """Whether two names that the file name alone fits are of two images: their folders differ."""
    if one == other:
        return False
    folders = [
        [part for part in spelt(name).replace("\\", "/").split("/")[:-1] if part not in ("", ".")][::-1]
        for name in (one, other)
    ]
    return any(a != b for a, b in zip(*folders, strict=False))


def _complete(categories: Mapping[int, str], found: Iterable[tuple[str, PromptedObject]]) -> dict[int, str]:
    """Ids also for the categories of objects that no list names."""
    complete = dict(categories)
    names = set(complete.values())
    for _, one in found:
        if one.category not in names:
            names.add(one.category)
            complete[max(complete, default=0) + 1] = one.category
    return complete


def _app(file: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, PromptedObject]]:
    yield from _objects(file, content["image"], content["objects"], [], size_of_entry(content))


def _stored(file: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, PromptedObject]]:
    """Prompts of a run's evaluation; see `lora_sam.prompts.stored`."""
    for entry in content["images"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("objects"), list):
            raise DataError(f"prompts = {file}: the image {shown(entry)} has no objects; restore the file")
        if any(entry.get("masks") or ()):
            note(
                f"note: prompts = {file}: rough masks of the evaluation are not in it; boxes and points alone are taken"
            )
        count = len(entry["objects"])
        boxes, points = (entry.get(key) or [None] * count for key in ("boxes", "points"))
        if len(boxes) != count or len(points) != count:
            raise DataError(f"prompts = {file}: the image {shown(entry.get('id'))} has other counts; restore the file")
        name, size = entry.get("id"), size_of_entry(entry)
        tile = image_of_tile(name) if isinstance(name, str) else None
        ones = [{"box": box, "points": several or []} for box, several in zip(boxes, points, strict=True)]
        found = _objects(file, name, ones, entry["objects"], size)
        if tile is not None:
            note(f"note: prompts = {file}: prompts of tiles are taken where the tiles lie in their images")
            found = ((tile[0], one.moved(*tile[1])) for _, one in found)
        yield from found


def _objects(
    file: Path, image: object, objects: Sequence[Any], ids: Sequence[Any], size: tuple[int, int] | None = None
) -> Iterator[tuple[str, PromptedObject]]:
    if not isinstance(image, str):
        raise DataError(f"prompts = {file}: the image is {shown(image)}; it takes the name of a file")
    for position, one in enumerate(objects, 1):
        place = f"object {position} of {shown(image)}"
        box, points = (one.get("box"), one.get("points") or []) if isinstance(one, dict) else (None, None)
        if box is not None and (not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box))):
            raise DataError(f"prompts = {file}: {place} has the box {shown(box)}; it takes [x1, y1, x2, y2]")
        if not isinstance(points, list) or not all(
            isinstance(point, list) and len(point) == 3 and all(map(is_number, point)) for point in points
        ):
            raise DataError(
                f"prompts = {file}: {place} has the points {shown(points)}; it takes a list of [x, y, label]"
            )
        if box is None and not points:
            continue  # the app keeps objects without a prompt
        identifier = str(ids[position - 1]) if ids else str(position)
        # what is no whole number stays, and is refused
        kept = [
            (float(x), float(y), int(label) if label == int(label) else label) for x, y, label in points if label != -1
        ]
        corners = None if box is None else tuple(box)
        yield image, prompted(file, place, identifier, OBJECT, box=corners, points=kept, size=size)
