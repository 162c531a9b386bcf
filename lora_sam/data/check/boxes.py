"""Boxes that label files state, against the masks beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.check.defects import Finding, of_object
from lora_sam.data.check.samples import Look

BOX_PIXELS, BOX_SHARE = 2.0, 0.05
"""A side of a box is off by more than so many pixels, and by more than this share of the box's width or height."""

Box = NDArray[np.floating[Any]]
"""XYXY in pixels of the image, [4]."""


def numbers(values: object) -> NDArray[np.float64] | None:
    """A list of finite numbers from JSON, float64 [K]; None for anything else."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return None
    try:
        found = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return found if np.isfinite(found).all() else None


def corners(values: object) -> NDArray[np.float64] | None:
    """[x, y, width, height] from JSON as XYXY, float64 [4]; None for anything else."""
    stated = numbers(values)
    if stated is None or len(stated) != 4:
        return None
    return np.array([*stated[:2], *(stated[:2] + stated[2:])])


def fits(stated: Box, tight: Box, slack: float = 0.0) -> bool:
    """Whether a stated box is that of a mask.

    Args:
        stated: The box in the label file.
        tight: The tight box of the mask.
        slack: So many pixels the mask may be smaller on each side, where its edge belongs to nothing.
    """
    sides = np.tile(tight[2:] - tight[:2], 2)
    inwards = (tight - stated) * np.array([1, 1, -1, -1])
    allowed = np.maximum(BOX_PIXELS, BOX_SHARE * sides)
    return bool((inwards >= -allowed).all() and (inwards <= allowed + slack).all())


def mismatch(look: Look, object_id: str, stated: Box) -> Finding:
    """The finding for a box that does not fit the mask of an object of a sample."""
    tight = look.boxes[look.object_ids.index(object_id)].astype(float)
    name = of_object(look.id, object_id)
    texts = (", ".join(f"{side:g}" for side in sides) for sides in (np.round(stated, 1), tight))
    detail = "{} has the box ({}), its mask ({})".format(name, *texts)
    return Finding("box_mask_mismatch", name, detail, look.id, (object_id,))
