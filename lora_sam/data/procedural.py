"""Labelled images of many kinds, drawn on the fly: what the small SAM is pre-trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar, overload

import numpy as np
from pydantic import Field

from lora_sam.data.drawing.camera import photographed
from lora_sam.data.drawing.canvas import Canvas
from lora_sam.data.drawing.dice import Dice
from lora_sam.data.drawing.scenes import STYLES
from lora_sam.data.drawing.shapes import ellipse, filled
from lora_sam.data.splits import Splits
from lora_sam.seeds import generator_for
from lora_sam.structures import Sample

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
        max_objects_per_image: Largest number of objects of an image that one training step uses; null for all.
    """

    train: Count
    val: Count
    test: Count
    side: Annotated[int, Field(ge=64, le=1024)]
    labelled: Annotated[int, Field(ge=1, le=1000)]
    styles: Annotated[tuple[Style, ...], Field(min_length=1)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None

    def open(self, seed: int) -> Splits:
        """The three splits; images are drawn when they are asked for, and differ between splits and seeds."""
        train, val, test = (
            _Scenes(seed, name, getattr(self, name), self.side, self.labelled, self.styles)
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
        canvas = Canvas(self.side)
        STYLES[dice.pick(self.styles)](dice, canvas)
        masks = canvas.visible(self.labelled, rng)
        if not len(masks):  # everything was too small or covered
            disc = filled([ellipse(1, 1) * (0.2 * self.side) + 0.5 * self.side])
            canvas.add(disc.mask, disc.at, (dice.integer(0, 255), dice.integer(0, 255), dice.integer(0, 255)))
            masks = canvas.visible(self.labelled, rng)
        image = np.array(photographed(dice, canvas.picture, faint=canvas.faint))
        return Sample(self._id(index), image, masks, tuple(str(number) for number in range(len(masks))))

    def _id(self, index: int) -> str:
        return f"{self.split}/{index:07d}.png"
