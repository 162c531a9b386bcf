"""One prompted object of a file, checked by itself and against its image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.deployment.predicting.sources import SourceImage
from lora_sam.prompts.objects import ObjectPrompts

OBJECT = "object"
"""The category of what has none."""


@dataclass(frozen=True)
class PromptedObject:
    """What prompts one object of an image.

    Attributes:
        prompts: Its box or points, in pixels of the image.
        id: What the file calls it.
        category: Its class.
        place: Where the file says it, for messages.
        size: (height, width) of the image that it was made for, as the file says; None where it does not.
    """

    prompts: ObjectPrompts
    id: str
    category: str
    place: str
    size: tuple[int, int] | None = None

    def moved(self, x: float, y: float) -> PromptedObject:
        """The same in the image that it shows a part of, from the pixel (x, y) on; nobody says how large that is."""
        box = self.prompts.box
        moved = ObjectPrompts(
            box=None if box is None else (box[0] + x, box[1] + y, box[2] + x, box[3] + y),
            points=tuple((one + x, other + y, label) for one, other, label in self.prompts.points),
        )
        return replace(self, prompts=moved, size=None)

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides the result, for JSON."""
        return {"prompts": asdict(self.prompts), "id": self.id, "category": self.category, "place": ""}


def prompted(
    file: Path,
    place: str,
    identifier: str,
    category: str,
    *,
    box: Sequence[float] | None = None,
    points: Sequence[tuple[float, float, int]] = (),
    size: tuple[int, int] | None = None,
) -> PromptedObject:
    """A prompted object.

    Args:
        file: Where it comes from.
        place: Where in the file, for messages.
        identifier: What the file calls it.
        category: Its class.
        box: XYXY in pixels.
        points: (x, y, label) with 1 for a point on the object and 0 for one beside it.
        size: (height, width) of the image that it was made for; None where nobody says.

    Raises:
        DataError: the box has no area, a label is another number, or no point is on the object.
    """
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise DataError(
            f"prompts = {file}: {place} has a box from ({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g}), which has "
            "no area; it takes x1 < x2 and y1 < y2"
        )
    if any(label not in (0, 1) for _, _, label in points):
        raise DataError(f"prompts = {file}: {place} has a label that is neither 1 (on the object) nor 0 (beside it)")
    if box is None and not any(label == 1 for _, _, label in points):
        raise DataError(
            f"prompts = {file}: {place} has points beside the object alone (label 0); add one on it (label 1)"
        )
    corners = None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return PromptedObject(ObjectPrompts(box=corners, points=tuple(points)), identifier, category, place, size)


def check_inside(file: Path, image: SourceImage, objects: Iterable[PromptedObject], size: tuple[int, int]) -> None:
    """Raise `DataError` for what lies outside an image of `size` = (height, width), or is for one of another size."""
    height, width = size
    for one in objects:
        if one.size not in (None, size):
            then = f"{one.size[1]} x {one.size[0]}"
            raise DataError(
                f"prompts = {file}: {one.place} is for {image.name} with {then} pixels (width x height), and it has "
                f"{width} x {height}: it would name another place; give prompts for this image, or the image as it was"
            )
        box, outside = one.prompts.box, None
        if box is not None and (box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0):
            outside = f"the box {[round(side, 1) for side in box]}"
        for x, y, _ in one.prompts.points:
            if not (0 <= x <= width and 0 <= y <= height):
                outside = f"the point ({x:g}, {y:g})"
        if outside is not None:
            raise DataError(
                f"prompts = {file}: {one.place} has {outside}, outside of {image.name}, which has {width} x {height} "
                "pixels (width x height); correct it, or check that the image was not scaled afterwards"
            )
