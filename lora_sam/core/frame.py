"""How an image of any shape comes to lie in the square that a model sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Colour: TypeAlias = "tuple[float, float, float]"
"""Of R, G and B, from 0 to 255."""

PIXEL_MEAN: Colour = (123.675, 116.28, 103.53)
"""Mean that the first SAM and SAM 2 subtract from an image."""

PIXEL_STD: Colour = (58.395, 57.12, 57.375)
"""Standard deviation that they divide an image by."""

CELL = 16
"""Pixels of a cell of their image embeddings, along a side."""


@dataclass(frozen=True)
class Frame:
    """The input frame of a model: S x S pixels.

    Attributes:
        side: S.
        square: Whether an image is squeezed into all of it, as SAM 2 wants it. Else it is scaled so that its longer
            side is S, and what is below and to the right of it is padding, as the first SAM wants it.
        cell: Pixels of a cell of the image embedding, along a side.
        mean: Colour that is subtracted from an image.
        std: Colour that an image is then divided by.
    """

    side: int
    square: bool
    cell: int = CELL
    mean: Colour = PIXEL_MEAN
    std: Colour = PIXEL_STD

    @property
    def grid(self) -> int:
        """Cells of the image embedding along a side."""
        return self.side // self.cell

    @property
    def mask_side(self) -> int:
        """Side of the masks that the decoder gives and the prompt encoder takes, S/4 where a cell has 16 pixels."""
        return 4 * self.grid

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of `size` = (height, width) takes in the frame.

        The shorter side is at least one pixel, where Segment Anything would fail. In whole numbers, as exported parts
        have it: of fractions a half may be rounded down, at sides that Segment Anything has no weights for.
        """
        if self.square:
            return self.side, self.side
        longest = int(max(size))
        height, width = ((2 * int(length) * self.side + longest) // (2 * longest) for length in size)
        return max(1, height), max(1, width)
