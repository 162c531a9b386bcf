"""Labelled images of many kinds, drawn on the fly: what the small SAM is pre-trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Sample
from lora_sam.data.drawn.camera import photographed
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.outlines import ellipse
from lora_sam.data.drawn.scenes import STYLES
from lora_sam.data.drawn.shapes import filled
from lora_sam.data.splits import Splits

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Style = Literal[
    "natural",
    "fluorescence",
    "stained",
    "brightfield",
    "thin",
    "holed",
    "worn",
    "jewellery",
    "cluster",
    "mosaic",
    "nested",
    "subtle",
    "terrain",
    "figures",
    "animals",
    "foliage",
    "solids",
    "leaves",
    "glass",
    "city",
    "prints",
    "fabric",
    "medley",
    "tissue",
    "electron",
    "aerial",
    "smear",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Procedural:
    """Scenes of many styles, from micrographs to rings on fingers, with the mask of what is seen of each object.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        side: Height and width of an image in pixels. Objects keep their size in pixels: a smaller image shows fewer.
        labelled: Largest number of objects of an image that have a mask, a random choice; the rest is clutter.
        styles: Styles of scenes, equally likely; one that is named twice is drawn twice as often.
        tiled_share: Share of images that are four scenes of half the side put together: more small objects, and on one
            image several kinds.
        max_objects_per_image: Largest number of objects of an image that one training step uses; null for all.
    """

    train: Count
    val: Count
    test: Count
    side: Annotated[int, Field(ge=64, le=1024)]
    labelled: Annotated[int, Field(ge=1, le=1000)]
    styles: Annotated[tuple[Style, ...], Field(min_length=1)]
    tiled_share: Annotated[float, Field(ge=0, le=1)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None

    def open(self, seed: int) -> Splits:
        """The three splits; images are drawn when they are asked for, and differ between splits and seeds."""
        train, val, test = (
            _Scenes(seed, name, getattr(self, name), self.side, self.labelled, self.styles, self.tiled_share)
            for name in ("train", "val", "test")
        )
        return Splits(train=train, val=val, test=test, skipped=(), notes=("drawn on the fly, nothing was read",))


@dataclass(frozen=True)
class _Computed(Sequence[T], Generic[T]):
    """A sequence whose items are computed when they are asked for."""

    length: int
    item: Callable[[int], T]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self.item(k) for k in range(self.length)[index]]
        return self.item(range(self.length)[index])


@dataclass(frozen=True)
class _Scenes:
    """The images of one split; a pure function of seed, split and index."""

    seed: int
    split: str
    count: int
    side: int
    labelled: int
    styles: tuple[Style, ...]
    tiled_share: float

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> Sequence[str]:
        return _Computed(self.count, self._id)

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        return _Computed(self.count, lambda _: (self.side, self.side))

    @property
    def object_counts(self) -> None:
        """Unknown before an image is drawn."""

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = generator_for(self.seed, "procedural", self.split, index)
        dice = Dice(rng)
        # no draw where nothing is tiled, so that images stay what they were before there were tiles
        if self.tiled_share and dice.chance(self.tiled_share):
            image, masks = self._tiled(dice, rng)
        else:
            image, masks = self._scene(dice, rng, self.side, self.labelled)
        return Sample(self._id(index), image, masks, tuple(str(number) for number in range(len(masks))))

    def _scene(
        self, dice: Dice, rng: np.random.Generator, side: int, labelled: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """One photographed scene [side, side, 3] and the masks [N, side, side] of its objects, N >= 1."""
        canvas = Canvas(side)
        STYLES[dice.pick(self.styles)](dice, canvas)
        masks = canvas.visible(labelled, rng)
        if not len(masks):  # everything was too small or covered
            disc = filled([ellipse(1, 1) * (0.2 * side) + 0.5 * side])
            canvas.add(disc.mask, disc.at, (dice.integer(0, 255), dice.integer(0, 255), dice.integer(0, 255)))
            masks = canvas.visible(labelled, rng)
        if canvas.camera is not None:
            return np.array(canvas.camera(dice, canvas.picture)), masks
        return np.array(photographed(dice, canvas.picture, faint=canvas.faint)), masks

    def _tiled(self, dice: Dice, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Four scenes, as `_scene` draws them, side by side and one above the other."""
        half = self.side // 2
        image = np.zeros((self.side, self.side, 3), np.uint8)
        placed = []
        for top, left in ((0, 0), (0, self.side - half), (self.side - half, 0), (self.side - half, self.side - half)):
            window = slice(top, top + half), slice(left, left + half)
            image[window], masks = self._scene(dice, rng, half, max(1, self.labelled // 4))
            whole = np.zeros((len(masks), self.side, self.side), np.bool_)
            whole[:, *window] = masks
            placed.append(whole)
        return image, np.concatenate(placed)

    def _id(self, index: int) -> str:
        return f"{self.split}/{index:07d}.png"
