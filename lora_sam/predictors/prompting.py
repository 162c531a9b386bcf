"""Prompts as people write them, as plain lists, checked against the image."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.structures import Prompts
from lora_sam.prompts.objects import are_shares

_NOTES = logging.getLogger(__name__)
_LEAST_SIDE = 16  # of an image on which coordinates below 1 are noted


def prompts_from(
    boxes: ArrayLike | None,
    points: ArrayLike | None,
    labels: ArrayLike | None,
    size: tuple[int, int],
    mask_inputs: ArrayLike | None = None,
    mask_side: int | None = None,
) -> Prompts:
    """Checked prompts for an image of `size` = (height, width), given as plain lists.

    Points [N, 2] are N objects, not N points of one object as `SamPredictor` takes them: where labels tell foreground
    from background, so that one object is likely to be meant, a note says so.

    Args:
        boxes: XYXY in pixels, [N, 4] or one box [4].
        points: (x, y) in pixels: one point per object [N, 2], or K per object [N, K, 2].
        labels: 1 foreground, 0 background, -1 padding: [N] for one point per object; [N, K] for K of them, or [K] for
            the same in every object. All foreground if left out.
        size: (height, width) of the image.
        mask_inputs: `Masks.low_res_logits` of an earlier answer for the same N objects, to be improved: [N, M, M], or
            [N, 1, M, M] as `SamPredictor` has them.
        mask_side: What M has to be, S/4 of the model; None takes any.

    Raises:
        DataError: neither boxes nor points, shapes that do not fit, or coordinates outside the image.
    """
    if boxes is None and points is None and mask_inputs is not None:
        raise DataError("mask_inputs without a prompt: give the boxes or points they were predicted from as well")
    if boxes is None and points is None:
        raise DataError("no prompt: give boxes=[[x1, y1, x2, y2], ...] or points=[[x, y], ...]")
    if points is None and labels is not None:
        raise DataError("labels without points: give points=[[x, y], ...] as well, or leave labels out")
    box_array = None if boxes is None else _as_boxes(boxes, size)
    if points is None:
        assert box_array is not None
        return Prompts(boxes=box_array, mask_inputs=_as_masks(mask_inputs, len(box_array), mask_side))
    point_array = _as_points(points)
    label_array = _as_labels(labels, point_array.shape[:2])
    if np.ndim(points) == 2 and box_array is None and {0, 1} <= set(label_array.ravel().tolist()):
        _NOTES.warning(
            "points of shape [%d, 2] are %d objects with one point each; several points of one object are "
            "points=[[[x, y], [x, y]]], labels=[[1, 0]]",
            *[len(point_array)] * 2,
        )
    inside = ((point_array >= 0) & (point_array <= size[::-1])).all(axis=2)
    for row, column in np.argwhere(~inside & (label_array >= 0)):
        raise DataError(f"point {point_array[row, column].tolist()} of object {row} lies outside {_described(size)}")
    if box_array is not None and len(box_array) != len(point_array):
        raise DataError(
            f"{len(box_array)} boxes and points for {len(point_array)} objects: give the same number of both; "
            "several points of one object have shape [1, K, 2]"
        )
    masks = _as_masks(mask_inputs, len(point_array), mask_side)
    return Prompts(boxes=box_array, points=point_array, labels=label_array, mask_inputs=masks)


def checked(prompts: Prompts, size: tuple[int, int]) -> Prompts:
    """The prompts as they are, once it is known that a model can make sense of them; every predictor asks first.

    Boxes that reach over the edge stay as they are: objects cut by the edge are found better so. What is likely a
    mistake, though not surely one, is noted in the log: background points alone, coordinates that look like fractions.

    Args:
        prompts: N prompts; no boxes are rows of NaN.
        size: (height, width) of the image.

    Raises:
        DataError: a box with x1 > x2 or y1 > y2, or outside the image; a label other than 1, 0 and -1; coordinates that
            are not finite; an object with neither a box nor a point.
    """
    boxed = np.zeros(len(prompts), np.bool_) if prompts.boxes is None else ~np.isnan(prompts.boxes).all(axis=1)
    coordinates: list[NDArray[np.float32]] = []
    if prompts.boxes is not None:
        given = prompts.boxes[boxed]
        for row, box in zip(np.flatnonzero(boxed), given.tolist(), strict=True):
            _check_box(int(row), box, size, may_be_line=True)
        coordinates.append(given.reshape(-1))
    if prompts.points is not None and prompts.labels is not None:
        _check_labels(prompts.labels)
        counts = prompts.labels >= 0
        if not np.isfinite(prompts.points[counts]).all():
            raise DataError("points hold NaN or infinity, must be finite numbers")
        coordinates.append(prompts.points[counts].reshape(-1))
        for row in np.flatnonzero(~boxed & ~counts.any(axis=1)):
            raise DataError(f"object {row} has neither a box nor a point: all its labels are -1 (padding)")
        for row in np.flatnonzero(~boxed & ~(prompts.labels == 1).any(axis=1)):
            _NOTES.warning("object %d has background points alone (label 0), which show no object; add one with 1", row)
    elif not boxed.all():
        raise DataError(f"object {int(np.flatnonzero(~boxed)[0])} has neither a box nor a point")
    if are_shares(np.concatenate(coordinates)) and max(size) >= _LEAST_SIDE:
        _NOTES.warning("all coordinates lie between 0 and 1; they are pixels here, of %s", _described(size))
    return prompts


def _check_box(row: int, box: list[float], size: tuple[int, int], *, may_be_line: bool = False) -> None:
    x1, y1, x2, y2 = box
    corners = f"box {row} is [{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    if not np.isfinite(box).all():
        raise DataError(f"{corners}, must be finite numbers")
    if x1 > x2 or y1 > y2 or (not may_be_line and (x1 == x2 or y1 == y2)):
        raise DataError(f"{corners}, must be x1, y1, x2, y2 with x1 < x2 and y1 < y2 (not width and height)")
    if x1 >= size[1] or y1 >= size[0] or x2 <= 0 or y2 <= 0:
        raise DataError(f"{corners} and lies outside {_described(size)}")


def _check_labels(labels: NDArray[np.generic]) -> None:
    for wrong in labels[~np.isin(labels, (-1, 0, 1))]:
        raise DataError(f"label {wrong:g} is unknown, must be 1 (foreground), 0 (background) or -1 (padding)")


def _as_boxes(values: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    boxes = _numbers("boxes", values)
    boxes = boxes.reshape(0, 4) if boxes.shape == (0,) else np.atleast_2d(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"boxes have shape {list(boxes.shape)}, must be [N, 4] as x1, y1, x2, y2 in pixels")
    for row, box in enumerate(boxes.tolist()):
        _check_box(row, box, size)
    return boxes


def _as_points(values: ArrayLike) -> NDArray[np.float32]:
    """Points [N, K, 2]."""
    points = _numbers("points", values)
    given = list(points.shape)
    if points.shape == (0,):
        points = points.reshape(0, 1, 2)
    if points.ndim == 2:
        points = points[:, None]
    if points.ndim != 3 or points.shape[2] != 2 or points.shape[1] == 0:
        raise DataError(f"points have shape {given}, must be [N, 2] or [N, K, 2] as x, y in pixels")
    return points


def _as_labels(values: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Labels for K points of each of N objects, `shape` = (N, K)."""
    if values is None:
        return np.ones(shape, np.int64)
    labels = _numbers("labels", values)
    given = list(labels.shape)
    objects, points = shape
    if labels.ndim == 1:
        labels = labels[:, None] if points == 1 else np.tile(labels, (objects, 1))
    if labels.shape != shape:
        allowed = f"[{objects}]" if points == 1 else f"[{objects}, {points}] or, the same for every object, [{points}]"
        raise DataError(f"labels have shape {given}, must be {allowed}: one for each point")
    _check_labels(labels)
    return labels.astype(np.int64)


def _as_masks(values: ArrayLike | None, objects: int, side: int | None) -> NDArray[np.float32] | None:
    """Logits [N, M, M]."""
    if values is None:
        return None
    masks = _numbers("mask_inputs", values)
    given = list(masks.shape)
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    wanted = masks.shape[-1] if side is None and masks.ndim else side
    if masks.shape != (objects, wanted, wanted):
        last = "M, M" if side is None else f"{side}, {side}"
        raise DataError(
            f"mask_inputs have shape {given}, must be [{objects}, {last}] or [{objects}, 1, {last}]: low_res_logits of "
            "an earlier answer for the same objects"
        )
    if (masks == 1).any() and np.isin(masks, (0, 1)).all():
        raise DataError(
            "mask_inputs are masks of 0 and 1, must be logits, above 0 on the object: low_res_logits of an earlier "
            "answer"
        )
    return masks


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    if hasattr(values, "detach"):  # a tensor, on any device and of any type, bfloat16 too
        values = values.detach().cpu().double().numpy()
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(values, dtype=np.float64).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be numbers, in rows of equal length: {error}") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"{name} hold NaN or infinity, must be finite numbers")
    return numbers


def size_of(image: NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) of an image. Raises `DataError` unless it is uint8 RGB."""
    remedy = "must be a NumPy array, uint8 [H, W, 3] in RGB order; lora_sam.read_image reads a file so"
    if not isinstance(image, np.ndarray):
        raise DataError(f"image is a {type(image).__name__}, {remedy}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"image has dtype {image.dtype} and shape {list(image.shape)}, {remedy}")
    return image.shape[0], image.shape[1]


def _described(size: tuple[int, int]) -> str:
    return f"the image of {size[1]} x {size[0]} pixels (width x height)"
