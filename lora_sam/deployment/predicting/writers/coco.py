"""COCO instances with scores: https://cocodataset.org/#format-data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_sam.core.files import atomic_path
from lora_sam.core.polygons import polygons_of, single_ring
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import identifiers

FILE, POLYGONS_FILE = "coco.json", "coco_polygons.json"

Found = Callable[[], Iterable[FoundImage]]


def write_rle(output: Path, images: Found, categories: Mapping[int, str]) -> None:
    """`coco.json`, with masks as compressed RLE: exact, holes included."""
    _write(output / FILE, images, categories, _rle)


def write_polygons(output: Path, images: Found, categories: Mapping[int, str]) -> None:
    """`coco_polygons.json`, for tools that read no RLE: one polygon an object, along the edges of its pixels."""
    _write(output / POLYGONS_FILE, images, categories, _polygon)


def _write(
    path: Path, images: Found, categories: Mapping[int, str], segmentation: Callable[[FoundImage, int], Any]
) -> None:
    """One entry to a line; no more than one image is in memory."""
    listed = [{"id": identifier, "name": name, "supercategory": ""} for identifier, name in sorted(categories.items())]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        for number, line in enumerate(_images(images())):
            file.write(f"{',' if number else ''}\n{json.dumps(line)}")
        file.write('\n],\n"annotations": [')
        for number, line in enumerate(_annotations(images(), identifiers(categories), segmentation)):
            file.write(f"{',' if number else ''}\n{json.dumps(line)}")
        file.write(f'\n],\n"categories": {json.dumps(listed)}}}\n')


def _numbered(images: Iterable[FoundImage]) -> Iterator[tuple[int | str, str, FoundImage]]:
    """Id, file name and image: those of the COCO file that was the source, or numbers from 1 on."""
    for number, image in enumerate(images, 1):
        identifier, name = image.coco or (number, image.name)
        yield identifier, name, image


def _images(images: Iterable[FoundImage]) -> Iterator[dict[str, Any]]:
    for identifier, name, image in _numbered(images):
        yield {"id": identifier, "file_name": name, "height": image.size[0], "width": image.size[1]}


def _annotations(
    images: Iterable[FoundImage], ids: Mapping[str, int], segmentation: Callable[[FoundImage, int], Any]
) -> Iterator[dict[str, Any]]:
    number = 0
    for identifier, _, image in _numbered(images):
        for index, one in enumerate(image.objects):
            number += 1
            yield {
                "id": number,
                "image_id": identifier,
                "category_id": ids[one.category],
                "iscrowd": 0,
                "segmentation": segmentation(image, index),
                "bbox": list(one.box),
                "area": one.area,
                "score": one.score,
                **({} if one.id is None else {"prompt_id": one.id}),
            }


def _rle(image: FoundImage, index: int) -> dict[str, Any]:
    return {"size": list(image.size), "counts": image.objects[index].counts}


def _polygon(image: FoundImage, index: int) -> list[list[int]]:
    """Several polygons would be one over the other, so parts and holes are joined into one."""
    left, top, *_ = image.objects[index].box
    ring = single_ring(polygons_of(image.mask_in_box(index)))
    return [[value for x, y in ring for value in (x + left, y + top)]]
