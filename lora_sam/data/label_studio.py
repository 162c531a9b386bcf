"""Labels as Label Studio exports them: its own JSON, outlines in per cent and brush masks (https://labelstud.io)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lora_sam.core.errors import DataError
from lora_sam.core.files import last_part
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import whole
from lora_sam.data.reading.brush import brush_mask
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.numbers import as_float, is_number
from lora_sam.data.reading.outline import Bitmap, Outline, ellipse, flat
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, shown
from lora_sam.data.reading.tool_files import files_below, parsed, recognised
from lora_sam.data.splits import Splits

_SAYS = (b'"original_width"', b'"from_name"')
_SAYS_MIN = (b'"original_width"', b'"annotation_id"')  # JSON-MIN
_NO_AREA = ("rectangle", "rectanglelabels", "keypoint", "keypointlabels", "choices", "textarea", "rating", "vector",
            "vectorlabels", "relation", "number", "taxonomy", "labels")  # fmt: skip
_AREAS = ("polygon", "polygonlabels", "brush", "brushlabels", "ellipse", "ellipselabels")
_IMAGE_KEYS = ("image", "img", "$undefined$")
_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # of a file that was uploaded


@dataclass(frozen=True, kw_only=True)
class LabelStudio(FormatOptions):
    """An export as JSON or JSON-MIN, with the images below the root under their own names.

    Polygons, ellipses and brush masks are objects. Rectangles, key points and choices are no objects; they are counted.
    Of several annotations of an image the first counts that was not cancelled, before it one that is ground truth; a
    note says how many there were. Predictions are not read. Folders called train, val or test are splits.
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
    file = recognised(root, ".json", says=_SAYS) or recognised(root, ".json", says=_SAYS_MIN)
    return None if file is None else f"tasks of Label Studio in {file.relative_to(root)}"


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    for file in files_below(root, ".json"):
        try:
            content = parsed(file, root)
        except DataError as error:
            yield error
            continue
        for task in _tasks(content):
            try:
                yield from _pictures_of(task, file, root)
            except DataError as error:
                yield error


def _tasks(content: object) -> Iterator[Mapping[str, Any]]:
    """The tasks in a file: a list of them or one alone, an annotation with its task as storages get it, or JSON-MIN."""
    minimal: dict[str, dict[str, Any]] = {}
    for entry in content if isinstance(content, list) else [content]:
        if not isinstance(entry, dict):
            continue
        if isinstance(entry.get("task"), dict) and "result" in entry:
            entry = {"annotations": [entry], **entry["task"]}
        if isinstance(entry.get("data"), dict):
            yield entry
        elif "annotation_id" in entry:  # a line for each annotation
            task = minimal.setdefault(str(entry.get("id")), {"id": entry.get("id"), "data": entry, "annotations": []})
            task["annotations"].append({"result": _results(entry)})
    yield from minimal.values()


def _results(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results in a line of JSON-MIN: under the name of each control, values without what is around them."""
    found = []
    for name, values in entry.items():
        for value in values if isinstance(values, list) else ():
            if isinstance(value, dict) and "original_width" in value:
                kind = next((key for key in (*_AREAS, *_NO_AREA) if key in value), None)
                kind = kind or ("ellipse" if "radiusX" in value else "polygon" if "points" in value else "rectangle")
                sides = {key: value.get(key) for key in ("original_width", "original_height", "image_rotation")}
                found.append({"type": kind, "from_name": name, "value": value, **sides})
    return found


def _pictures_of(task: Mapping[str, Any], file: Path, root: Path) -> Iterator[Picture | DataError]:
    """What a task says of its image, or of each of several."""
    owner = f"{file}: task {task.get('id')}"
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):
        raise DataError(
            f"{owner} has the annotations {shown(annotations)}; it takes a list: export it as JSON again.",
            "bad_annotation",
        )
    kept = [entry for entry in annotations if isinstance(entry, dict) and not entry.get("was_cancelled")]
    kept.sort(key=lambda entry: entry.get("ground_truth") is not True)
    left_out: LeftOut = Counter()
    if len(kept) > 1:
        what = "annotations of images that have several were not used (the first was, or that of ground truth)"
        left_out["several_annotations", what] += len(kept) - 1
    results = kept[0].get("result") if kept else []
    if not isinstance(results, list):
        raise DataError(
            f"{owner} has the result {shown(results)}; it takes a list: export it as JSON again.", "bad_annotation"
        )
    for name, shapes in _by_image(task["data"], results, owner).items():
        try:
            yield _picture(name, shapes, owner, file, root, left_out)
        except DataError as error:
            yield error
        left_out = Counter()


def _by_image(data: Mapping[str, Any], results: list[Any], owner: str) -> dict[Any, list[Any]]:
    """The results of each image of a task, by the image's name.

    Results name the tag that they are drawn on, and not what that shows: with several images it is known only where
    the tags are called as the images.
    """
    drawn = [entry for entry in results if isinstance(entry, dict) and entry.get("type") in _AREAS]
    tags = {str(entry["to_name"]) for entry in drawn if entry.get("to_name") is not None}
    pages = {entry.get("item_index") for entry in drawn} - {None}
    images = {key: value for key, value in data.items() if isinstance(value, str) and _is_image(value)}
    if pages - {0}:
        raise DataError(
            f"{owner} has results on {len(pages)} pages of one list of images, which is not read; export a task for "
            "each image, or COCO.",
            "bad_annotation",
        )
    if tags and len(images) > 1 and tags <= set(images):
        return {images[tag]: [one for one in results if _is_on(one, tag)] for tag in sorted(tags)}
    named = next((data[key] for key in _IMAGE_KEYS if data.get(key) is not None), None)
    if (len(tags) > 1 and len(images) > 1) or (named is None and len(images) > 1 and drawn):
        raise DataError(
            f"{owner} has {len(images)} images ({', '.join(images)}) and results on "
            f"{', '.join(sorted(tags)) or 'one'}, and does not say which is which; call the "
            "tags in the labelling configuration as the images, or export COCO.",
            "bad_annotation",
        )
    texts = (value for value in data.values() if isinstance(value, str))
    name = named if named is not None else next(iter(images.values()), next(texts, None))
    return {name: results}


def _is_on(result: object, tag: str) -> bool:
    return isinstance(result, dict) and str(result.get("to_name")) == tag


def _is_image(name: str) -> bool:
    """Whether a text names an image, as a path or a URL."""
    return Path(urlsplit(name).path).suffix.lower() in SUFFIXES or name.rpartition(".")[2].lower() in {
        ending[1:] for ending in SUFFIXES
    }


def _picture(name: object, results: list[Any], owner: str, file: Path, root: Path, left_out: LeftOut) -> Picture:
    outlines: list[Outline | DataError] = []
    size: tuple[int, int] | None = None
    labels = _labels(results)
    for result in results:
        kind = result.get("type") if isinstance(result, dict) else None
        if kind in _NO_AREA:
            if not (kind == "labels" and labels.get(result.get("id"))):
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
            outline = _outline(result, str(kind), (height, width))
            outlines.append(replace(outline, label=outline.label or labels.get(result.get("id"))))
        except DataError as error:
            outlines.append(error)
    return Picture(
        owner=owner,
        image=name if not isinstance(name, str) or _there(root, name) else _PREFIX.sub("", Path(name).name),
        folders=(file.parent, file.parent / "images"),
        size=size,
        outlines=outlines,
        left_out=left_out,
        split=split_in(file, root),
        listed_in=file,
    )


def _labels(results: list[Any]) -> dict[object, str]:
    """Classes of outlines by their id, where shape and class are results of their own: <Polygon> beside <Labels>."""
    shapes = {
        entry["id"] for entry in results if isinstance(entry, dict) and entry.get("type") in _AREAS and _has_id(entry)
    }
    found: dict[object, str] = {}
    for entry in results:
        if isinstance(entry, dict) and entry.get("type") == "labels" and _has_id(entry) and entry["id"] in shapes:
            value = entry.get("value")
            label = _first_label(value, "labels") if isinstance(value, dict) else None
            if label is not None:
                found[entry["id"]] = label
    return found


def _has_id(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("id"), str | int)


def _first_label(value: Mapping[str, Any], kind: str) -> str | None:
    labels = value.get(kind, value.get("labels"))
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else None


def _there(root: Path, name: str) -> bool:
    """Whether a file of that name may be under the root: an upload's has a prefix that the user's own file lacks."""
    base = last_part(name)
    return _PREFIX.match(base) is None or next(root.rglob(base.replace("[", "?").replace("*", "?")), None) is not None


def _outline(result: dict[str, Any], kind: str, size: tuple[int, int]) -> Outline:
    value = result.get("value")
    if not isinstance(value, dict):
        raise DataError(f"has the value {shown(value)}; it takes a mapping", "bad_annotation")
    height, width = size
    label = _first_label(value, kind)
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
