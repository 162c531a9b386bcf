"""Labels as QuPath exports them: GeoJSON for each image (https://qupath.readthedocs.io, exporting annotations)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.outline import Outline, flat
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, shown
from lora_sam.data.reading.tool_files import LOOKED_AT, files_below, parsed
from lora_sam.data.splits import Splits

_ENDINGS = (".geojson",)
_INSIDE = ("detection", "cell")
_NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")


@dataclass(frozen=True, kw_only=True)
class QuPath(FormatOptions):
    """`<image>.geojson` beside the images or in a folder of their own; coordinates in pixels of the whole image.

    Polygons, with their holes, are objects, in annotations, detections and cells; the class is the classification.
    Annotations around detections or cells are the regions where QuPath looked for them, and no objects, nor are classes
    with an asterisk, such as `Ignore*`; points and lines are none either. All are counted. Folders called train, val or
    test are splits.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the feature and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="QuPath's GeoJSON")


LAYOUT = "QuPath: *.geojson"
NEEDS = ("*.<image>", "*.geojson")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = next(iter(files_below(root, *_ENDINGS, most=LOOKED_AT)), None)
    return None if file is None else f"GeoJSON in {file.relative_to(root)}"


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    for file in files_below(root, *_ENDINGS):
        try:
            content = parsed(file, root)
            features = content.get("features") if isinstance(content, dict) else content
            if isinstance(content, dict) and content.get("type") == "Feature":
                features = [content]
            if not isinstance(features, list):
                raise DataError(
                    f'{file}: has no list "features"; export it from QuPath as GeoJSON again.', "bad_annotation"
                )
            if isinstance(content, dict) and (content.get("crs") or content.get("georeference")):
                raise DataError(
                    f'{file}: has "crs" or "georeference", so its coordinates are those of a map, where pixels '
                    "of the image are needed; export it from QuPath, or make label images of it with gdal_rasterize.",
                    "bad_annotation",
                )
            yield _picture(features, file, root)
        except DataError as error:
            yield error


def _picture(features: list[Any], file: Path, root: Path) -> Picture:
    left_out: LeftOut = Counter()
    found: dict[int, Outline | DataError] = {}
    for place, feature in enumerate(features):
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind in _NO_AREA:
            left_out["no_outline", f"features of type {kind} outline nothing"] += 1
            continue
        try:
            if not isinstance(geometry, dict):
                raise DataError(
                    f"has the geometry {shown(geometry)}; it takes a Polygon or a MultiPolygon", "bad_polygon"
                )
            found[place] = _outline(feature, geometry, kind)
        except DataError as error:
            found[place] = error
    regions = _regions(features, found)
    outlines: list[Outline | DataError] = []
    for place, outline in found.items():
        if place in regions:
            left_out["crowds_left_out", "annotations around detections or cells are regions, and no objects"] += 1
        elif isinstance(outline, Outline) and (outline.label or "").endswith("*"):
            left_out["crowds_left_out", "objects of classes with an asterisk, which QuPath ignores, are none"] += 1
        else:
            outlines.append(outline)
    name = file.stem  # image.png.geojson is that of image.png, and image.geojson of image.(png, tif, ...)
    return Picture(
        owner=str(file),
        image=name,
        folders=(file.parent, file.parent.parent / "images"),
        outlines=outlines,
        left_out=left_out,
        split=split_in(file, root),
    )


def _outline(feature: dict[str, Any], geometry: dict[str, Any], kind: object) -> Outline:
    coordinates = geometry.get("coordinates")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(polygons, list):
        raise DataError(
            f"has the geometry {shown(kind)}; Polygon and MultiPolygon are read: convert or remove it", "bad_polygon"
        )
    rings: list[object] = []
    holes: list[object] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or not polygon:
            raise DataError(f"has the polygon {shown(polygon)}; it takes a list of rings", "bad_polygon")
        rings.append(_ring(polygon[0]))
        holes += (_ring(ring) for ring in polygon[1:])
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    label = classification.get("name") if isinstance(classification, dict) else classification
    if isinstance(classification, dict) and label is None and isinstance(classification.get("names"), list):
        label = ": ".join(str(name) for name in classification["names"])
    return Outline(
        name=str(feature.get("id") or ""),
        label=label if isinstance(label, str) and label.strip() else None,
        rings=tuple(rings),
        holes=tuple(holes),
    )


def _regions(features: list[Any], outlines: Mapping[int, Outline | DataError]) -> set[int]:
    """Places of the annotations in whose box the box of a detection or cell lies."""
    boxes: dict[bool, list[tuple[int, NDArray[np.float64]]]] = {True: [], False: []}
    for place, outline in outlines.items():
        properties = features[place].get("properties") if isinstance(features[place], dict) else None
        kind = properties.get("objectType") if isinstance(properties, dict) else None
        box = _box(outline) if isinstance(outline, Outline) and kind in (*_INSIDE, "annotation") else None
        if box is not None:
            boxes[kind == "annotation"].append((place, box))
    if not boxes[False]:
        return set()
    inner = np.array([box for _, box in boxes[False]])
    return {
        place for place, box in boxes[True] if ((inner[:, :2] >= box[:2]) & (inner[:, 2:] <= box[2:])).all(axis=1).any()
    }


def _box(outline: Outline) -> NDArray[np.float64] | None:
    """The box XYXY of an outline's rings; None where they have no corner."""
    corners = [value for ring in outline.rings if isinstance(ring, list) for value in ring]
    points = np.array(corners, np.float64).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), points.max(axis=0)]) if len(points) else None


def _ring(points: object) -> list[float]:
    corners = flat(points)
    return corners[:-2] if len(corners) > 6 and corners[:2] == corners[-2:] else corners  # GeoJSON repeats the first
