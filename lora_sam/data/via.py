"""Labels as the VGG Image Annotator writes them: its JSON, its project and its CSV (https://www.robots.ox.ac.uk/~vgg/software/via)."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import MAX_ANNOTATION_BYTES, without_repeats
from lora_sam.data.reading.numbers import as_float, is_number
from lora_sam.data.reading.outline import Outline, ellipse
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.tool_files import files_below, parsed, recognised
from lora_sam.data.splits import Splits

_JSON, _CSV = (b'"shape_attributes"', b'"region_attributes"'), (b"region_shape_attributes",)
_NO_AREA = ("point", "polyline", "line")
_CELL = 2**24  # characters of one CSV cell


@dataclass(frozen=True, kw_only=True)
class Via(FormatOptions):
    """`via_region_data.json`, a project, or the CSV of VIA 1 and 2, with images below the root.

    Polygons, circles and ellipses are objects. Rectangles, points and lines are no objects; they are counted. The class
    is the value of the only region attribute, or of one that is called class, label, type or name. Folders called
    train, val or test are splits.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the image and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="VIA's regions")


LAYOUT = "VGG Image Annotator: via_region_data.json, a project or its CSV"
NEEDS = ("*.<image>", '*.json with "regions"|*.csv with region_shape_attributes')
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = recognised(root, ".json", says=_JSON) or recognised(root, ".csv", says=_CSV)
    return None if file is None else f"regions of VIA in {file.relative_to(root)}"


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    found: dict[tuple[Path, str], list[Any]] = {}
    for file in files_below(root, ".json", ".csv"):
        try:
            for name, regions in _entries(file, root):
                found.setdefault((file, name), []).extend(regions if isinstance(regions, list) else [regions])
        except DataError as error:
            yield error
    for (file, name), regions in found.items():
        yield _picture(file, name, regions, root)


def _entries(file: Path, root: Path) -> Iterator[tuple[str, list[Any]]]:
    """Names of images and their regions, each {"shape_attributes", "region_attributes"}."""
    if file.suffix.lower() == ".csv":
        yield from _rows(file, root)
        return
    content = parsed(file, root)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not any(
        isinstance(entry, dict) and "regions" in entry for entry in entries.values()
    ):
        return
    for key, entry in entries.items():
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise DataError(
                f"{file}: the entry {shown(key)} has no filename; export the annotations from VIA again.",
                "bad_annotation",
            )
        regions = entry.get("regions", [])
        # a mapping of numbers in VIA 1
        yield name, list(regions.values()) if isinstance(regions, dict) else regions


def _rows(file: Path, root: Path) -> Iterator[tuple[str, list[Any]]]:
    try:
        inside(root, file.relative_to(root).as_posix(), str(file))
        if file.stat().st_size > MAX_ANNOTATION_BYTES:
            raise DataError(
                f"{file}: is larger than {MAX_ANNOTATION_BYTES // 2**30} GiB; split the data set.", "bad_annotation"
            )
        limit = csv.field_size_limit(_CELL)
        try:
            with file.open(encoding="utf-8-sig", newline="") as opened:
                rows = list(csv.DictReader(opened))
        finally:
            csv.field_size_limit(limit)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); check its permissions.", "unreadable_file"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file}: is no CSV in UTF-8 ({error}); export the annotations from VIA again.", "bad_annotation"
        ) from error
    for number, row in enumerate(rows, start=2):
        name = row.get("filename") or row.get("#filename")
        if "region_shape_attributes" not in row or not name:
            return  # another table
        try:
            shape, about = (
                json.loads(row[key] or "{}", object_pairs_hook=without_repeats)
                for key in ("region_shape_attributes", "region_attributes")
            )
        except (ValueError, RecursionError, KeyError) as error:
            raise DataError(
                f"{file}: line {number} has no region in JSON ({error}); export it from VIA again.", "bad_annotation"
            ) from error
        yield name, [{"shape_attributes": shape, "region_attributes": about}] if shape else []


def _picture(file: Path, name: str, regions: list[Any], root: Path) -> Picture:
    left_out: LeftOut = Counter()
    outlines: list[Outline | DataError] = []
    for region in regions if isinstance(regions, list) else [regions]:
        shape = region.get("shape_attributes") if isinstance(region, dict) else None
        kind = shape.get("name") if isinstance(shape, dict) else None
        if kind in _NO_AREA or kind == "rect":
            left_out["no_outline", f"regions of type {kind} outline nothing"] += 1
            continue
        try:
            if not isinstance(shape, dict):
                raise DataError(f"is {shown(region)}; it takes shape_attributes", "bad_annotation")
            outlines.append(Outline(label=_label(region.get("region_attributes")), rings=(_ring(shape, kind),)))
        except DataError as error:
            outlines.append(error)
    return Picture(
        owner=f"{file}: image {name}",
        image=name,
        folders=(file.parent, file.parent / "images"),
        outlines=outlines,
        left_out=left_out,
        split=split_in(file, root),
        listed_in=file,
    )


def _ring(shape: dict[str, Any], kind: object) -> list[float]:
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise DataError(
                f"has all_points_x {shown(xs)} and all_points_y {shown(ys)}; it takes two lists of one length",
                "bad_polygon",
            )
        return [value for point in zip(xs, ys, strict=True) for value in point]
    if kind not in ("circle", "ellipse"):
        raise DataError(
            f"has the shape {shown(kind)}; polygon, circle and ellipse are read: convert or remove it", "bad_polygon"
        )
    keys = ("cx", "cy", "r", "r") if kind == "circle" else ("cx", "cy", "rx", "ry")
    x, y, across, down = (shape.get(key) for key in keys)
    turn = shape.get("theta", 0)
    if not all(is_number(value) for value in (x, y, across, down, turn)):
        raise DataError(f"is a {kind} with {shown(shape)}; it takes numbers", "bad_annotation")
    # VIA 2 stores the turn in radians
    x, y, across, down, turn = map(as_float, (x, y, across, down, turn))
    return ellipse(x, y, across, down, turn * 180 / 3.141592653589793)


def _label(attributes: object) -> str | None:
    """The class among the attributes of a region."""
    if not isinstance(attributes, dict) or not attributes:
        return None
    keys = [key for key in attributes if key.casefold() in ("class", "label", "type", "name", "category")]
    key = keys[0] if keys else next(iter(attributes)) if len(attributes) == 1 else None
    value = None if key is None else attributes[key]
    if isinstance(value, dict):  # check boxes
        chosen = [name for name, on in value.items() if on in (True, "true", "True")]
        value = chosen[0] if len(chosen) == 1 else None
    return value if isinstance(value, str) and value.strip() else None
