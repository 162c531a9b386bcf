"""How an image of any shape comes to lie in the square that a model sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """The input frame of a model: S x S pixels.

    Attributes:
        side: S.
        square: Whether an image is squeezed into all of it, as SAM 2 wants it. Else it is scaled so that its longer
            side is S, and what is below and to the right of it is padding, as the first SAM wants it.
    """

    side: int
    square: bool

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of `size` = (height, width) takes in the frame.

        The shorter side is at least one pixel, where Segment Anything would fail.
        """
        if self.square:
            return self.side, self.side
        scale = self.side * 1.0 / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))
