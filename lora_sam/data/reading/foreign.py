"""What labelling tools leave that no format reads: recognised by its keys, with the export that is read instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lora_sam.core.errors import DataError
from lora_sam.core.files import followed
from lora_sam.data.reading.annotation_files import any_json, ends_of
from lora_sam.data.reading.paths import shown

_MAX_JSON = 2**20  # bytes; of larger files nothing but words is looked at
_MAX_FILES = 20
_MAX_KEYS = 6


@dataclass(frozen=True)
class Foreign:
    """A file of a tool.

    Attributes:
        tool: Its name.
        ending: Of the file, in lower case.
        words: What its text has, all of them; keys in quotes.
        remedy: What to export instead.
    """

    tool: str
    ending: str
    words: tuple[str, ...]
    remedy: str = "export it as COCO with segmentation"


_BRUSH = re.compile(r"task-\d+-annotation-\d+-by-.*\.(?:png|npy)$", re.IGNORECASE)
_CONVERT = "convert it to COCO with segmentation"
_BOXES = "its boxes outline nothing: label masks"
_LABEL_IMAGES = "make a label image for each image, with a value for each ROI"
_REGIONS = "open it in QuPath and export GeoJSON, or make a label image for each image"
_TOOLS: Sequence[Foreign] = (
    Foreign("CVAT for video", ".xml", ("<track", "<annotations"), "export it as `CVAT for images` or COCO"),
    Foreign("V7 Darwin", ".json", ('"item"', '"slots"', '"annotations"'), "`darwin convert coco` makes COCO of it"),
    Foreign("V7 Darwin", ".json", ('"image"', '"seq"', '"annotations"'), "`darwin convert coco` makes COCO of it"),
    Foreign("SuperAnnotate", ".json", ('"metadata"', '"instances"', '"className"')),
    Foreign("SuperAnnotate", ".json", ('"metadata"', '"instances"', '"classId"')),
    Foreign("Labelbox", ".ndjson", ('"data_row"',), _CONVERT),
    Foreign("Labelbox", ".json", ('"data_row"', '"projects"'), _CONVERT),
    Foreign("Labelbox", ".json", ('"Labeled Data"',), _CONVERT),
    Foreign("Kili", ".json", ('"externalId"', '"jsonResponse"')),
    Foreign("Encord", ".json", ('"data_units"',)),
    Foreign("VGG Image Annotator 3", ".json", ('"project"', '"file"', '"metadata"', '"view"'),
            "export it as COCO, or label with VGG Image Annotator 2"),
    Foreign("Hasty", ".json", ('"label_classes"', '"export_format_version"'), "export it as COCO instances"),
    Foreign("Dataloop", ".json", ('"itemMetadata"',)),
    Foreign("Segments.ai", ".json", ('"samples"', '"label_status"'), "`segments-ai` exports it as COCO instances"),
    Foreign("Scale", ".json", ('"task_id"', '"params"', '"response"'), _CONVERT),
    Foreign("ISAT", ".json", ('"objects"', '"segmentation"', '"layer"'), "ISAT exports COCO of it"),
    Foreign("Label Studio, as a table", ".csv", ("original_width",), "export it as JSON"),
    Foreign("Label Studio, as a table", ".tsv", ("original_width",), "export it as JSON"),
    Foreign("CreateML", ".json", ('"coordinates"', '"annotations"', '"label"'), _BOXES),
    Foreign("masks as run lengths in a table", ".csv", ("EncodedPixels",), _CONVERT),
    Foreign("masks as run lengths in a table", ".csv", ("rle",), _CONVERT),
    Foreign("Darknet's YOLO", ".data", ("train", "names"), _BOXES),
    Foreign("ImageJ's ROI manager", ".zip", (".roi",), _LABEL_IMAGES),
    Foreign("ImageJ's ROI manager", ".roi", ("Iout",), _LABEL_IMAGES),
    Foreign("Aperio ImageScope", ".xml", ("<Annotation ", "<Regions"), _REGIONS),
    Foreign("ASAP", ".xml", ("<ASAP_Annotations",), _REGIONS),
    Foreign("YouTube-VIS", ".json", ('"videos"', '"segmentations"'), f"{_CONVERT}, each frame as an image"),
    Foreign("xView2", ".json", ('"features"', '"wkt"'), _CONVERT),
    Foreign("Pascal VOC with polygons in XML", ".xml", ("<bndbox", "<polygon")),
    Foreign("Pascal VOC boxes", ".xml", ("<bndbox",), _BOXES),
    Foreign("Pascal VOC without objects", ".xml", ("<annotation", "<filename", "<segmented"), "export it as COCO"),
)  # fmt: skip


def foreign_files(root: Path, paths: Sequence[str]) -> str:
    """What files of tools that are not read lie below a directory, and what to do with them; a sentence or nothing.

    Args:
        root: The directory.
        paths: Of files below it, relative.
    """
    named = next((path for path in paths if _BRUSH.search(path)), None)
    if named is not None:
        return (
            f"{named} is a brush mask of Label Studio, whose name says a task and no image, so it is not read: export "
            "it as JSON. "
        )
    endings = {foreign.ending for foreign in _TOOLS}
    looked = [path for path in paths if PurePosixPath(path).suffix.lower() in endings]
    first = sorted(looked, key=lambda path: path.count("/"))[:_MAX_FILES]
    texts = {path: ends_of(root / path) for path in first}
    for foreign in _TOOLS:
        for path, text in texts.items():
            if path.lower().endswith(foreign.ending) and all(word.encode() in text for word in foreign.words):
                return f"{path} is of {foreign.tool}, which is not read: {foreign.remedy}. "
    return ""


def unknown_keys(root: Path, paths: Iterable[str]) -> str:
    """What the first JSON file holds; a sentence or nothing."""
    file = next((root / path for path in paths if path.casefold().endswith(".json")), None)
    try:
        small = file is not None and followed(file).is_relative_to(root) and file.stat().st_size <= _MAX_JSON
        content = any_json(file) if small and file is not None else None
    except (DataError, OSError):
        return ""
    first = content[0] if isinstance(content, list) and content else content
    if file is None or not isinstance(first, dict) or not first:
        return ""
    keys = ", ".join(shown(key) for key in list(first)[:_MAX_KEYS])
    where = "entries with the keys" if isinstance(content, list) else "the keys"
    return f"{file.relative_to(root).as_posix()} has {where} {keys}, which are those of no format that is read. "
