"""What only the label files of COCO can tell: boxes against masks, outlines, categories, images that nobody lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.check.defects import Finding, of_object
from lora_sam.data.check.samples import Look, corners, fits, mismatch, numbers
from lora_sam.data.coco import Coco
from lora_sam.data.reading.annotation_files import parsed_json
from lora_sam.data.reading.coco_dialects import segmentation_of
from lora_sam.data.reading.coco_layouts import CocoLayout
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.paths import inside, within
from lora_sam.data.reading.tool_files import files_below
from lora_sam.data.splits import spellings

OUTSIDE_PIXELS = 1.0
"""A polygon leaves its image where a vertex is farther outside."""

MOST_VERTICES = 1000
"""Polygons with more vertices are not searched for crossings."""


@dataclass(frozen=True)
class _File:
    """One annotation file: entries that are mappings, whatever is in them."""

    name: str
    folder: Path
    images: tuple[dict[str, Any], ...]
    annotations: tuple[dict[str, Any], ...]
    categories: Mapping[str, str]


def findings_in_coco(config: Coco, root: Path, looks: Sequence[Look]) -> Iterator[Finding]:
    """All findings in the annotation files that its reader could use.

    Args:
        config: Where they are.
        root: The data root without symbolic links.
        looks: Every sample that was looked at; annotations of others are passed over.
    """
    files = list(_files(config, root))
    known = {look.id: look for look in looks}
    listed: set[Path] = set()
    used: Counter[str] = Counter()
    for file in files:
        names = {str(entry.get("id")): _name(entry, file.folder, root) for entry in file.images}
        listed.update(root / name for name in names.values() if name is not None)
        yield from _unlabelled(file, names)
        for entry in file.annotations:
            category = str(entry.get("category_id"))
            used[file.categories.get(category, "")] += 1
            name = names.get(str(entry.get("image_id")))
            owner = f"{file.name}: annotation {entry.get('id')}"
            if file.categories and category not in file.categories:
                detail = f"{owner} has the category {entry.get('category_id')!r:.60}, which is not listed"
                yield Finding("unknown_category", owner, detail, name if name in known else None)
            if name in known:
                yield from _geometry(entry, known[name])
    for category in sorted({name for file in files for name in file.categories.values()} - set(used)):
        yield Finding("unused_category", category, f"{category}: listed, but no object has it")
    present = {path for file in files for path in files_below(file.folder, *SUFFIXES)}
    for path in sorted(present - listed):
        name = path.relative_to(root).as_posix()
        yield Finding("unlisted_image", name, f"{name}: no annotation file lists it")


def _files(config: Coco, root: Path) -> Iterator[_File]:
    """The annotation files of the splits; those that the reader could not use are left out, as it has said so."""
    with suppress(DataError):
        layout = config.layout(root)
        splits = [config.train, config.val, config.test] if "{split}" in layout.annotations else [config.train]
        for split in dict.fromkeys(name for name in splits if name is not None):
            with suppress(DataError):
                yield from _file(layout, root, split)


def _file(layout: CocoLayout, root: Path, split: str) -> Iterator[_File]:
    for spelling in spellings(split):
        path = inside(root, within(layout.annotations, spelling), "data.annotations")
        if path.exists():
            content = parsed_json(path, ("images", "annotations"), "COCO instances")
            images, annotations, categories = (
                tuple(entry for entry in _list(content, key) if isinstance(entry, dict))
                for key in ("images", "annotations", "categories")
            )
            names = {str(entry.get("id")): str(entry.get("name") or entry.get("id")) for entry in categories}
            folder = inside(root, within(layout.images, spelling), "data.images")
            yield _File(path.relative_to(root).as_posix(), folder, images, annotations, names)
            return


def _list(content: dict[str, Any], key: str) -> list[Any]:
    found = content.get(key)
    return found if isinstance(found, list) else []


def _name(entry: dict[str, Any], folder: Path, root: Path) -> str | None:
    """The id of the sample of an image entry."""
    name = entry.get("file_name")
    return (folder / name).relative_to(root).as_posix() if isinstance(name, str) and name[:1] != "/" else None


def _unlabelled(file: _File, names: Mapping[str, str | None]) -> Iterator[Finding]:
    labelled = {str(entry.get("image_id")) for entry in file.annotations if entry.get("iscrowd") not in (1, "1")}
    for identifier, name in names.items():
        if identifier not in labelled and name is not None:
            yield Finding("unlabelled_image", name, f"{name}: {file.name} has no object of it")


def _geometry(entry: dict[str, Any], look: Look) -> Iterator[Finding]:
    identifier = str(entry.get("id"))
    if identifier not in look.object_ids or entry.get("iscrowd") in (1, "1"):
        return
    name = of_object(look.id, identifier)

    def finding(defect: str, detail: str) -> Finding:
        return Finding(defect, name, f"{name} {detail}", look.id, (identifier,))

    stated = corners(entry.get("bbox"))
    if stated is not None and not fits(stated, look.boxes[look.object_ids.index(identifier)]):
        yield mismatch(look, identifier, stated)
    segmentation = segmentation_of(entry)
    polygons = [numbers(polygon) for polygon in segmentation] if isinstance(segmentation, list) else []
    rings = [polygon.reshape(-1, 2) for polygon in polygons if polygon is not None and len(polygon) % 2 == 0]
    height, width = look.size
    limits = np.array([width, height])
    outside = max((float(np.max([-ring, ring - limits])) for ring in rings if len(ring)), default=0.0)
    if outside > OUTSIDE_PIXELS:
        yield finding("polygon_outside_image", f"reaches {outside:.1f} pixels out of the image of {width}x{height}")
    if any(crosses_itself(ring) for ring in rings):
        yield finding("self_intersecting_polygon", "has an outline that crosses itself")


def crosses_itself(ring: NDArray[np.float64]) -> bool:
    """Whether two sides of a closed polygon, vertices (x, y) [K, 2], cross in their inner parts.

    Sides that only touch, or lie on each other, do not cross; beyond `MOST_VERTICES` vertices nothing is searched.
    """
    if not 4 <= len(ring) <= MOST_VERTICES:
        return False
    start, end = ring, np.roll(ring, -1, axis=0)
    way = end - start

    def sides(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """On which side of line i point j lies, [K, K]."""
        offset = points[None] - start[:, None]
        return np.sign(way[:, None, 0] * offset[..., 1] - way[:, None, 1] * offset[..., 0])

    parted = sides(start) * sides(end) < 0
    return bool((parted & parted.T).any())
