"""What prompts one object as people and files give it, a box or points or both; and what can be decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, with_config

from lora_sam.core.structures import Prompts

MAX_POINTS = 64

Pixel = Annotated[float, Field(ge=-1, le=100_000)]
Side = Annotated[float, Field(ge=-100_000, le=100_000)]
Point = tuple[Pixel, Pixel, Annotated[int, Field(ge=0, le=1)]]
Box = tuple[Side, Side, Side, Side]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ObjectPrompts:
    """All prompts of one object, in pixels of the image.

    Attributes:
        box: XYXY, or None.
        points: (x, y, label) with label 1 for foreground and 0 for background.
    """

    box: Box | None = None
    points: Annotated[tuple[Point, ...], Field(max_length=MAX_POINTS)] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing a mask could be made from."""
        return self.box is None and not self.points


def are_shares(coordinates: NDArray[np.floating[Any]]) -> bool:
    """Whether coordinates look like shares of an image: all lie about between 0 and 1, and some are no whole pixels.

    What detectors give reaches a little over the edges.
    """
    return bool(
        coordinates.size and ((coordinates > -0.2) & (coordinates < 1.2)).all() and (coordinates % 1 != 0).any()
    )


def batches(objects: Sequence[ObjectPrompts]) -> Iterator[tuple[list[int], Prompts]]:
    """Prompts that can be decoded together, with the places of their objects; objects without any are left out.

    Only objects with the same number of points, and all or none with a box, share a batch: padding would change what
    the model sees, and so its masks.
    """
    groups: dict[tuple[bool, int], list[int]] = {}
    for place, one in enumerate(objects):
        if not one.empty:
            groups.setdefault((one.box is not None, len(one.points)), []).append(place)
    for (boxed, count), places in groups.items():
        points = np.array([objects[place].points for place in places], np.float32).reshape(len(places), count, 3)
        yield (
            places,
            Prompts(
                boxes=np.array([objects[place].box for place in places], np.float32) if boxed else None,
                points=points[..., :2] if count else None,
                labels=points[..., 2].astype(np.int64) if count else None,
            ),
        )
