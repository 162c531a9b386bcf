"""Which of many masks are one object: how stable they are, and how they and their boxes overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def stability_of(logits: NDArray[np.float32], offset: float) -> NDArray[np.float32]:
    """IoU of each mask of [N, H, W] at the logits +offset and -offset; 0 for a mask that is empty at both."""
    found: NDArray[np.float32] = stabilities_of(logits, (offset,))[0]
    return found


def stabilities_of(logits: NDArray[np.float32], offsets: Sequence[float]) -> NDArray[np.float32]:
    """`stability_of` N masks at each of several offsets, float32 [offsets, N]."""
    widest = -max(offsets)
    found = np.zeros((len(offsets), len(logits)), np.float32)
    for row, mask in enumerate(logits):
        outermost = mask > widest
        down, across = np.flatnonzero(outermost.any(axis=1)), np.flatnonzero(outermost.any(axis=0))
        if not len(down):
            continue
        part = mask[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
        for place, offset in enumerate(offsets):
            inner, outer = np.count_nonzero(part > offset), np.count_nonzero(part > -offset)
            found[place, row] = inner / outer if outer else 0
    return found


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """Non-maximum suppression: indices by falling score, without boxes that overlap a better one by an IoU above."""
    order = np.argsort(-scores, kind="stable")
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        kept.append(best)
        sides = np.minimum(boxes[order, 2:], boxes[best, 2:]) - np.maximum(boxes[order, :2], boxes[best, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        union = area[order] + area[best] - shared
        # two boxes without area share nothing
        order = order[~(shared > overlap * union)]
    return np.array(kept, np.intp)


def different(iou_of: Callable[[int], NDArray[np.floating[Any]]], count: int, overlap: float) -> NDArray[np.intp]:
    """Places of those of `count` masks, the better first, that overlap no better one that is left by an IoU above.

    Args:
        iou_of: IoU of the mask at a place with all that come after it.
        count: Number of masks.
        overlap: The highest IoU of two objects.
    """
    left = np.ones(count, np.bool_)
    for place in range(count):
        if left[place]:
            left[place + 1 :] &= iou_of(place) <= overlap
    return np.flatnonzero(left)


def iou_of_bits(packed: NDArray[np.uint8], boxes: NDArray[np.float32], place: int) -> NDArray[np.float64]:
    """IoU of the mask at a place with all that come after it; 0 of two empty ones.

    Args:
        packed: The masks as bits, [N, bytes].
        boxes: `boxes_within` them, [N, 4]; only masks whose boxes meet are compared.
        place: Which mask.
    """
    found = np.zeros(len(packed) - place - 1)
    box, others = boxes[place], boxes[place + 1 :]
    (near,) = np.nonzero((others[:, :2] <= box[2:]).all(axis=1) & (others[:, 2:] >= box[:2]).all(axis=1))
    one, rest = packed[place], packed[place + 1 :][near]
    shared = _BITS[rest & one].sum(axis=1, dtype=np.int64)
    union = _BITS[rest | one].sum(axis=1, dtype=np.int64)
    found[near] = shared / np.maximum(union, 1)
    return found


def boxes_within(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """XYXY of the first and last pixel of each mask (as Segment Anything measures overlap), zeros for an empty one."""
    rows: NDArray[np.bool_] = np.any(masks, axis=2)
    columns: NDArray[np.bool_] = np.any(masks, axis=1)
    height, width = masks.shape[1:]
    boxes = np.stack(
        [
            columns.argmax(axis=1),
            rows.argmax(axis=1),
            width - 1 - columns[:, ::-1].argmax(axis=1),
            height - 1 - rows[:, ::-1].argmax(axis=1),
        ],
        axis=1,
    ).astype(np.float32)
    boxes[~np.any(rows, axis=1)] = 0
    return boxes
