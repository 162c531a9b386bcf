"""Cells and nuclei as microscopes show them: fluorescent, stained, unstained."""

from __future__ import annotations

import math

from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.camera import noisy, soft
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import edge
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import Point, anywhere, crowd, radii_around, scatter
from lora_sam.data.drawn.materials import (
    backdrop,
    ball,
    colour,
    coloured,
    dimmed,
    hsv,
    mixed,
    near,
    palette,
    scaled,
    sprite,
)
from lora_sam.data.drawn.outlines import Outline, blobs, place, walk
from lora_sam.data.drawn.shapes import Shape, filled, stroke

_CELL_KINDS = ("cloud", "grain", "blotch", "vein", "patch", "speck")


def _cells(dice: Dice, side: int) -> tuple[float, list[tuple[Outline, Point, float]]]:
    """The cells or nuclei of a micrograph: a typical radius; (outline of radius 1, centre, radius) of each."""
    middle = dice.log_uniform(6, 26) if dice.chance(0.8) else dice.log_uniform(20, side / 6)
    count = crowd(dice, side, middle, 70)
    radii = radii_around(dice, side, middle, dice.uniform(0.05, 0.35), count)
    clusters = dice.integer(1, 6) if dice.chance(0.35) else 0
    places = scatter(dice, side, radii, gap=dice.pick((0.65, 0.8, 0.9, 1.0, 1.15)), clusters=clusters)
    rough = dice.pick((0.05, 0.12, 0.2, 0.35))
    outlines = blobs(dice, count, rough, dice.pick((1.15, 1.5, 2.0, 3.0)))
    return float(radii[0]), [(outlines[index], centre, radius) for index, centre, radius in places]


def _rim(dice: Dice) -> float:
    """Share of a cell's radius within which its brightness is full: people label cells out to where they fade."""
    return dice.uniform(0.6, 0.95) if dice.chance(0.6) else 1.0


def _fading(shape: Shape, form: Outline, centre: Point, radius: float, full: float) -> Image.Image:
    """Coverage of a cell that fades towards the outline of `shape` from the share `full` of its radius on."""
    if full >= 1:
        return shape.mask
    core = shape.common(filled([place(form, centre, radius * full)])).mask
    return ImageChops.multiply(shape.mask, core.filter(ImageFilter.GaussianBlur(0.6 * radius * (1 - full))))


def fluorescence(dice: Dice, canvas: Canvas) -> None:
    """Glowing blobs on a dark ground, of very different brightness, some touching; drawn in grey, then coloured."""
    side = canvas.side
    canvas.faint = True
    size = (side, side)
    dark = dice.uniform(0, 30)
    haze = (
        noise.smooth(dice, size, dice.integer(2, 9)) if dice.chance(0.5) else noise.texture(dice, size, ("cloud",), 4)
    )
    strength = dice.pick((0.0, 0.03, 0.1, 0.25))
    canvas.picture = dimmed(haze, strength, dark)
    _, cells = _cells(dice, side)
    level, spread = dice.log_uniform(45, 230), dice.pick((0.1, 0.3, 0.6))
    inner = dice.pick((0.0, 0.15, 0.35, 0.6))
    dome = dice.pick((0.0, 0.2, 0.5))
    chromatin = noise.Sheet(dice, _CELL_KINDS, dice.log_uniform(0.5, 2))
    glow = dice.pick((0.0, 0.0, 0.3))
    rim = dice.pick((0.0, 0.0, 0.3, 1.0))
    tone = dice.pick((0.5, 0.75, 1.3))
    loose = dice.pick((0.0, 0.0, 0.15))
    full = _rim(dice)
    for form, centre, radius in cells:
        outline = place(form, centre, radius)
        shape = filled([outline])
        bright = min(255.0, dark + level * math.exp(dice.normal(spread)))
        values = Image.new("L", shape.size, 200)
        if dome:
            values = Image.blend(values, ball(shape.size, 11), dome)
        if inner:
            values = Image.blend(values, chromatin.piece(dice, shape.size), inner)
        if radius > 8 and dice.chance(0.3):
            _spots(dice, values, radius)
        values = Image.blend(Image.new("L", shape.size, round(dark)), values, bright / 200)
        if glow:
            _glow(canvas, shape, round(bright * glow))
        cover, mask = _fading(shape, form, centre, radius, full), shape.mask
        if loose and dice.chance(loose):
            cover = mask = mask.filter(ImageFilter.BoxBlur(radius / 6))
        canvas.picture.paste(values, shape.at, cover)
        canvas.claim(mask, shape.at)
        if dice.chance(rim):
            edge(canvas, outline, max(1, radius * 0.1), min(255, round(bright * tone)))
    if dice.chance(0.15):
        _debris(dice, canvas)
    if dice.chance(0.75):
        canvas.picture = soft(canvas.picture, dice.log_uniform(0.7, 2.2))
    if dice.chance(0.6):
        canvas.picture = noisy(dice, canvas.picture, dice.log_uniform(1.5, 20))
    if dice.chance(0.3):  # exposed for the brightest
        gain = dice.log_uniform(0.15, 0.8)
        canvas.picture = dimmed(canvas.picture, gain)
    canvas.picture = coloured(canvas.picture, _false_colours(dice))


def _false_colours(dice: Dice) -> bytes:
    """A palette as microscopes use: mostly grey, else grey inverted, one hue, or any."""
    kind = dice.uniform(0, 1)
    if kind < 0.6:
        return palette([(0, 0, 0), (255, 255, 255)])
    if kind < 0.72:
        return palette([(255, 255, 255), (0, 0, 0)])
    if kind < 0.9:
        hue = dice.pick((0.62, 0.66, 0.33, 0.36, 0.0, 0.5, 0.8))
        return palette(
            [(0, 0, dice.integer(0, 30)), hsv(hue, 1, 0.8), hsv(hue, dice.uniform(0, 0.9), 1)], (0, 170, 255)
        )
    return palette([colour(dice) for _ in range(dice.integer(2, 4))])


def _spots(dice: Dice, values: Image.Image, radius: float) -> None:
    """Draw small dark or bright bodies on the picture of a nucleus."""
    for _ in range(dice.integer(1, 4)):
        size = max(2, round(radius * dice.uniform(0.15, 0.5)))
        at = (round(values.width * dice.uniform(0.2, 0.7)), round(values.height * dice.uniform(0.2, 0.7)))
        spot = sprite("spot", (size, size))
        values.paste(dice.pick((90, 120, 240, 255)), (*at, at[0] + size, at[1] + size), spot)


def _glow(canvas: Canvas, shape: Shape, level: int) -> None:
    """Add light of up to `level` around an object that is out of the plane of focus, to a grey picture."""
    width, height = shape.size
    at = (shape.at[0] - width // 2, shape.at[1] - height // 2)
    halo = Shape(sprite("halo", (width * 2, height * 2)), at).within(canvas.side)
    if halo is not None:
        light = Image.blend(Image.new("L", halo.size), halo.mask, level / 255)
        canvas.picture.paste(ImageChops.lighter(canvas.picture.crop(halo.box), light), halo.box)


def _debris(dice: Dice, canvas: Canvas) -> None:
    """Draw bright dust and threads on a grey picture; they cover objects."""
    side = canvas.side
    for _ in range(dice.integer(1, 8)):
        path = walk(dice, anywhere(dice, side), dice.log_uniform(4, 60), 0.4, 4, dice.angle())
        shape = stroke(path, dice.log_uniform(1, 4))
        canvas.add(shape.mask, shape.at, dice.integer(60, 255), label=False)


def stained(dice: Dice, canvas: Canvas) -> None:
    """A section of stained tissue: darker, textured nuclei with uneven edges in fibrous, coloured ground."""
    side = canvas.side
    size = (side, side)
    hue = dice.pick((0.78, 0.74, 0.82, 0.9, 0.7, 0.62, 0.07, dice.uniform(0, 1)))
    pale = dice.chance(0.4)
    ground = hsv(
        hue + dice.normal(0.04), dice.uniform(0, 0.12) if pale else dice.uniform(0.1, 0.5), dice.uniform(0.65, 0.95)
    )
    second = hsv(hue + dice.normal(0.06), dice.uniform(0.05, 0.6), dice.uniform(0.55, 0.95))
    amount = dice.pick((0.1, 0.3, 0.6))
    stops = [near(dice, ground, 12), ground, mixed(ground, second, amount)]
    picture = coloured(noise.texture(dice, size, ("fibre", "cloud", "vein"), dice.log_uniform(1, 4)), palette(stops))
    if dice.chance(0.6):
        other = coloured(noise.texture(dice, size, ("fibre", "cloud", "blotch", "marble")), palette(stops[::-1]))
        picture = Image.blend(picture, other, dice.uniform(0.2, 0.6))
    if dice.chance(0.3):  # empty places between tissue
        table = [min(255, max(0, (v - 150) * 12)) for v in range(256)]
        holes = noise.texture(dice, size, ("cloud", "blotch"), dice.log_uniform(1.5, 4)).point(table)
        picture.paste(near(dice, (235, 235, 235), 10), (0, 0, side, side), holes)
    canvas.picture = picture
    typical, cells = _cells(dice, side)
    dark = hsv(hue + dice.normal(0.03), dice.uniform(0.3, 0.95), dice.uniform(0.2, 0.65))
    faint = dice.pick((0.5, 0.75, 1.0, 1.0))
    for _ in range(dice.pick((0, 0, 3, 8))):  # out of focus, above or below
        width, height = round(dice.uniform(1.5, 5) * typical), round(dice.uniform(1.5, 5) * typical)
        ghost = sprite("halo", (width, height))
        x, y = anywhere(dice, side)
        canvas.picture.paste(dark, (int(x) - width // 2, int(y) - height // 2), ghost)
    inner = dice.uniform(0.1, 0.8)
    chromatin = noise.Sheet(dice, _CELL_KINDS, dice.log_uniform(0.5, 2))
    body = dice.chance(0.35)
    clear = dice.pick((0.0, 0.0, 0.3, 1.0))
    full = _rim(dice)
    for form, centre, radius in cells:
        outline = place(form, centre, radius)
        if body:  # the cell around it, unlabelled
            around = filled([place(form, centre, radius * dice.uniform(1.2, 1.9))])
            tint = dimmed(around.mask, 0.5)
            canvas.picture.paste(near(dice, second, 15), around.box, tint)
        shape = filled([outline])
        tone = near(dice, dark, 14)
        light = mixed(tone, ground, dice.uniform(0.15, 0.7))
        values = Image.new("L", shape.size, dice.integer(60, 140))
        values = Image.blend(values, chromatin.piece(dice, shape.size), inner)
        if radius > 7 and dice.chance(0.3):
            _spots(dice, values, radius)
        hollow = dice.chance(clear)  # pale inside, dark at the edge
        paint = coloured(values, palette([light, near(dice, light, 10), tone] if hollow else [tone, light]))
        if faint < 1:
            paint = Image.blend(canvas.picture.crop(shape.box), paint, faint * dice.uniform(0.6, 1))
        canvas.picture.paste(paint, shape.at, shape.mask if hollow else _fading(shape, form, centre, radius, full))
        canvas.claim(shape.mask, shape.at)
        if hollow or dice.chance(0.25):
            edge(canvas, outline, dice.uniform(1, 2.5), scaled(tone, 0.8))


def brightfield(dice: Dice, canvas: Canvas) -> None:
    """Unstained cells: a halo or thin line around an interior that looks like the ground."""
    side = canvas.side
    level = dice.integer(70, 190)
    base = near(dice, (level, level, level), 4)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.02, 0.2))
    _, cells = _cells(dice, side)
    bright, dark = min(255, level + dice.integer(15, 90)), max(0, level - dice.integer(15, 90))
    inner = dice.uniform(0.0, 0.5)
    chromatin = noise.Sheet(dice, _CELL_KINDS, dice.log_uniform(0.5, 2))
    halo = dice.uniform(1.5, 5) if dice.chance(0.7) else 0.0
    line = dice.uniform(0.8, 2.5)
    inside_out = dice.chance(0.4)
    for form, centre, radius in cells:
        outline = place(form, centre, radius)
        if halo:
            around = filled([place(form, centre, radius + halo)])
            canvas.picture.paste(near(dice, (dark if inside_out else bright,) * 3, 5), around.box, around.mask)
        shape = filled([outline])
        values = Image.new("L", shape.size, dice.integer(100, 150))
        values = Image.blend(values, chromatin.piece(dice, shape.size), inner)
        if dice.chance(0.3):
            values = Image.blend(values, ball(shape.size, 11), 0.4)
        if radius > 8 and dice.chance(0.4):
            _spots(dice, values, radius)
        low, high = near(dice, base, 12), near(dice, base, 12)
        canvas.add(shape.mask, shape.at, coloured(values, palette([scaled(low, 0.75), low, high, scaled(high, 1.25)])))
        edge(canvas, outline, line, near(dice, (bright if inside_out else dark,) * 3, 8))
