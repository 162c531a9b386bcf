"""Masks without prompts for the browser: as `predict` finds them, in tiles of the training's size where it cuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.app.patches import Patch, patch_of
from lora_sam.app.pictures import Picture
from lora_sam.core.tile_grid import LEAST_TILE, tiles_of
from lora_sam.deployment.predicting.tiling import Tiles, Tiling

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.predictors.automatic import AutomaticMasks

MOST_TILES = 16
"""Tiles of an image that somebody waits for in a browser."""

Classes = Callable[[NDArray[np.uint8], NDArray[np.bool_]], Sequence[str]]
"""Names of masks bool [N, H, W] on pixels [H, W, 3]; none where a run tells no classes."""


@dataclass(frozen=True)
class Everything:
    """What was found, by falling score.

    Attributes:
        patches: The masks at the size of `Picture.image`.
        scores: What ranks them.
        names: Their classes; empty where there are none.
        nothing: Why nothing was found; None where something was.
    """

    patches: tuple[Patch, ...]
    scores: tuple[float, ...]
    names: tuple[str, ...]
    nothing: str | None


def tiles_for(tiling: Tiling, picture: Picture) -> tuple[Tiles | None, str | None]:
    """How `picture.image` is cut for a run that cuts so, and what the page says where it cannot be."""
    cut = tiling.of(picture.size)
    if cut is None:
        return None, None
    number = len(tiles_of(picture.size, cut.tile, cut.halo))
    side = math.floor(cut.tile * min(picture.scale))
    if number > MOST_TILES or side < LEAST_TILE:
        return None, (
            f"This run sees images in tiles of {cut.tile} pixels. {number:,} are too many to wait for, so this one "
            "is looked at as a whole, where objects are smaller; predict cuts it."
        )
    return Tiles(side, side * cut.halo // cut.tile), None


def seen_whole(tiling: Tiling, picture: Picture) -> tuple[str, ...]:
    """What the page says of prompts where `predict` would cut the image: they are answered on all of it."""
    cut = tiling.of(picture.size)
    if cut is None:
        return ()
    return (
        f"This image is larger than those of the training: predict looks at it in tiles of {cut.tile} pixels, "
        "prompts here at all of it, where objects are smaller.",
    )


def find_everything(
    settings: AutomaticMasks, predictor: Predictor, picture: Picture, tiles: Tiles | None, classes: Classes, most: int
) -> Everything:
    """At most `most` masks of `picture.image`."""
    image = picture.image
    if tiles is None:
        whole = settings.generate(predictor, image)
        masks = whole.masks[:most]
        return Everything(
            tuple(patch_of(mask) for mask in masks),
            tuple(float(score) for score in whole.scores[:most]),
            tuple(classes(image, masks)),
            whole.nothing,
        )
    from lora_sam.predictors.tiles import automatic_in_tiles

    def label(pixels: NDArray[np.uint8], masks: NDArray[np.bool_], told: NDArray[np.float32] | None) -> Sequence[str]:
        del told
        return classes(pixels, masks) or [""] * len(masks)

    found = automatic_in_tiles(settings, predictor, image, tile=tiles.tile, halo=tiles.halo, label=label)
    return Everything(
        tuple(Patch(crop.x, crop.y, crop.mask) for crop in found.crops[:most]),
        tuple(float(score) for score in found.scores[:most]),
        found.labels[:most] if any(found.labels) else (),
        found.nothing,
    )
