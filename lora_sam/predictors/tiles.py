"""Images larger than the model's input: all objects, tile by tile, and what lies across tiles put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import Crop, shared
from lora_sam.core.predictor import Predictor
from lora_sam.core.tile_grid import Box, tiles_of
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.prompting import size_of

Label = Callable[[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32] | None], Sequence[str]]
"""Says of pixels [H, W, 3] and masks in them, bool [N, H, W], what each is; takes also how likely the masks are of each
class, float32 [N, C], where what predicted them told it."""

SAME_OBJECT = 0.5
"""IoU, in the part that two tiles share, above which masks of both are one object."""


@dataclass(frozen=True)
class FoundCrops:
    """Masks of one image that were found without a prompt, by falling predicted IoU.

    Attributes:
        size: (height, width) of the image.
        crops: One for each object.
        scores: IoU as predicted by the model, float32 [N]; of an object across tiles, the mean by area.
        stability: See `AutomaticMasks`, float32 [N]; likewise.
        points: The grid point (x, y) that gave each mask, float32 [N, 2]; across tiles that of the largest part.
        labels: What `label` said of each; across tiles of the largest part. Empty texts without.
        nothing: Where there is no mask: why there is none in the first tile, and what to change; see `FoundMasks`.
    """

    size: tuple[int, int]
    crops: tuple[Crop, ...]
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    points: NDArray[np.float32]
    labels: tuple[str, ...]
    nothing: str | None = None


@dataclass(frozen=True)
class _Part:
    """A mask of one tile, in the frame of the image."""

    tile: int
    crop: Crop
    score: float
    stability: float
    point: tuple[float, float]
    label: str
    cut: bool


def automatic_in_tiles(
    automatic: AutomaticMasks,
    predictor: Predictor,
    image: NDArray[np.uint8],
    *,
    tile: int,
    halo: int,
    label: Label | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> FoundCrops:
    """The masks of every tile, each object once.

    A mask that reaches the edge of its tile, inside the image, is cut there. It belongs to the mask of a neighbour that
    is the same in the part both tiles see (`SAME_OBJECT`). If one of these is whole, it is the object, else they are
    put together. Pieces are left out if a tile saw all of them and took them for no object. Only one tile is held at a
    time, so memory grows with what is found, not with the image.

    Args:
        automatic: How masks are made of each tile; its grid is that of a tile.
        predictor: Any predictor that offers four masks per prompt.
        image: RGB, uint8 [H, W, 3].
        tile: Side of a tile in pixels.
        halo: Pixels that neighbours share at least; objects that are smaller are whole in one of them.
        label: See `Label`; gets the pixels of a tile.
        on_tile: Called with (tiles done, all tiles) after each.

    Raises:
        ConfigError: see `tiles_of`.
        DataError: the image is not uint8 RGB.
    """
    size = size_of(image)
    tiles = tiles_of(size, tile, halo)
    parts: list[_Part] = []
    nothing: str | None = None
    for number, box in enumerate(tiles):
        x1, y1, x2, y2 = box
        pixels = np.ascontiguousarray(image[y1:y2, x1:x2])
        found = automatic.generate(predictor, pixels)
        nothing = nothing or found.nothing
        labels = [""] * len(found.masks) if label is None else label(pixels, found.masks, None)
        for row, mask in enumerate(found.masks):
            crop = Crop.of(mask, x1, y1)
            if crop is None:
                continue
            x, y = found.points[row]
            place = (float(x) + x1, float(y) + y1)
            cut = is_cut(crop, box, size)
            score, stability = float(found.scores[row]), float(found.stability[row])
            parts.append(_Part(number, crop, score, stability, place, labels[row], cut))
        if on_tile is not None:
            on_tile(number + 1, len(tiles))
    objects = [_object(group) for group in _groups(parts, tiles) if not _seen_better(group, tiles)]
    objects.sort(key=lambda part: -part.score)
    return FoundCrops(
        size,
        tuple(part.crop for part in objects),
        np.array([part.score for part in objects], np.float32),
        np.array([part.stability for part in objects], np.float32),
        np.array([part.point for part in objects], np.float32).reshape(-1, 2),
        tuple(part.label for part in objects),
        None if objects else nothing,
    )


def is_cut(crop: Crop | None, tile: Box, size: tuple[int, int]) -> bool:
    """Whether a mask reaches an edge of its tile that is not one of the image; an empty one does not."""
    if crop is None:
        return False
    box = crop.box
    return (
        (box[0] == tile[0] > 0)
        or (box[1] == tile[1] > 0)
        or (box[2] == tile[2] < size[1])
        or (box[3] == tile[3] < size[0])
    )


def _groups(parts: Sequence[_Part], tiles: Sequence[Box]) -> Iterator[list[_Part]]:
    """The parts of each object together; one of each tile at most."""
    group_of = list(range(len(parts)))
    members = {row: [row] for row in range(len(parts))}
    for _, first, second in sorted(_same(parts, tiles), key=lambda pair: (-pair[0], pair[1], pair[2])):
        a, b = group_of[first], group_of[second]
        if a == b or {parts[row].tile for row in members[a]} & {parts[row].tile for row in members[b]}:
            continue
        for row in members[b]:
            group_of[row] = a
        members[a] += members.pop(b)
    for rows in members.values():
        yield [parts[row] for row in rows]


def _same(parts: Sequence[_Part], tiles: Sequence[Box]) -> Iterator[tuple[float, int, int]]:
    """(IoU, row, row) of masks of two tiles that are alike where both tiles see them."""
    boxes = np.array([part.crop.box for part in parts], np.int64).reshape(-1, 4)
    tile_of = np.array([part.tile for part in parts], np.int64)
    for first, second, seen in _neighbours(tiles):
        meets = (boxes[:, :2] < seen[2:]).all(axis=1) & (boxes[:, 2:] > seen[:2]).all(axis=1)
        for a in np.flatnonzero(meets & (tile_of == first)).tolist():
            near = (boxes[:, :2] < boxes[a, 2:]).all(axis=1) & (boxes[:, 2:] > boxes[a, :2]).all(axis=1)
            for b in np.flatnonzero(meets & near & (tile_of == second)).tolist():
                iou = _iou_within(parts[a].crop, parts[b].crop, seen)
                if iou > SAME_OBJECT:
                    yield iou, a, b


def _neighbours(tiles: Sequence[Box]) -> Iterator[tuple[int, int, Box]]:
    """Each two tiles that share something, and what."""
    corners = np.array(tiles, np.int64)
    for first, box in enumerate(tiles):
        later = corners[first + 1 :]
        meets = (later[:, :2] < corners[first, 2:]).all(axis=1) & (later[:, 2:] > corners[first, :2]).all(axis=1)
        for second in (np.flatnonzero(meets) + first + 1).tolist():
            yield first, second, shared((box, tiles[second]))


def _iou_within(first: Crop, second: Crop, seen: Box) -> float:
    a, b = shared((first.box, seen)), shared((second.box, seen))
    both = shared((a, b))
    if both[0] >= both[2] or both[1] >= both[3]:
        return 0.0
    common = np.count_nonzero(first.within(both) & second.within(both))
    either = np.count_nonzero(first.within(a)) + np.count_nonzero(second.within(b)) - common
    return float(common / either) if either else 0.0


def _seen_better(group: Sequence[_Part], tiles: Sequence[Box]) -> bool:
    """Whether these are cut pieces of what another tile saw with more around it, and took for no object."""
    if not all(part.cut for part in group):
        return False
    corners = np.array([part.crop.box for part in group])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    others = np.delete(np.array(tiles), [part.tile for part in group], axis=0)
    return bool(((others[:, :2] <= low) & (others[:, 2:] >= high)).all(axis=1).any())


def _object(group: Sequence[_Part]) -> _Part:
    whole = [part for part in group if not part.cut]
    if whole:
        return max(whole, key=lambda part: part.score)
    areas = np.array([part.crop.area for part in group], np.float64)
    crop = group[0].crop
    for part in group[1:]:
        crop = crop.joined(part.crop)
    largest = group[int(areas.argmax())]
    score = float(np.average([part.score for part in group], weights=areas))
    stability = float(np.average([part.stability for part in group], weights=areas))
    return _Part(largest.tile, crop, score, stability, largest.point, largest.label, cut=False)
