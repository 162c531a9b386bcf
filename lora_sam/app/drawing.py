"""Masks drawn on an image: one colour per object, or what tuning put right and wrong; tags and prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lora_sam.app.patches import Patch
from lora_sam.core.painting import PALETTE, paint_one
from lora_sam.prompts.objects import ObjectPrompts

FIXED, BROKEN, CHANGED = (190, 255, 0), (255, 0, 200), (255, 255, 255)
"""Pixels that tuning put right, and made wrong, where the truth is known, and that it changed where it is not.

None is near a colour of an object."""


def overlay(image: NDArray[np.uint8], patches: Sequence[Patch | None], opacity: float) -> NDArray[np.uint8]:
    """Masks on an RGB image uint8 [H, W, 3]: large ones first, filled with `opacity` from 0 to 1, with solid contours.

    Object n has colour n of `painting.PALETTE`, beginning again at its end.
    """
    canvas = image.astype(np.float32)
    present = [(number, patch) for number, patch in enumerate(patches) if patch is not None and patch.area]
    for number, patch in sorted(present, key=lambda pair: -pair[1].area):
        paint_one(canvas[patch.window], patch.mask, number, fill=opacity, contour=1)
    return canvas.round().astype(np.uint8)


def difference(
    image: NDArray[np.uint8],
    before: Sequence[Patch | None],
    after: Sequence[Patch | None],
    truth: Sequence[Patch | None],
    opacity: float,
) -> NDArray[np.uint8]:
    """What tuning changed, object by object: `FIXED` and `BROKEN` by the truth of each, `CHANGED` where it has none.

    Where two objects share a pixel, what is wrong is seen.
    """
    size = image.shape[0], image.shape[1]
    parts = {colour: np.zeros(size, np.bool_) for colour in (CHANGED, FIXED, BROKEN)}
    for base, tuned, label in zip(before, after, truth, strict=True):
        if base is None or tuned is None:
            continue
        differs = base.full(size) ^ tuned.full(size)
        if label is None:
            parts[CHANGED] |= differs
        else:
            right = ~(tuned.full(size) ^ label.full(size))
            parts[FIXED] |= differs & right
            parts[BROKEN] |= differs & ~right
    canvas = image.astype(np.float32)
    parts[FIXED] &= ~parts[BROKEN]
    parts[CHANGED] &= ~(parts[FIXED] | parts[BROKEN])
    for colour, part in parts.items():
        canvas[part] += opacity * (np.array(colour, np.float32) - canvas[part])
    return canvas.round().astype(np.uint8)


def tagged(image: NDArray[np.uint8], tag: str, objects: Sequence[ObjectPrompts], *, right: bool) -> NDArray[np.uint8]:
    """An image with a tag in a lower corner, and with the prompts of its objects, in pixels of the image."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 400))
    for number, one in enumerate(objects):
        colour = PALETTE[number % len(PALETTE)]
        if one.box is not None:
            pen.rectangle(one.box, outline=colour, width=line)
        for x, y, label in one.points:
            radius = 4 * line
            place = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(place, fill=colour if label else (255, 255, 255), outline=(0, 0, 0), width=line)
    font = ImageFont.load_default(max(10, max(picture.size) / 32))
    left, top, end, bottom = pen.textbbox((0, 0), tag, font=font)
    margin = 3 * line
    # the upper corners are under the buttons of the slider
    x = picture.width - (end - left) - 2 * margin if right else 0
    y = max(0, picture.height - (bottom - top) - 2 * margin)
    pen.rectangle((x, y, x + end - left + 2 * margin, picture.height), fill=(20, 20, 20))
    pen.text((x + margin - left, y + margin - top), tag, fill=(255, 255, 255), font=font)
    return np.asarray(picture)
