"""What only the JSON of Datumaro can tell: boxes beside the masks of the same object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.core.structures import tight_boxes
from lora_sam.data.check.defects import Finding
from lora_sam.data.check.samples import Look, corners, fits, mismatch
from lora_sam.data.datumaro_json import ANNOTATIONS, DEFAULT_SUBSET, DatumaroJson
from lora_sam.data.reading.annotation_files import identifier_of, parsed_json
from lora_sam.data.reading.datumaro_objects import labels_of, read_objects
from lora_sam.data.reading.paths import inside
from lora_sam.data.reading.skipping import Ledger

_OUTLINES = ("mask", "polygon", "ellipse")


def findings_in_datumaro(config: DatumaroJson, root: Path, looks: Sequence[Look]) -> Iterator[Finding]:
    """Boxes that do not fit the masks, polygons or ellipses of the same group and label, or of the same id.

    Args:
        config: Where the annotation files are.
        root: The data root without symbolic links.
        looks: Every sample that was looked at.
    """
    known = {look.id: look for look in looks}
    names = [split for split in (config.train, config.val, config.test) if split is not None]
    for split in dict.fromkeys([*names, DEFAULT_SUBSET]):
        with suppress(DataError):  # its reader has said so
            file = inside(root, f"{ANNOTATIONS}/{split}.json", "data.train, data.val or data.test")
            if file.exists():
                content = parsed_json(file, ("items",), "Datumaro's JSON")
                labels = labels_of(content.get("categories"), file.name)
                for item in content["items"]:
                    look = _look_of(item, split, known)
                    if look is not None:
                        yield from _boxes(item["annotations"], look, labels)


def _look_of(item: Any, split: str, known: dict[str, Look]) -> Look | None:
    """The sample of an item that has a list of annotations, if it was looked at."""
    if not isinstance(item, dict) or not isinstance(item.get("annotations"), list):
        return None
    image, name = item.get("image"), identifier_of(item, "id")
    if not isinstance(image, dict):
        return None
    path = image.get("path") or f"{name}.jpg"
    places = (f"images/{split}/{path}", f"images/{path}")
    return next((known[place] for place in places if place in known), None)


def _boxes(annotations: list[Any], look: Look, labels: Sequence[str]) -> Iterator[Finding]:
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    outlines = [entry for entry in entries if entry.get("type") in _OUTLINES]
    for entry in entries:
        stated = corners(entry.get("bbox")) if entry.get("type") == "bbox" else None
        parts = [] if stated is None else _of_the_same(entry, outlines)
        if stated is None or not parts:
            continue
        with suppress(DataError):
            objects = read_objects(
                parts, look.size, labels, look.id, min_area=1, ledger=Ledger("raise", 0.0), left_out=Counter()
            )
            if len(objects.ids) != 1:  # which of several objects the box means cannot be told
                continue
            tight = tight_boxes(objects.masks.read(look.size))[0]
            # readers give new names where ids are not unique, so the object is found by its mask
            found = [name for name, box in zip(look.object_ids, look.boxes, strict=True) if (box == tight).all()]
            if found and not fits(stated, tight):
                yield mismatch(look, found[0], stated)


def _of_the_same(box: dict[str, Any], outlines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outlines that are the same object as a box: of its group and label; of its id where it has no group."""
    group, name, label = box.get("group"), identifier_of(box, "id"), box.get("label_id")
    if group:
        return [one for one in outlines if one.get("group") == group and label in (None, one.get("label_id"))]
    return [one for one in outlines if name not in (None, "0") and identifier_of(one, "id") == name]
