"""What a scene is drawn on: the picture, and which object every pixel belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, grey
from lora_sam.data.drawn.shapes import Box, Shape

MIN_VISIBLE_PIXELS = 20
MIN_VISIBLE_SHARE = 0.35


@dataclass(frozen=True)
class Drawn:
    """One object as it was drawn, before anything covered it.

    Attributes:
        numbers: What it owns in `Canvas.owners`: its own number, and those of its parts.
        box: XYXY in pixels, within the image.
        area: Pixels inside the image.
    """

    numbers: tuple[int, ...]
    box: Box
    area: int


class Canvas:
    """A square picture and the owner of every pixel, drawn from back to front.

    Attributes:
        side: Height and width in pixels.
        picture: RGB or 8-bit grey; a scene may replace it.
        faint: Objects are hard to see already: the camera should not hide them.
        camera: Takes the finished picture; None for the usual one.
        objects: What may be labelled.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.picture = Image.new("RGB", (side, side))
        self.faint = False
        self.camera: Callable[[Dice, Image.Image], Image.Image] | None = None
        self.objects: list[Drawn] = []
        self._owners = Image.new("I", (side, side))
        self._last = 0

    def add(
        self, mask: Image.Image, at: tuple[int, int], paint: Image.Image | int | tuple[int, ...], *, label: bool = True
    ) -> int:
        """Put an object in front of everything.

        Args:
            mask: Coverage of its pixels, 8-bit grey; from one half on a pixel belongs to the object.
            at: (x, y) of the mask's corner; the mask may reach out of the picture.
            paint: A picture of the mask's size, or one colour.
            label: Whether the object may be labelled; else it is clutter that covers others.

        Returns:
            The object's number.
        """
        if isinstance(paint, Image.Image):
            self.picture.paste(paint, at, mask)
        else:
            self.picture.paste(paint, (*at, at[0] + mask.width, at[1] + mask.height), mask)
        return self.claim(mask, at, label=label)

    def claim(self, mask: Image.Image, at: tuple[int, int], *, label: bool = True) -> int:
        """Make an object own its pixels without painting them; see `add`."""
        shape = Shape(mask.convert("1", dither=Image.Dither.NONE), at)
        self._last += 1
        self._owners.paste(self._last, shape.box, shape.mask)
        if label:
            inside = shape.within(self.side)
            if inside is not None:
                self.objects.append(Drawn((self._last,), inside.box, inside.mask.histogram()[255]))
        return self._last

    def stamp(self, layer: Layer, at: tuple[int, int]) -> None:
        """Put a thing in front of everything, with its corner at (x, y); it may reach out of the picture."""
        left, top = at
        width, height = layer.size
        box = (max(left, 0), max(top, 0), min(left + width, self.side), min(top + height, self.side))
        if box[0] >= box[2] or box[1] >= box[3]:
            return
        window = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        behind = ImageChops.invert(layer.cover.crop(window))
        behind = ImageChops.multiply(self.picture.crop(box), grey(behind))
        self.picture.paste(ImageChops.add(layer.picture.crop(window), behind), box)
        parts = np.asarray(layer.parts.crop(window)).astype(np.int32)
        owners = np.where(parts, parts + self._last, np.asarray(self._owners.crop(box)))
        self._owners.paste(Image.fromarray(owners.astype(np.int32)), box)
        for label in layer.labels:
            member = np.zeros(256, np.bool_)
            member[list(label)] = True
            inside = member[parts]
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            if len(rows):
                x, y = int(columns[0]), int(rows[0])
                right, bottom = int(columns[-1]) + 1, int(rows[-1]) + 1
                extent = (box[0] + x, box[1] + y, box[0] + right, box[1] + bottom)
                numbers = tuple(self._last + number for number in label)
                self.objects.append(Drawn(numbers, extent, int(inside.sum())))
        # parts that are wholly covered have numbers too
        self._last += max(int(np.asarray(layer.parts).max()), *(max(label) for label in layer.labels), 0)

    def group(self, numbers: list[int]) -> None:
        """Label the union of objects that were drawn before, as one more object."""
        members = [drawn for drawn in self.objects if drawn.numbers[0] in numbers]
        if members:
            left, top, right, bottom = zip(*(drawn.box for drawn in members), strict=True)
            box = (min(left), min(top), max(right), max(bottom))
            self.objects.append(Drawn(tuple(numbers), box, sum(drawn.area for drawn in members)))

    def include(self, whole: int, part: int) -> None:
        """Make `part` belong to the object `whole` as well, which was drawn before it."""
        for index, drawn in enumerate(self.objects):
            if drawn.numbers[0] == whole:
                self.objects[index] = Drawn((*drawn.numbers, part), drawn.box, drawn.area)

    def visible(self, limit: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Masks of what is seen of at most `limit` objects, bool [N, side, side]; N may be 0.

        An object counts when at least `MIN_VISIBLE_PIXELS` and `MIN_VISIBLE_SHARE` of it are seen. Of more than
        `limit` such objects, a random choice is taken.
        """
        owners = np.asarray(self._owners)
        seen = np.bincount(owners.ravel(), minlength=self._last + 1)
        kept = []
        for drawn in self.objects:
            pixels = int(sum(seen[number] for number in drawn.numbers))
            if pixels >= max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * drawn.area):
                kept.append(drawn)
        if len(kept) > limit:
            kept = [kept[index] for index in sorted(rng.permutation(len(kept))[:limit])]
        masks = np.zeros((len(kept), self.side, self.side), np.bool_)
        for mask, drawn in zip(masks, kept, strict=True):
            left, top, right, bottom = drawn.box
            window = owners[top:bottom, left:right]
            target = mask[top:bottom, left:right]
            np.equal(window, drawn.numbers[0], out=target)
            for number in drawn.numbers[1:]:
                target |= window == number
        return masks
