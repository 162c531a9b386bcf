"""Which images are cut into tiles, and into which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lora_sam.core.errors import ConfigError
from lora_sam.core.tile_grid import LEAST_TILE

Tile = Literal["auto", "off"] | int

LARGER = 2
"""With `tile=auto`, images whose longer side is more than so many times that of the training images are cut."""


@dataclass(frozen=True)
class Tiles:
    """How an image is cut.

    Attributes:
        tile: Side of a tile in pixels.
        halo: Pixels that neighbours share at least.
    """

    tile: int
    halo: int


@dataclass(frozen=True)
class Tiling:
    """When an image is cut.

    Attributes:
        above: Images whose longer side has more pixels than this are; None for none.
        tiles: How.
    """

    above: int | None
    tiles: Tiles

    def of(self, size: tuple[int, int]) -> Tiles | None:
        """How an image of `size` = (height, width) is cut; None for one that goes through the model as it is."""
        return self.tiles if self.above is not None and max(size) > self.above else None

    @property
    def usual(self) -> int:
        """Side of a tile, for messages."""
        return self.tiles.tile

    def to_json(self) -> dict[str, Any]:
        """What decides the result."""
        return {"above": self.above, "tile": self.tiles.tile, "halo": self.tiles.halo} if self.above else {}


NOT_TILED = Tiling(None, Tiles(1024, 128))


def tiling_of(facts: Mapping[str, Any], tile: Tile = "auto", halo: int | None = None) -> Tiling:
    """`tiling` of an adapter with such a `lora_sam.json`."""
    return tiling(
        tile,
        halo,
        trained=facts.get("training_side"),
        cut=facts.get("training_tile"),
        image_size=facts["image_size"],
    )


def tiling(tile: Tile, halo: int | None, *, trained: int | None, image_size: int, cut: int | None = None) -> Tiling:
    """What `tile=` and `halo=` mean for a run.

    Args:
        tile: `auto` keeps the scale of the training: all images that are larger are cut as those of the training were,
            or, where these were whole, images more than `LARGER` times as large are cut into tiles of their size. `off`
            cuts nothing. A number is the side of the tiles, for all images that are larger.
        halo: Pixels that neighbours share; None for an eighth of a tile.
        trained: Longer side of the training images, their median; None where an older run does not know it. Then
            twice the input of the model counts as such.
        image_size: Side of the model's input.
        cut: Side of the tiles of the training (`data.tile`); None where images were whole.

    Raises:
        ConfigError: a tile or halo that cannot be.
    """
    if isinstance(tile, int) and tile < LEAST_TILE:
        raise ConfigError(f"tile = {tile}: must be at least {LEAST_TILE} pixels, auto or off")
    side = tile if isinstance(tile, int) else max(LEAST_TILE, cut or trained or 2 * image_size)
    shared = side // 8 if halo is None else halo
    if not 0 <= shared < side / 2:
        raise ConfigError(f"halo = {halo}: must be less than half of a tile of {side} pixels, such as {side // 8}")
    above = {"off": None, "auto": side if cut else LARGER * side}.get(str(tile), side)
    return Tiling(above, Tiles(side, shared))
