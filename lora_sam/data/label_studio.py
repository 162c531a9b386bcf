"""Labels as Label Studio exports them: its own JSON, outlines in per cent and brush masks (https://labelstud.io)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import whole
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.numbers import as_float, is_number
from lora_sam.data.reading.outline import Bitmap, Outline, ellipse, flat
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, shown
from lora_sam.data.reading.tool_files import files_below, parsed, recognised
from lora_sam.data.splits import Splits

_SAYS = (b'"original_width"', b'"from_name"')
_NO_AREA = ("rectangle", "rectanglelabels", "keypoint", "keypointlabels", "choices", "textarea", "rating", "vector",
            "vectorlabels", "relation", "number", "taxonomy", "labels")  # fmt: skip
_AREAS = ("polygon", "polygonlabels", "brush", "brushlabels", "ellipse", "ellipselabels")
_CHANNELS = 4  # of a brush mask; the last is the mask
_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # of a file that was uploaded


@dataclass(frozen=True, kw_only=True)
class LabelStudio(FormatOptions):
    """A JSON export, with the images below the root under their own names.

    Polygons, ellipses and brush masks are objects. Rectangles, key points and choices are no objects; they are counted.
    Of several annotations of an image the first counts that was not cancelled; a note says how many there were.
    Predictions are not read. Folders called train, val or test are splits.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the task and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="Label Studio's JSON")


LAYOUT = "Label Studio: its JSON"
NEEDS = ("*.<image>", '*.json with "data"')
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = recognised(root, ".json", says=_SAYS)
    return None if file is None else f"tasks of Label Studio in {file.relative_to(root)}"


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    for file in files_below(root, ".json"):
        try:
            content = parsed(file, root)
        except DataError as error:
            yield error
            continue
        tasks = [content] if isinstance(content, dict) and "data" in content else content
        if not isinstance(tasks, list):
            continue
        for task in tasks:
            if isinstance(task, dict) and isinstance(task.get("data"), dict):
                try:
                    yield _picture(task, file, root)
                except DataError as error:
                    yield error


def _picture(task: dict[str, Any], file: Path, root: Path) -> Picture:
    owner = f"{file}: task {task.get('id')}"
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):
        raise DataError(
            f"{owner} has the annotations {shown(annotations)}; it takes a list: export it as JSON again.",
            "bad_annotation",
        )
    kept = [entry for entry in annotations if isinstance(entry, dict) and not entry.get("was_cancelled")]
    left_out: LeftOut = Counter()
    if len(kept) > 1:
        left_out["several_annotations", "annotations of images that have several were not used (the first was)"] += (
            len(kept) - 1
        )
    results = kept[0].get("result") if kept else []
    if not isinstance(results, list):
        raise DataError(
            f"{owner} has the result {shown(results)}; it takes a list: export it as JSON again.", "bad_annotation"
        )
    outlines: list[Outline | DataError] = []
    size: tuple[int, int] | None = None
    for result in results:
        kind = result.get("type") if isinstance(result, dict) else None
        if kind in _NO_AREA:
            left_out["no_outline", f"results of type {kind} outline nothing"] += 1
            continue
        try:
            if not isinstance(result, dict) or kind not in _AREAS:
                raise DataError(
                    f"has the type {shown(kind)}; polygons, ellipses and brush masks are read", "bad_polygon"
                )
            height, width = whole(result.get("original_height")), whole(result.get("original_width"))
            if height is None or width is None or height * width > MAX_PIXELS:
                raise DataError(
                    "has no original_width and original_height in pixels; export it as JSON again", "bad_annotation"
                )
            if result.get("image_rotation"):
                raise DataError(
                    f"was drawn on an image turned by {result['image_rotation']} degrees; turn the file itself",
                    "bad_annotation",
                )
            size = height, width
            outlines.append(_outline(result, str(kind), (height, width)))
        except DataError as error:
            outlines.append(error)
    name = _image_name(task["data"])
    return Picture(
        owner=owner,
        image=name if not isinstance(name, str) or _there(root, name) else _PREFIX.sub("", Path(name).name),
        folders=(file.parent, file.parent / "images"),
        size=size,
        outlines=outlines,
        left_out=left_out,
        split=split_in(file, root),
    )


def _image_name(data: dict[str, Any]) -> object:
    named = data.get("image", data.get("img", data.get("$undefined$")))
    return named if named is not None else next((value for value in data.values() if isinstance(value, str)), None)


def _there(root: Path, name: str) -> bool:
    """Whether a file of that name may be under the root: an upload's has a prefix that the user's own file lacks."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return _PREFIX.match(base) is None or next(root.rglob(base.replace("[", "?").replace("*", "?")), None) is not None


def _outline(result: dict[str, Any], kind: str, size: tuple[int, int]) -> Outline:
    value = result.get("value")
    if not isinstance(value, dict):
        raise DataError(f"has the value {shown(value)}; it takes a mapping", "bad_annotation")
    height, width = size
    labels = value.get(kind, value.get("labels"))
    label = labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else None
    name = str(result.get("id") or "")
    if kind.startswith("polygon"):
        corners = flat(value.get("points"))
        scaled = [number * (width, height)[place % 2] / 100 for place, number in enumerate(corners)]
        return Outline(name=name, label=label, rings=(scaled,))
    if kind.startswith("ellipse"):
        numbers = [value.get(key) for key in ("x", "y", "radiusX", "radiusY")]
        if not all(is_number(number) for number in (*numbers, value.get("rotation", 0))):
            raise DataError(f"is an ellipse with {shown(value)}; it takes numbers", "bad_polygon")
        x, y, across, down = (as_float(number) / 100 for number in numbers)  # type: ignore[arg-type]
        ring = ellipse(x * width, y * height, across * width, down * height, as_float(value.get("rotation", 0)))
        return Outline(name=name, label=label, rings=(ring,))
    if value.get("format") != "rle":
        raise DataError(f"has a brush mask in the format {shown(value.get('format'))}; it takes rle", "bad_rle")
    pixels = brush_mask(value.get("rle"), size)
    return Outline(name=name, label=label, bitmap=Bitmap(0, 0, pixels))


def brush_mask(packed: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A brush mask out of Label Studio's bytes: bool [H, W], where the last of four channels is not 0.

    The bits are those of the package rle-pack of thi.ng: 32 for the number of values, 5 for their width less 1, four
    times 4 for the widths of run lengths less 1; then for each run one bit (whether one value repeats), two that choose
    the width of its length, the length less 1, and the value or the values.

    Raises:
        DataError: it is damaged, or of another size; does not name the object.
    """
    height, width = size
    if (
        not isinstance(packed, list)
        or len(packed) > 8 * _CHANNELS * height * width + 64
        or not all(type(value) is int and 0 <= value < 256 for value in packed)
    ):
        raise DataError(f"has the brush mask {shown(packed)}; it takes a list of bytes", "bad_rle")
    bits = np.unpackbits(np.array(packed, np.uint8))
    weights = (1 << np.arange(32, dtype=np.int64))[::-1]
    place = 0

    def read(count: int) -> int:
        nonlocal place
        part = bits[place : place + count]
        if len(part) < count:
            raise DataError("has a brush mask that is cut short; export it again", "bad_rle")
        place += count
        return int(part @ weights[-count:])

    total = read(32)
    if total != _CHANNELS * height * width:
        raise DataError(
            f"has a brush mask of {total} values; {width}x{height} pixels have {_CHANNELS * height * width}", "bad_rle"
        )
    word = read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.int64)
    done = 0
    while done < total:
        repeats = read(1)
        length = read(widths[read(2)]) + 1
        if done + length > total:
            raise DataError("has a brush mask whose runs are longer than its image; export it again", "bad_rle")
        if repeats:
            values[done : done + length] = read(word)
        else:
            part = bits[place : place + length * word]
            if len(part) < length * word:
                raise DataError("has a brush mask that is cut short; export it again", "bad_rle")
            values[done : done + length] = part.reshape(length, word) @ weights[-word:]
            place += length * word
        done += length
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0
