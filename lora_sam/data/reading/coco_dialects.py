"""Masks in COCO files of packages that have a form of their own for polygons."""

from __future__ import annotations

from typing import Any


def segmentation_of(entry: Any) -> object:
    """The segmentation of an annotation as COCO has it; what it is not stays as it is, for its reader to refuse.

    Segments.ai calls it `polygons`, rings of points, and kwcoco has {"exterior": points, "interiors": [points, ...]},
    one or a list.

    Args:
        entry: The annotation, as parsed from JSON.
    """
    segmentation = entry.get("segmentation", entry.get("polygons"))
    parts = [segmentation] if isinstance(segmentation, dict) else segmentation
    if not isinstance(parts, list) or not parts:
        return segmentation
    if all(map(_is_of_points, parts)):
        return [_flat(ring) for ring in parts]
    if not all(map(_is_of_kwcoco, parts)):
        return segmentation
    return [_flat(ring) for part in parts for ring in (part["exterior"], *(part.get("interiors") or [])) if ring != []]


def _is_of_kwcoco(part: Any) -> bool:
    return isinstance(part, dict) and "exterior" in part and isinstance(part.get("interiors") or [], list)


def _is_of_points(part: Any) -> bool:
    return isinstance(part, list) and bool(part) and all(isinstance(point, list) and len(point) == 2 for point in part)


def _flat(ring: Any) -> Any:
    points = isinstance(ring, list) and all(isinstance(point, list) for point in ring)
    return [value for point in ring for value in point] if points else ring
