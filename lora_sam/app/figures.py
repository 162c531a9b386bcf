"""Numbers of a comparison: per object and model, and what belongs to what in the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lora_sam.app.comparison import Comparison
from lora_sam.app.patches import Patch, dice, iou
from lora_sam.app.pictures import Picture
from lora_sam.prompts.objects import ObjectPrompts

_SAME_BOX = 0.1  # boxes that share less are of different objects


def true_object(one: ObjectPrompts, picture: Picture) -> int | None:
    """Which labelled object a prompt means: the one whose tight box fits its box best, or the smallest one under its
    first foreground point; None where there is none.
    """
    if one.box is not None and len(picture.boxes):
        box, boxes = np.array(one.box), picture.boxes
        sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        overlap = shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)
        best = int(overlap.argmax())
        return best if overlap[best] >= _SAME_BOX else None
    for x, y, label in one.points:
        if label == 1:
            row, column = int(y * picture.scale[1]), int(x * picture.scale[0])
            under = [index for index, patch in enumerate(picture.truth) if _holds(patch, row, column)]
            return min(under, key=lambda index: picture.truth[index].area) if under else None
    return None


def table(comparison: Comparison) -> list[dict[str, Any]]:
    """A row per object, ready for JSON.

    Keys: `object`, `truth` (whether there is a label), `label` (its place in the truth), and `columns`: a mapping per
    model with `score` (IoU as the model predicts it), `area` in pixels of the original, `iou` with the truth, `dice`
    with the base's mask; each None where there is no such number.
    """
    picture = comparison.picture
    per_pixel = 1 / (picture.scale[0] * picture.scale[1])
    rows = []
    for place, one in enumerate(comparison.objects):
        index = true_object(one, picture)
        truth = None if index is None else picture.truth[index]
        base = comparison.columns[0].patches[place]
        cells = []
        for column in comparison.columns:
            patch = column.patches[place]
            cells.append(
                {
                    "score": column.scores[place],
                    "area": None if patch is None else round(patch.area * per_pixel),
                    "iou": None if patch is None or truth is None else iou(patch, truth),
                    "dice": None if patch is None or base is None else dice(base, patch),
                }
            )
        rows.append({"object": place + 1, "truth": index is not None, "label": index, "columns": cells})
    return rows


def means(rows: Sequence[dict[str, Any]], count: int) -> list[float | None]:
    """Mean IoU with the truth by column, over the objects that have one; None without any."""
    made: list[float | None] = []
    for column in range(count):
        known = [value for row in rows if (value := row["columns"][column]["iou"]) is not None]
        made.append(sum(known) / len(known) if known else None)
    return made


def _holds(patch: Patch, row: int, column: int) -> bool:
    y, x = row - patch.y, column - patch.x
    height, width = patch.mask.shape
    return 0 <= y < height and 0 <= x < width and bool(patch.mask[y, x])
