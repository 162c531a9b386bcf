"""Things with a hole: lying flat, around fingers, as on a shop's photograph."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops

from lora_sam.data.drawn import noise
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import clutter, shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import LARGEST_SHARE, Point, anywhere, crowd, diameters, radii_between, scatter
from lora_sam.data.drawn.materials import (
    Colour,
    apart,
    backdrop,
    colour,
    coloured,
    cone,
    hsv,
    material,
    metal,
    near,
    palette,
    ramp,
    scaled,
)
from lora_sam.data.drawn.outlines import Outline, arc, band, ellipse, outline_kind, place
from lora_sam.data.drawn.shapes import Pen, Shape, filled


def holed(dice: Dice, canvas: Canvas) -> None:
    """Rings, washers, frames, open rings and arcs, lying flat or tilted; the truth has no hole and no gap."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.05, 0.9))
    if dice.chance(0.5):
        clutter(dice, canvas, base)
    low, high = diameters(dice, side, least=14)
    count = crowd(dice, side, math.sqrt(low * high) / 2, 30)
    radii = np.sort(radii_between(dice, low, high, count))[::-1]
    sun = dice.integer(0, 11)
    contrast = dice.log_uniform(30, 255)
    squeeze = dice.uniform(0.25, 1)
    turn = dice.angle()
    shadows = dice.uniform(0.2, 0.8) if dice.chance(0.5) else 0.0
    offset = (dice.uniform(-8, 8), dice.uniform(-8, 8))
    alike = dice.chance(0.5)
    tones = [apart(dice, base, contrast / 2, contrast) for _ in range(1 if alike else 4)]
    surfaces = [material(dice, tone, sun) for tone in tones]
    metals = [metal(dice) for _ in tones]
    for _, centre, radius in scatter(dice, side, radii, gap=dice.pick((0.3, 0.6, 1.0))):
        if not alike:
            squeeze = dice.uniform(0.25, 1)
            turn = dice.angle()
        shape = ring(dice, centre, radius, squeeze, turn)
        if shadows:
            shadow(dice, canvas, shape, offset, shadows)
        if radius > 10 and dice.chance(0.35):
            paint = coloured(cone(shape.size, dice.integer(1, 4)), dice.pick(metals))
        else:
            paint = dice.pick(surfaces).paint(dice, shape.size)
        canvas.add(shape.mask, shape.at, paint)


def ring(dice: Dice, centre: Point, radius: float, squeeze: float, turn: float) -> Shape:
    """A flat thing with holes or a gap, which are background; `squeeze`: height over width, `turn`: radians."""
    inner = 1 - max(min(3 / radius, 0.5), dice.log_uniform(0.06, 0.45))
    kind = dice.uniform(0, 1)
    if kind < 0.45:
        hole = ellipse(inner, inner * squeeze) + np.array([dice.normal(0.02), 0])
        return filled([place(ellipse(1, squeeze), centre, radius, turn)], [place(hole, centre, radius, turn)])
    if kind < 0.7:
        start = dice.angle()
        end = start + math.tau - dice.log_uniform(0.15, 4.5)
        return filled([place(band(start, end, inner, squeeze), centre, radius, turn)])
    outline = outline_kind(dice)(dice)
    if kind < 0.9:
        return filled([place(outline, centre, radius, turn)], [place(outline * inner, centre, radius, turn)])
    holes = []
    for angle in np.linspace(0, math.tau, dice.integer(2, 6), False):
        at = np.array([math.cos(angle), math.sin(angle)]) * 0.55
        holes.append(place(ellipse(0.22, 0.22) + at, centre, radius, turn))
    return filled([place(ellipse(1, 1), centre, radius, turn)], holes)


def worn(dice: Dice, canvas: Canvas) -> None:
    """Bands around bars and fingers: what is seen is a bent strip across each."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 1))
    if dice.chance(0.6):
        canvas.picture = canvas.picture.resize((side // 8, side // 8), Image.Resampling.BOX).resize((side, side))
    skin = (
        hsv(dice.uniform(0.02, 0.09), dice.uniform(0.2, 0.6), dice.uniform(0.3, 1))
        if dice.chance(0.6)
        else colour(dice)
    )
    half = dice.log_uniform(10, side * 0.22)
    turn = dice.angle()
    count = dice.integer(1, max(1, min(5, int(side / (2.4 * half)))))
    along = np.array([math.cos(turn), math.sin(turn)])
    across = np.array([-along[1], along[0]])
    middle = np.array([dice.uniform(0.3, 0.7), dice.uniform(0.3, 0.7)]) * side
    for k in range(count):
        width = half * dice.uniform(0.85, 1.15)
        origin = middle + across * (k - (count - 1) / 2) * 2.1 * half + along * dice.normal(half)
        _finger(dice, canvas, origin, along, across, width, near(dice, skin, 8))


def _finger(
    dice: Dice, canvas: Canvas, origin: Outline, along: Outline, across: Outline, width: float, skin: Colour
) -> None:
    """A bar with a round section, from beyond the picture to a round tip, with bands on it.

    Args:
        dice: Chooses its length and its bands.
        canvas: Where it is drawn.
        origin: (x, y) of a place on its axis.
        along: Unit vector to its tip.
        across: Unit vector to its side.
        width: From its axis to its edge, in pixels.
        skin: Colour of the bar.
    """
    side = canvas.side
    frame = np.stack([along, across])
    tip = width * dice.uniform(1.5, 7)
    back = -1.2 * side
    narrow = dice.uniform(0.7, 1)
    cap = arc(math.pi / 2, -math.pi / 2, 20) * (0.9 * width, narrow * width) + (tip, 0)
    outline = np.concatenate([[[back, -width], [back, width]], cap])
    shape = filled([outline @ frame + origin])
    angle = math.atan2(float(across[1]), float(across[0]))
    tones = [scaled(skin, f) for f in (0.45, 0.9, 1.12, 1.0, 0.8, 0.4)]
    bar = shape.within(side)
    if bar is None:
        return
    values = _across(bar.size, bar.at, origin, angle, width)
    if dice.chance(0.6):
        values = Image.blend(
            values, noise.texture(dice, bar.size, ("cloud", "grain", "fibre", "vein")), dice.uniform(0.03, 0.2)
        )
    canvas.add(bar.mask, bar.at, coloured(values, palette(tones)), label=dice.chance(0.3))
    shiny = metal(dice)
    for _ in range(1 if dice.chance(0.75) else 2):
        thick = width * dice.log_uniform(0.12, 0.7)
        bow = width * dice.uniform(-0.5, 0.5)
        at = dice.uniform(-1.5 * width, tip - 0.5 * width)
        profile = np.linspace(-1, 1, 24)
        curve = bow * np.sqrt(1 - profile**2)
        reach = width * dice.uniform(1.0, 1.12)
        strip = np.concatenate(
            [
                np.stack([at + curve - thick / 2, profile * reach], 1),
                np.stack([at + curve + thick / 2, profile * reach], 1)[::-1],
            ]
        )
        pen = Pen((np.concatenate([strip, [[at, -2 * width], [at, 2 * width]]]) @ frame) + origin, margin=width)
        pen.fill(strip @ frame + origin)
        if dice.chance(0.35):
            stone = place(
                outline_kind(dice)(dice), (at + bow, dice.normal(0.1 * width)), thick * dice.uniform(0.5, 1.2)
            )
            pen.fill(stone @ frame + origin)
        worn_band = pen.shape()
        trimmed = worn_band.mask.getbbox()
        if trimmed is None:
            continue
        mask = worn_band.mask.crop(trimmed)
        corner = (worn_band.at[0] + trimmed[0], worn_band.at[1] + trimmed[1])
        shadow(dice, canvas, Shape(mask, corner), (dice.normal(2), dice.normal(2)), dice.uniform(0.1, 0.5))
        values = _across(mask.size, corner, origin, angle, reach * dice.uniform(1, 1.3))
        if dice.chance(0.6):
            values = Image.blend(
                values, ramp(dice, mask.size, angle + math.pi / 2, dice.uniform(1.2, 4)), dice.uniform(0.2, 0.5)
            )
        if dice.chance(0.4):
            values = Image.blend(
                values, noise.texture(dice, mask.size, ("weave", "speck", "cell", "vein")), dice.uniform(0.2, 0.6)
            )
        canvas.add(mask, corner, coloured(values, shiny))


def _across(size: tuple[int, int], corner: tuple[int, int], origin: Outline, angle: float, reach: float) -> Image.Image:
    """Place across a bar, 0 to 255 from edge to edge, for a window whose corner is `corner`."""
    x = (np.arange(size[0], dtype=np.float32) + np.float32(corner[0] - origin[0])) * np.float32(math.cos(angle) / reach)
    y = (np.arange(size[1], dtype=np.float32) + np.float32(corner[1] - origin[1])) * np.float32(math.sin(angle) / reach)
    return Image.fromarray((np.clip(np.add.outer(y, x), -1, 1) * 127 + 127).astype(np.uint8))


def jewellery(dice: Dice, canvas: Canvas) -> None:
    """Solid rings as on a shop's photograph: the band seen in perspective, with its inside, stones and reflections."""
    side = canvas.side
    base = scaled((255, 255, 255), dice.uniform(0.8, 1)) if dice.chance(0.6) else colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0, 0.15) if dice.chance(0.6) else dice.uniform(0.1, 0.8))
    count = dice.pick((1, 1, 2, 2, 3, 6))
    largest = LARGEST_SHARE * side / 2
    if count > 3:
        radius = dice.log_uniform(14, largest / 3)
    else:
        radius = dice.uniform(0.4 * largest, largest) if dice.chance(0.6) else dice.log_uniform(20, largest)
    colours = metal(dice)
    middle = (dice.uniform(0.35, 0.65) * side, dice.uniform(0.35, 0.65) * side)
    together = dice.chance(0.6)
    numbers = []
    for _ in range(count):
        centre = (
            (middle[0] + dice.normal(radius * 0.7), middle[1] + dice.normal(radius * 0.4))
            if together
            else anywhere(dice, side)
        )
        if dice.chance(0.3):
            colours = metal(dice)
        numbers.append(_solid_ring(dice, canvas, centre, radius * dice.uniform(0.8, 1.1), colours))
    if together and 1 < count < 4 and dice.chance(0.7):
        canvas.group(numbers)


def _solid_ring(dice: Dice, canvas: Canvas, centre: Point, radius: float, colours: bytes) -> int:
    """Draw a ring whose band has a depth, perhaps with a stone; the palette `colours` is its metal.

    Returns:
        The object's number.
    """
    squeeze = dice.uniform(0.12, 0.95)
    turn = dice.angle() if dice.chance(0.6) else dice.normal(0.3)
    thick = max(2.5 / radius, dice.log_uniform(0.04, 0.25))
    depth = dice.log_uniform(0.08, 0.7) * math.sqrt(1 - squeeze**2)
    front, back = np.array([0, depth / 2]), np.array([0, -depth / 2])
    outer, inner = ellipse(1, squeeze), ellipse(1 - thick, squeeze * (1 - thick))

    def put(outline: Outline) -> Outline:
        return place(outline, centre, radius, turn)

    stone = dice.chance(0.5)
    top = np.array([math.cos(angle := dice.angle()), math.sin(angle) * squeeze])
    extent = [put(outer + front), put(outer + back)]
    jewel = place(outline_kind(dice)(dice) if dice.chance(0.5) else ellipse(1, 1), (0, 0), dice.log_uniform(0.12, 0.45))
    jewel = jewel + top * dice.uniform(1, 1.25)
    if stone:
        extent.append(put(jewel))
    window = np.concatenate(extent)

    def covered(*outlines: Outline) -> Shape:
        pen = Pen(window, margin=2)
        for outline in outlines:
            pen.fill(put(outline))
        return pen.shape()

    between = np.array([[-1, -depth / 2], [1, -depth / 2], [1, depth / 2], [-1, depth / 2]])
    solid = covered(outer + front, outer + back, between)
    inside = covered(inner + front).mask
    hole = ImageChops.darker(inside, covered(inner + back).mask)
    mask = ImageChops.subtract(solid.mask, hole)
    around = cone(solid.size, dice.integer(1, 4))
    values = Image.blend(around, ramp(dice, solid.size, turn + math.pi / 2, dice.uniform(1, 6)), dice.uniform(0.1, 0.6))
    if dice.chance(0.4):
        kinds = ("weave", "speck", "cell", "marble", "vein")
        values = Image.blend(values, noise.texture(dice, solid.size, kinds), dice.uniform(0.2, 0.7))
    within = Image.blend(cone(solid.size, dice.integer(1, 3)), Image.new("L", solid.size, dice.integer(40, 220)), 0.5)
    values.paste(within, (0, 0), inside)
    rims = Pen(window, margin=2)
    for outline in (inner + front, outer + front):
        rims.line(put(np.concatenate([outline, outline[:1]])), max(1.0, radius * thick * 0.25))
    values.paste(dice.pick((10, 245)), (0, 0, *values.size), rims.shape().mask)
    if stone:
        gem = covered(jewel).mask
        facets = noise.texture(dice, solid.size, ("cell", "check", "grain", "cell"), dice.log_uniform(0.5, 2))
        values.paste(Image.blend(facets, Image.new("L", solid.size, dice.integer(100, 255)), 0.3), (0, 0), gem)
        mask = ImageChops.lighter(mask, gem)
    shape = Shape(mask, solid.at)
    if dice.chance(0.6):
        shadow(dice, canvas, shape, (dice.normal(5), dice.uniform(0, 0.15 * radius)), dice.uniform(0.1, 0.5))
    return canvas.add(mask, solid.at, coloured(values, colours))
