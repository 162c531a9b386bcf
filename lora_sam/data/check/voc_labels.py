"""What only the annotations of Pascal VOC can tell: boxes of the objects that have masks in `SegmentationObject`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.files import without_ending
from lora_sam.data.check.defects import Finding
from lora_sam.data.check.samples import Look, fits, mismatch
from lora_sam.data.reading.class_table import VOID, VOID_COLOUR, colour_codes
from lora_sam.data.reading.images import pixel_kind
from lora_sam.data.reading.mask_values import read_mask
from lora_sam.data.reading.paths import inside
from lora_sam.data.reading.voc_xml import MAX_XML_BYTES
from lora_sam.data.voc import ANNOTATIONS, IMAGES, OBJECTS, Voc, masks_folder

VOID_PIXELS = 5.0
"""Masks with an edge that belongs to nothing (255) end so many pixels inside their boxes, as those of VOC2012 do."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def findings_in_voc(config: Voc, root: Path, looks: Sequence[Look]) -> Iterator[Finding]:
    """Boxes in `Annotations` that do not fit the masks in `SegmentationObject`.

    Object n of an annotation is that of index n in the mask (VOC2012 devkit, section 3). Tools that write another order
    are met by looking for any box that fits: only an object whose own box is wrong, and whose mask no other box of its
    image fits, is found.

    Args:
        config: Where the annotations are.
        root: The data root without symbolic links.
        looks: Every sample that was looked at.
    """
    if config.instances not in ("auto", "objects") or not (root / OBJECTS).is_dir():
        return
    for look in looks:
        identifier = without_ending(PurePosixPath(look.id).relative_to(IMAGES).as_posix())
        with suppress(DataError):  # its reader has said so
            annotation = inside(root, f"{ANNOTATIONS}/{identifier}.xml", look.id)
            mask = inside(root, f"{masks_folder(root, OBJECTS)}/{identifier}.png", look.id)
            yield from _beside(look, _boxes(annotation), mask)


def _beside(look: Look, boxes: Sequence[NDArray[np.float64] | None], mask: Path) -> Iterator[Finding]:
    known = [box for box in boxes if box is not None]

    def alone(slack: float) -> list[tuple[str, NDArray[np.float64]]]:
        """Objects with a box of their own, whose masks no box fits."""
        found = []
        for name, tight in zip(look.object_ids, look.boxes, strict=True):
            place = int(name) - 1 if name.isdecimal() else -1
            own = boxes[place] if 0 <= place < len(boxes) else None
            if own is not None and not any(fits(box, tight, slack) for box in known):
                found.append((name, own))
        return found

    # most fit at once, so that masks need not be read again
    if alone(0.0):
        for name, own in alone(VOID_PIXELS if _has_void(mask) else 0.0):
            yield mismatch(look, name, own)


def _boxes(annotation: Path) -> list[NDArray[np.float64] | None]:
    """XYXY of each object of an annotation in order, None for one that states none; empty where there is none to read.

    The pixel frame of VOC begins at 1 and ends with the last pixel; tools write frames that begin at 0. The two differ
    by less than boxes may be off.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        if not annotation.is_file() or annotation.stat().st_size > MAX_XML_BYTES:
            return []
        objects = fromstring(annotation.read_bytes(), forbid_dtd=True).findall("object")
    except (OSError, DefusedXmlException, ParseError, ValueError, LookupError):
        return []
    found: list[NDArray[np.float64] | None] = []
    for entry in objects:
        try:
            box = np.array([float(entry.findtext(f"bndbox/{side}", "")) for side in _SIDES])
        except ValueError:
            found.append(None)
            continue
        found.append(box if np.isfinite(box).all() else None)
    return found


def _has_void(mask: Path) -> bool:
    coloured = pixel_kind(mask) == "colour"
    values = colour_codes(mask) if coloured else read_mask(mask)
    return bool((values == (VOID_COLOUR if coloured else VOID)).any())
