"""Polygons with holes as GeoJSON (RFC 7946) in pixels, with the properties that QuPath reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_sam.core.files import write_text
from lora_sam.core.polygons import Ring, polygons_of
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`geojson/<name>.geojson`: a feature for each object; x to the right and y down, in pixels of the image."""
    del pixels, categories
    relative = f"geojson/{image.stem}.geojson"
    features = [_feature(image, index) for index in range(len(image.objects))]
    write_text(output / relative, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
    return (relative,)


def _feature(image: FoundImage, index: int) -> dict[str, Any]:
    one = image.objects[index]
    left, top, *_ = one.box

    def closed(ring: Ring) -> list[list[int]]:
        return [[x + left, y + top] for x, y in (*ring, ring[0])]

    parts = [
        [closed(polygon.outer), *(closed(hole) for hole in polygon.holes)]
        for polygon in polygons_of(image.mask_in_box(index))
    ]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) == 1
        else {"type": "MultiPolygon", "coordinates": parts}
    )
    properties = {
        "objectType": "annotation",
        "classification": {"name": one.category},
        "measurements": {"score": one.score, "area": one.area},
        **({} if one.id is None else {"name": one.id}),
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}
