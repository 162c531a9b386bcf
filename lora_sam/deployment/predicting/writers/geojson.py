"""Polygons with holes as GeoJSON (RFC 7946): in pixels with the properties that QuPath reads, or on a GeoTIFF's map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_sam.core.files import write_text
from lora_sam.core.polygons import Ring, polygons_of
from lora_sam.data.reading.georeference import Georeference
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`geojson/<name>.geojson`: a feature for each object; x to the right and y down, in pixels of the image.

    Of an image with a place on earth, x and y are in the frame of that. It is named in `crs`, as GDAL and QGIS read it
    (GeoJSON of 2008, section 3); null is that of a frame that nobody knows. RFC 7946 has longitude and latitude alone.
    """
    del pixels, categories
    relative = f"geojson/{image.stem}.geojson"
    features = [_feature(image, index) for index in range(len(image.objects))]
    content = {"type": "FeatureCollection", **_frame(image.place), "features": features}
    write_text(output / relative, json.dumps(content) + "\n")
    return (relative,)


def _frame(place: Georeference | None) -> dict[str, Any]:
    """Members of the collection that say what its coordinates are; none for pixels."""
    if place is None:
        return {}
    name = None if place.epsg is None else f"urn:ogc:def:crs:EPSG::{place.epsg}"
    return {
        "crs": None if name is None else {"type": "name", "properties": {"name": name}},
        "georeference": {"transform": list(place.transform), "epsg": place.epsg, "citation": place.citation},
    }


def _feature(image: FoundImage, index: int) -> dict[str, Any]:
    one = image.objects[index]
    left, top, *_ = one.box

    def closed(ring: Ring) -> list[list[float]]:
        corners = [(x + left, y + top) for x, y in (*ring, ring[0])]
        return [list(corner if image.place is None else image.place.at(*corner)) for corner in corners]

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
