"""Prompts on images larger than the model's input: each is looked at in a window around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import Crop
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.core.predictor import Predictor
from lora_sam.core.structures import Prompts
from lora_sam.core.tile_grid import LEAST_TILE, Box
from lora_sam.predictors.prompting import size_of
from lora_sam.predictors.tiles import Label, is_cut

_LARGEST = 2**24
"""Pixels of a window that doubles; a mask of its size is made in full."""

_PIXELS_AT_ONCE = 2**27
"""Pixels of a window times prompts in it."""


def prompted_in_tiles(
    predictor: Predictor,
    image: NDArray[np.uint8],
    prompts: Prompts,
    *,
    tile: int,
    multimask: bool = False,
    label: Label | None = None,
) -> tuple[list[Crop | None], NDArray[np.float32], list[str]]:
    """One mask for each of N prompts, from the window around it at the image's own scale.

    A window is `tile` wide and high and has the prompt in its middle, as far as the image reaches. A prompt that fills
    more than two thirds of that gets a window of one and a half times its extent, which the model sees smaller. Points
    do not say how large their object is: while its mask reaches an edge of the window inside the image, the window
    doubles, up to `_LARGEST` pixels.

    Returns:
        N crops in the frame of the image, None for an empty mask; the predicted IoU, float32 [N]; and what `label` says
        of each, empty texts without.

    Raises:
        ConfigError: a tile of fewer than 32 pixels.
        DataError: the image is not uint8 RGB, a prompt is none, or has a mask as input, which belongs to another frame.
    """
    size = size_of(image)
    if tile < LEAST_TILE:
        raise ConfigError(f"tile={tile}: must be at least {LEAST_TILE} pixels")
    crops: list[Crop | None] = [None] * len(prompts)
    scores, labels = np.zeros(len(prompts), np.float32), [""] * len(prompts)
    windows: dict[Box, list[int]] = {}
    for row in range(len(prompts)):
        windows.setdefault(_window(_extent(prompts, row), size, tile), []).append(row)
    least = dict.fromkeys(range(len(prompts)), tile)
    while windows:
        x1, y1, x2, y2 = box = next(iter(windows))
        most = max(1, _PIXELS_AT_ONCE // ((x2 - x1) * (y2 - y1)))
        rows, later = windows[box][:most], windows[box][most:]
        if later:
            windows[box] = later  # where it was: the window is encoded once
        else:
            del windows[box]
        moved = _moved(prompts[np.array(rows)], x1, y1)
        pixels = np.ascontiguousarray(image[y1:y2, x1:x2])
        masks = predictor.predict(pixels, moved, multimask=multimask)
        told = labels if label is None else label(pixels, masks.masks, masks.class_probabilities)
        for place, row in enumerate(rows):
            crops[row] = Crop.of(masks.masks[place], x1, y1)
            scores[row] = masks.scores[place]
            labels[row] = "" if label is None else told[place]
            cut = is_cut(crops[row], box, size)
            if cut and not _has_box(prompts, row) and 4 * least[row] ** 2 <= _LARGEST:
                least[row] *= 2
                windows.setdefault(_window(_extent(prompts, row), size, least[row]), []).append(row)
    return crops, scores, labels


def _has_box(prompts: Prompts, row: int) -> bool:
    return prompts.boxes is not None and not np.isnan(prompts.boxes[row]).any()


def _extent(prompts: Prompts, row: int) -> NDArray[np.float64]:
    """XYXY of what a prompt names."""
    places = []
    if prompts.boxes is not None and _has_box(prompts, row):
        places.append(prompts.boxes[row].reshape(2, 2))
    if prompts.points is not None and prompts.labels is not None:
        places.append(prompts.points[row][prompts.labels[row] >= 0])
    corners = np.concatenate(places).astype(np.float64)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _window(extent: NDArray[np.float64], size: tuple[int, int], tile: int) -> Box:
    sides = []
    for low, high, length in ((extent[0], extent[2], size[1]), (extent[1], extent[3], size[0])):
        side = min(length, max(tile, int(np.ceil(1.5 * (high - low)))))
        start = int(np.clip(round((low + high - side) / 2), 0, length - side))
        sides.append((start, start + side))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _moved(prompts: Prompts, x: int, y: int) -> Prompts:
    if prompts.mask_inputs is not None:
        raise DataError("mask_inputs belong to the frame of the whole image: leave them out, or use tile=off")
    by = np.array([x, y], np.float32)
    return Prompts(
        boxes=None if prompts.boxes is None else prompts.boxes - np.tile(by, 2),
        points=None if prompts.points is None else prompts.points - by,
        labels=prompts.labels,
    )
