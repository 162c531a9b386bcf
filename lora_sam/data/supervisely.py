"""Labels as Supervisely exports them: datasets with img/ and ann/ (https://docs.supervisely.com, annotation format)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import whole
from lora_sam.data.reading.outline import Bitmap, Outline, flat
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, shown
from lora_sam.data.reading.tool_files import files_below, packed_bitmap, parsed
from lora_sam.data.splits import Splits

_ANNOTATIONS, _IMAGES = "ann", "img"
_NO_AREA = ("point", "line", "rectangle", "graph", "cuboid", "cuboid_2d", "any")


@dataclass(frozen=True, kw_only=True)
class Supervisely(FormatOptions):
    """A project: datasets with `img/<image>` and `ann/<image>.json`.

    Polygons, with their holes, and bitmaps are objects; those with one `instance` are one object. Rectangles, points
    and lines are no objects; they are counted. Datasets called train, val or test are splits.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the object and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="Supervisely's annotations")


LAYOUT = "Supervisely: img and ann"
NEEDS = ("img/*.<image>", "ann/*.json")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if (folder / _IMAGES).is_dir() and next((folder / _ANNOTATIONS).glob("*.json"), None) is not None:
            return f"{_IMAGES} and {_ANNOTATIONS} in {folder.name}"
    return None


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    for file in files_below(root, ".json"):
        if file.parent.name != _ANNOTATIONS:
            continue
        try:
            yield _picture(parsed(file, root), file, root)
        except DataError as error:
            yield error


def _picture(content: Any, file: Path, root: Path) -> Picture:
    size = content.get("size") if isinstance(content, dict) else None
    objects = content.get("objects") if isinstance(content, dict) else None
    height, width = (whole(size.get(side)) if isinstance(size, dict) else None for side in ("height", "width"))
    if height is None or width is None or not isinstance(objects, list):
        raise DataError(
            f'{file}: has no "size" and "objects"; export the project from Supervisely again.', "bad_annotation"
        )
    left_out: LeftOut = Counter()
    outlines: list[Outline | DataError] = []
    for entry in objects:
        kind = (
            entry.get("geometryType", "bitmap" if entry.get("bitmap") else "polygon")
            if isinstance(entry, dict)
            else None
        )
        if kind in _NO_AREA:
            left_out["no_outline", f"objects of type {kind} outline nothing"] += 1
            continue
        try:
            outlines.append(_outline(entry, kind))
        except DataError as error:
            outlines.append(error)
    return Picture(
        owner=str(file),
        image=file.name.removesuffix(".json"),
        folders=(file.parent.parent / _IMAGES,),
        size=(height, width),
        outlines=outlines,
        left_out=left_out,
        split=split_in(file, root),
    )


def _outline(entry: Any, kind: object) -> Outline:
    if not isinstance(entry, dict) or kind not in ("polygon", "bitmap"):
        raise DataError(f"has the type {shown(kind)}; polygon and bitmap are read: convert or remove it", "bad_polygon")
    label, instance = entry.get("classTitle"), entry.get("instance")
    if not isinstance(label, str):
        raise DataError(f"has the class {shown(label)}; it takes text", "bad_annotation")
    about = Outline(name=str(entry.get("id") or ""), label=label, group=None if instance is None else str(instance))
    if kind == "polygon":
        points = entry.get("points")
        if not isinstance(points, dict) or not isinstance(points.get("interior", []), list):
            raise DataError(f"has the points {shown(points)}; it takes exterior and interior", "bad_polygon")
        holes = tuple(flat(ring) for ring in points.get("interior", []))
        return replace(about, rings=(flat(points.get("exterior")),), holes=holes)
    bitmap = entry.get("bitmap")
    bitmap = bitmap if isinstance(bitmap, dict) else {}
    origin = bitmap.get("origin")
    if not isinstance(origin, list) or len(origin) != 2 or not all(type(value) is int for value in origin):
        raise DataError(f"has a bitmap at {shown(origin)}; it takes [left, top] in pixels", "bad_rle")
    return replace(about, bitmap=Bitmap(origin[0], origin[1], packed_bitmap(bitmap.get("data"), zipped=True)))
