"""What is painted around objects and is none itself: shadows, edges, clutter."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import Point, anywhere
from lora_sam.data.drawn.materials import Colour, dimmed, near
from lora_sam.data.drawn.outlines import Outline, outline_kind, place, walk
from lora_sam.data.drawn.shapes import Shape, filled, stroke


def shadow(dice: Dice, canvas: Canvas, shape: Shape, offset: Point, depth: float) -> None:
    """Darken what lies around a shape, moved by `offset`; a large one's at a quarter of the resolution."""
    margin = 8
    coarse = 4 if max(shape.size) > 60 else 1
    mask = shape.mask.reduce(coarse) if coarse > 1 else shape.mask
    wide = Image.new("L", (mask.width + 2 * margin // coarse, mask.height + 2 * margin // coarse))
    wide.paste(mask, (margin // coarse, margin // coarse))
    wide = Image.blend(
        Image.new("L", wide.size), wide.filter(ImageFilter.BoxBlur(dice.uniform(1.5, 7) / coarse)), depth
    )
    if coarse > 1:
        wide = wide.resize((wide.width * coarse, wide.height * coarse), Image.Resampling.BILINEAR)
    at = (round(shape.at[0] - margin + offset[0]), round(shape.at[1] - margin + offset[1]))
    canvas.picture.paste((10, 8, 5), Shape(wide, at).box, wide)


def clutter(dice: Dice, canvas: Canvas, base: Colour) -> None:
    """Draw lines, specks and faint patches on the ground, in colours near `base`."""
    side = canvas.side
    for _ in range(dice.integer(1, max(2, 8 * side // 512))):
        tone = near(dice, base, dice.uniform(10, 70))
        if dice.chance(0.6):
            path = walk(dice, anywhere(dice, side), dice.log_uniform(20, side), 0.15, 12, dice.angle())
            shape = stroke(path, dice.log_uniform(1, 6))
        else:
            outline = outline_kind(dice)(dice)
            shape = filled([place(outline, anywhere(dice, side), dice.log_uniform(4, 60), dice.angle())])
        if dice.chance(0.5):
            shape = Shape(dimmed(shape.mask, 0.45), shape.at)
        canvas.picture.paste(tone, shape.box, shape.mask)


def edge(canvas: Canvas, outline: Outline, width: float, paint: int | Colour) -> None:
    """Draw a line of `width` pixels along a convex outline; its pixels keep their owners."""
    middle = outline.mean(0)
    arms = outline - middle
    share = width / 2 / max(1.0, float(np.abs(arms).max(0).mean()))
    shape = filled([arms * (1 + share) + middle], [arms * max(0.0, 1 - share) + middle])
    canvas.picture.paste(paint, shape.box, shape.mask)
