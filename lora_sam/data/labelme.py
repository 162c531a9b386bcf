"""Labels as labelme and X-AnyLabeling write them: one JSON for each image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.core.files import last_part
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import whole
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.outline import Bitmap, Outline, ellipse, flat
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, shown
from lora_sam.data.reading.tool_files import files_below, packed_bitmap, parsed, recognised
from lora_sam.data.splits import Splits

_SAYS = (b'"shapes"', b'"imagePath"')
_NO_AREA = ("point", "points", "line", "linestrip")


@dataclass(frozen=True, kw_only=True)
class Labelme(FormatOptions):
    """JSON files with `shapes`, beside their images or in a folder of their own.

    Polygons, circles, masks, rectangles and rotated rectangles are objects; those of one label with one `group_id` are
    one object. Points and lines are no objects; they are counted. Folders called train, val or test are splits.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the shape and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="labelme's JSON")


LAYOUT = "labelme: a JSON for each image"
NEEDS = ("*.<image>", '*.json with "shapes"')
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = recognised(root, ".json", says=_SAYS)
    return None if file is None else f'"shapes" in {file.relative_to(root)}'


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    for file in files_below(root, ".json"):
        try:
            content = parsed(file, root)
            if not isinstance(content, dict) or "shapes" not in content:
                continue  # another JSON beside them
            yield _picture(content, file, root)
        except DataError as error:
            yield error


def _picture(content: dict[str, Any], file: Path, root: Path) -> Picture:
    shapes, height, width = content["shapes"], whole(content.get("imageHeight")), whole(content.get("imageWidth"))
    if not isinstance(shapes, list):
        raise DataError(
            f'{file}: "shapes" is {shown(shapes)}; it takes a list: save it in labelme again.', "bad_annotation"
        )
    left_out: LeftOut = Counter()
    outlines: list[Outline | DataError] = []
    for shape in shapes:
        kind = shape.get("shape_type", "polygon") if isinstance(shape, dict) else None
        if kind in _NO_AREA:
            left_out["no_outline", f"shapes of type {kind} outline nothing"] += 1
            continue
        if kind == "rectangle":
            left_out["rectangles", "rectangles were read as objects of that shape"] += 1
        try:
            outlines.append(_outline(shape, kind))
        except DataError as error:
            outlines.append(error)
    name = content.get("imagePath") or f"{file.stem}.jpg"
    if isinstance(name, str) and _stem(name) != file.stem and _beside(file):
        left_out["other_name", "files name another image than that of their own name, which is there too"] += 1
    return Picture(
        owner=str(file),
        image=name,
        folders=(file.parent,),
        size=None if height is None or width is None else (height, width),
        outlines=outlines,
        left_out=left_out,
        split=split_in(file, root),
    )


def _stem(name: str) -> str:
    """The name of a file without folders and ending, whatever separates them."""
    return last_part(name).rpartition(".")[0]


def _beside(file: Path) -> bool:
    """Whether an image beside a file has its name."""
    return any(file.with_suffix(suffix).is_file() for suffix in SUFFIXES)


def _outline(shape: Any, kind: object) -> Outline:
    if not isinstance(shape, dict):
        raise DataError(f"is {shown(shape)}; it takes a mapping", "bad_annotation")
    label, group = shape.get("label"), shape.get("group_id")
    if not isinstance(label, str):
        raise DataError(f"has the label {shown(label)}; it takes text", "bad_annotation")
    corners = flat(shape.get("points"))
    about = Outline(label=label, group=None if group is None else str(group))
    if kind in ("polygon", "rotation", "oriented_rectangle"):
        return replace(about, rings=(corners,))
    if kind not in ("rectangle", "circle", "mask"):
        raise DataError(
            f"has the type {shown(kind)}; polygon, rectangle, rotation, circle and mask are read: convert or remove it",
            "bad_polygon",
        )
    if kind == "rectangle" and len(corners) == 8:  # X-AnyLabeling gives all four corners
        return replace(about, rings=(corners,))
    if len(corners) != 4:
        raise DataError(f"is a {kind} of {len(corners) // 2} points; it takes two", "bad_polygon")
    x0, y0, x1, y1 = corners
    if kind == "circle":
        radius = hypot(x1 - x0, y1 - y0)
        return replace(about, rings=(ellipse(x0, y0, radius, radius),))
    if kind == "rectangle":
        return replace(about, rings=([x0, y0, x1, y0, x1, y1, x0, y1],))
    pixels = packed_bitmap(shape.get("mask"), zipped=False)
    return replace(about, bitmap=Bitmap(round(min(x0, x1)), round(min(y0, y1)), pixels))
