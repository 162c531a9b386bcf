"""How a large image is cut into tiles that overlap."""

from __future__ import annotations

import re

from lora_sam.core.errors import ConfigError

Box = tuple[int, int, int, int]
"""XYXY in whole pixels, its end not included."""

LEAST_TILE = 32

_TILE = re.compile(r"(.+)/(\d+),(\d+)", re.DOTALL)


def tile_id(image: str, box: Box) -> str:
    """The id of a tile of an image: `image.png/512,0`, after the pixel (x, y) where it begins."""
    return f"{image}/{box[0]},{box[1]}"


def image_of_tile(name: str) -> tuple[str, tuple[int, int]] | None:
    """The image and the pixel (x, y) that `tile_id` named; None for the id of a whole image."""
    found = _TILE.fullmatch(name)
    return None if found is None else (found[1], (int(found[2]), int(found[3])))


def tiles_of(size: tuple[int, int], tile: int, halo: int) -> list[Box]:
    """XYXY of the tiles of an image, row by row.

    All are `tile` wide and high, or as the image where it is smaller. Neighbours share `halo` pixels or more: the last
    of a row ends with the image.

    Args:
        size: (height, width) of the image.
        tile: Side of a tile in pixels.
        halo: Pixels that neighbours share at least.

    Raises:
        ConfigError: a tile of fewer than 32 pixels, or a halo that is half of it or more.
    """
    if tile < LEAST_TILE:
        raise ConfigError(f"tile={tile}: must be at least {LEAST_TILE} pixels")
    if not 0 <= halo < tile / 2:
        raise ConfigError(f"halo={halo}: must be from 0 to less than half of tile={tile}, such as halo={tile // 8}")
    rows, columns = _starts(size[0], tile, halo), _starts(size[1], tile, halo)
    return [(x, y, min(x + tile, size[1]), min(y + tile, size[0])) for y in rows for x in columns]


def _starts(length: int, tile: int, halo: int) -> list[int]:
    if length <= tile:
        return [0]
    count = -(-(length - halo) // (tile - halo))
    # evenly, so that the last does not repeat most of the one before
    return [round(place * (length - tile) / (count - 1)) for place in range(count)]
