"""Styles of scenes. Each draws ground and objects on a canvas; sizes are in pixels, numbers grow with the area."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawing import noise
from lora_sam.data.drawing.camera import noisy, soft
from lora_sam.data.drawing.canvas import Canvas
from lora_sam.data.drawing.dice import Dice
from lora_sam.data.drawing.materials import (
    Colour,
    Material,
    apart,
    backdrop,
    ball,
    colour,
    coloured,
    cone,
    hsv,
    material,
    metal,
    mixed,
    near,
    palette,
    ramp,
    scaled,
    sprite,
)
from lora_sam.data.drawing.shapes import (
    Outline,
    Pen,
    Shape,
    arc,
    band,
    blobs,
    ellipse,
    filled,
    island,
    outline_kind,
    place,
    stroke,
    walk,
)

SMALLEST = 8.0
LARGEST_SHARE = 0.8
_TURN = 2 * math.pi
_FULL_AREA = 512 * 512

Point = tuple[float, float]


def _crowd(dice: Dice, side: int, radius: float, most: int) -> int:
    """How many objects of this radius: from some to a dense crowd, at most `most` on 512 × 512 pixels."""
    fitting = 0.6 * side * side / (math.pi * radius * radius)
    limit = max(2.0, min(fitting, most * side * side / _FULL_AREA))
    return round(dice.log_uniform(2, limit) if dice.chance(0.4) else dice.log_uniform(limit / 3, limit))


def _diameters(dice: Dice, side: int) -> tuple[float, float]:
    """Range of diameters in a scene, in pixels."""
    largest = LARGEST_SHARE * side
    kind = dice.uniform(0, 1)
    if kind < 0.35:
        return 12, min(45, largest)
    if kind < 0.65:
        return SMALLEST, largest
    low = dice.log_uniform(SMALLEST, largest / 2)
    return low, min(largest, low * dice.uniform(1.5, 5))


def _anywhere(dice: Dice, side: int) -> Point:
    return dice.uniform(0, side), dice.uniform(0, side)


def scatter(
    dice: Dice,
    side: int,
    radii: Sequence[float] | NDArray[np.float64],
    *,
    gap: float,
    clusters: int = 0,
    spread: float | None = None,
) -> list[tuple[int, Point]]:
    """Places for discs: (which radius, centre (x, y)) of those that found room.

    Args:
        dice: Source of the places.
        side: Side of the picture.
        radii: Radii in pixels.
        gap: Least distance of two centres, in sums of their radii: below 1 they overlap.
        clusters: Number of clusters around which they gather; 0 for everywhere.
        spread: Standard deviation of the places in a cluster in pixels; None for a share of the side.
    """
    rng = dice.array
    count = len(radii)
    tries = 10
    if clusters:
        centres = rng.uniform(0.05, 0.95, (clusters, 2)) * side
        spread = dice.uniform(0.05, 0.18) * side if spread is None else spread
        candidates = centres[rng.integers(0, clusters, (count, tries))] + rng.normal(0, spread, (count, tries, 2))
    else:
        candidates = rng.uniform(0, side, (count, tries, 2))
    taken = np.empty((count, 2))
    sizes = np.empty(count)
    result: list[tuple[int, Point]] = []
    for index in range(count):
        found = len(result)
        options = candidates[index]
        apart = np.hypot(*(options[:, None] - taken[:found]).transpose(2, 0, 1)) - gap * (sizes[:found] + radii[index])
        free = (apart > 0).all(1) & (options >= 0).all(1) & (options < side).all(1)
        if free.any():
            x, y = options[int(free.argmax())].tolist()
            taken[found], sizes[found] = (x, y), radii[index]
            result.append((index, (x, y)))
    return result


def _shadow(dice: Dice, canvas: Canvas, shape: Shape, offset: Point, depth: float) -> None:
    """Darken what lies beside a shape; that of a large one is computed at a quarter of the resolution."""
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
    canvas.picture.paste((10, 8, 5), (*at, at[0] + wide.width, at[1] + wide.height), wide)


def _clutter(dice: Dice, canvas: Canvas, base: Colour) -> None:
    """Lines, specks and faint patches that nobody labels."""
    side = canvas.side
    for _ in range(dice.integer(1, max(2, 8 * side // 512))):
        tone = near(dice, base, dice.uniform(10, 70))
        if dice.chance(0.6):
            path = walk(dice, _anywhere(dice, side), dice.log_uniform(20, side), 0.15, 12, dice.uniform(0, _TURN))
            shape = stroke(path, dice.log_uniform(1, 6))
        else:
            outline = outline_kind(dice)(dice)
            shape = filled([place(outline, _anywhere(dice, side), dice.log_uniform(4, 60), dice.uniform(0, _TURN))])
        if dice.chance(0.5):
            shape = Shape(shape.mask.point([round(v * 0.45) for v in range(256)]), shape.at)
        canvas.picture.paste(tone, shape.box, shape.mask)


def natural(dice: Dice, canvas: Canvas) -> None:
    """Solid and flat things of all forms on textured ground, shaded, with shadows, covering one another."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 1))
    if dice.chance(0.5):
        _clutter(dice, canvas, base)
    low, high = _diameters(dice, side)
    middle = math.sqrt(low * high) / 2
    count = _crowd(dice, side, middle, 45)
    sun = dice.integer(0, 11)
    offset = (dice.uniform(-10, 10), dice.uniform(-10, 10))
    shadows = dice.uniform(0.2, 0.8) if dice.chance(0.4) else 0.0
    contrast = dice.log_uniform(25, 255)
    variety = 1 if dice.chance(0.35) else 6
    kinds = [outline_kind(dice) for _ in range(variety)]
    surfaces = [material(dice, apart(dice, base, contrast / 2, contrast), sun) for _ in range(variety)]
    radii = np.exp(dice.array.uniform(math.log(low / 2), math.log(high / 2), count))
    if dice.chance(0.6):
        radii = np.sort(radii)[::-1]
    for index, centre in scatter(dice, side, radii, gap=dice.pick((0.0, 0.5, 0.8, 1.05))):
        radius = float(radii[index])
        if radius > 12 and dice.chance(0.12):
            shape = island(dice, centre, radius)
        else:
            shape = filled([place(dice.pick(kinds)(dice), centre, radius, dice.uniform(0, _TURN))])
        if shadows:
            _shadow(dice, canvas, shape, offset, shadows)
        canvas.add(shape.mask, shape.at, dice.pick(surfaces).paint(dice, shape.size))
        if radius > 15 and dice.chance(0.15):
            _mark(dice, canvas, shape)


def _mark(dice: Dice, canvas: Canvas, shape: Shape) -> None:
    """Lines on a thing that belong to it."""
    width, height = shape.size
    pen = Pen(np.array([[0.0, 0.0], [width, height]]) + shape.at)
    for _ in range(dice.integer(1, 4)):
        start = (shape.at[0] + dice.uniform(0, width), shape.at[1] + dice.uniform(0, height))
        pen.line(walk(dice, start, max(width, height), 0.1, 8, dice.uniform(0, _TURN)), dice.log_uniform(1, 6))
    lines = pen.shape()
    inside = Image.new("L", shape.size)
    inside.paste(lines.mask, (lines.at[0] - shape.at[0], lines.at[1] - shape.at[1]))
    inside = ImageChops.darker(inside, shape.mask)
    canvas.picture.paste(colour(dice), shape.box, inside)


_CELL_KINDS = ("cloud", "grain", "blotch", "vein", "patch", "speck")


def _cells(dice: Dice, side: int) -> tuple[NDArray[np.float64], list[tuple[int, Point]], NDArray[np.float64]]:
    """Radii, places and outlines of the cells or nuclei of a micrograph."""
    middle = dice.log_uniform(6, 26) if dice.chance(0.8) else dice.log_uniform(20, side / 6)
    count = _crowd(dice, side, middle, 70)
    radii = middle * np.exp(dice.array.normal(0, dice.uniform(0.05, 0.35), count))
    radii = np.clip(radii, SMALLEST / 2, LARGEST_SHARE * side / 2)
    clusters = dice.integer(1, 6) if dice.chance(0.35) else 0
    places = scatter(dice, side, radii, gap=dice.pick((0.65, 0.8, 0.9, 1.0, 1.15)), clusters=clusters)
    rough = dice.pick((0.05, 0.12, 0.2, 0.35))
    return radii, places, blobs(dice, count, rough, dice.pick((1.15, 1.5, 2.0, 3.0)))


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
    canvas.picture = haze.point([round(dark + v * strength) for v in range(256)])
    radii, places, outlines = _cells(dice, side)
    level, spread = dice.log_uniform(45, 230), dice.pick((0.1, 0.3, 0.6))
    inner = dice.pick((0.0, 0.15, 0.35, 0.6))
    dome = dice.pick((0.0, 0.2, 0.5))
    chromatin = noise.Sheet(dice, _CELL_KINDS, dice.log_uniform(0.5, 2))
    glow = dice.pick((0.0, 0.0, 0.3))
    rim = dice.pick((0.0, 0.0, 0.3, 1.0))
    tone = dice.pick((0.5, 0.75, 1.3))
    loose = dice.pick((0.0, 0.0, 0.15))
    for index, centre in places:
        radius = float(radii[index])
        shape = filled([place(outlines[index], centre, radius)])
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
        mask = shape.mask
        if loose and dice.chance(loose):
            mask = mask.filter(ImageFilter.BoxBlur(radius / 6))
            shape = Shape(mask, shape.at)
        canvas.add(mask, shape.at, values)
        if dice.chance(rim):
            _outline(
                canvas, place(outlines[index], centre, radius), max(1, radius * 0.1), min(255, round(bright * tone))
            )
    if dice.chance(0.15):
        _debris(dice, canvas)
    if dice.chance(0.75):
        canvas.picture = soft(canvas.picture, dice.log_uniform(0.7, 2.2))
    if dice.chance(0.6):
        canvas.picture = noisy(dice, canvas.picture, dice.log_uniform(1.5, 20))
    if dice.chance(0.3):  # exposed for the brightest
        gain = dice.log_uniform(0.15, 0.8)
        canvas.picture = canvas.picture.point([round(v * gain) for v in range(256)])
    canvas.picture = coloured(canvas.picture, _false_colours(dice))


def _false_colours(dice: Dice) -> bytes:
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
    """Small dark or bright bodies within a nucleus, in place."""
    for _ in range(dice.integer(1, 4)):
        size = max(2, round(radius * dice.uniform(0.15, 0.5)))
        at = (round(values.width * dice.uniform(0.2, 0.7)), round(values.height * dice.uniform(0.2, 0.7)))
        spot = sprite("spot", (size, size))
        values.paste(dice.pick((90, 120, 240, 255)), (*at, at[0] + size, at[1] + size), spot)


def _glow(canvas: Canvas, shape: Shape, level: int) -> None:
    """Light around an object that is out of the plane of focus."""
    width, height = shape.size
    mask = sprite("halo", (width * 2, height * 2))
    at = (shape.at[0] - width // 2, shape.at[1] - height // 2)
    box = (max(0, at[0]), max(0, at[1]), min(canvas.side, at[0] + mask.width), min(canvas.side, at[1] + mask.height))
    if box[0] < box[2] and box[1] < box[3]:
        light = mask.crop((box[0] - at[0], box[1] - at[1], box[2] - at[0], box[3] - at[1]))
        light = Image.blend(Image.new("L", light.size), light, level / 255)
        canvas.picture.paste(ImageChops.lighter(canvas.picture.crop(box), light), box)


def _outline(canvas: Canvas, outline: Outline, width: float, paint: int | Colour) -> None:
    """Draw an outline on the picture, owned by nobody new."""
    middle = outline.mean(0)
    arms = outline - middle
    share = width / 2 / max(1.0, float(np.abs(arms).max(0).mean()))
    shape = filled([arms * (1 + share) + middle], [arms * max(0.0, 1 - share) + middle])
    canvas.picture.paste(paint, shape.box, shape.mask)


def _debris(dice: Dice, canvas: Canvas) -> None:
    """Bright dust and threads in a grey picture."""
    side = canvas.side
    for _ in range(dice.integer(1, 8)):
        shape = stroke(
            walk(dice, _anywhere(dice, side), dice.log_uniform(4, 60), 0.4, 4, dice.uniform(0, _TURN)),
            dice.log_uniform(1, 4),
        )
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
    stops = [
        near(dice, ground, 12),
        ground,
        mixed(ground, second, amount),
    ]
    picture = coloured(noise.texture(dice, size, ("fibre", "cloud", "vein"), dice.log_uniform(1, 4)), palette(stops))
    if dice.chance(0.6):
        other = coloured(noise.texture(dice, size, ("fibre", "cloud", "blotch", "marble")), palette(stops[::-1]))
        picture = Image.blend(picture, other, dice.uniform(0.2, 0.6))
    if dice.chance(0.3):  # empty places between tissue
        table = [min(255, max(0, (v - 150) * 12)) for v in range(256)]
        holes = noise.texture(dice, size, ("cloud", "blotch"), dice.log_uniform(1.5, 4)).point(table)
        picture.paste(near(dice, (235, 235, 235), 10), (0, 0, side, side), holes)
    canvas.picture = picture
    radii, places, outlines = _cells(dice, side)
    dark = hsv(hue + dice.normal(0.03), dice.uniform(0.3, 0.95), dice.uniform(0.2, 0.65))
    faint = dice.pick((0.5, 0.75, 1.0, 1.0))
    for _ in range(dice.pick((0, 0, 3, 8))):  # out of focus, above or below
        width, height = round(dice.uniform(1.5, 5) * radii[0]), round(dice.uniform(1.5, 5) * radii[0])
        ghost = sprite("halo", (width, height))
        x, y = _anywhere(dice, side)
        canvas.picture.paste(dark, (int(x) - width // 2, int(y) - height // 2), ghost)
    inner = dice.uniform(0.1, 0.8)
    chromatin = noise.Sheet(dice, _CELL_KINDS, dice.log_uniform(0.5, 2))
    body = dice.chance(0.35)
    clear = dice.pick((0.0, 0.0, 0.3, 1.0))
    for index, centre in places:
        radius = float(radii[index])
        outline = place(outlines[index], centre, radius)
        if body:  # the cell around it, unlabelled
            around = filled([place(outlines[index], centre, radius * dice.uniform(1.2, 1.9))])
            tint = around.mask.point([round(v * 0.5) for v in range(256)])
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
        canvas.add(shape.mask, shape.at, paint)
        if hollow or dice.chance(0.25):
            _outline(canvas, outline, dice.uniform(1, 2.5), scaled(tone, 0.8))


def brightfield(dice: Dice, canvas: Canvas) -> None:
    """Unstained cells: a halo or thin line around an interior that looks like the ground."""
    side = canvas.side
    level = dice.integer(70, 190)
    base = near(dice, (level, level, level), 4)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.02, 0.2))
    radii, places, outlines = _cells(dice, side)
    bright, dark = min(255, level + dice.integer(15, 90)), max(0, level - dice.integer(15, 90))
    inner = dice.uniform(0.0, 0.5)
    chromatin = noise.Sheet(dice, _CELL_KINDS, dice.log_uniform(0.5, 2))
    halo = dice.uniform(1.5, 5) if dice.chance(0.7) else 0.0
    line = dice.uniform(0.8, 2.5)
    inside_out = dice.chance(0.4)
    for index, centre in places:
        radius = float(radii[index])
        outline = place(outlines[index], centre, radius)
        if halo:
            around = filled([place(outlines[index], centre, radius + halo)])
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
        _outline(canvas, outline, line, near(dice, (bright if inside_out else dark,) * 3, 8))


def thin(dice: Dice, canvas: Canvas) -> None:
    """Lines: worms, cracks, vessels, rivers, wires, letters; the truth is the material only."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.05, 0.8))
    if dice.chance(0.3):
        _clutter(dice, canvas, base)
    contrast = dice.log_uniform(30, 255)
    kind = dice.pick((_worm, _worm, _crack, _vessel, _river, _letter, _grille))
    mixed = dice.chance(0.3)
    sun = dice.integer(0, 11)
    surface = material(dice, apart(dice, base, contrast / 2, contrast), sun)
    length = dice.log_uniform(24, LARGEST_SHARE * side)
    count = _crowd(dice, side, length / 2, 24)
    for _ in range(count):
        if mixed:
            kind = dice.pick((_worm, _crack, _vessel, _river, _letter, _grille))
        shape = kind(dice, _anywhere(dice, side), length * dice.uniform(0.6, 1.2))
        if dice.chance(0.15):
            _shadow(dice, canvas, shape, (dice.uniform(1, 5), dice.uniform(1, 5)), 0.5)
        canvas.add(shape.mask, shape.at, surface.paint(dice, shape.size))


def _worm(dice: Dice, start: Point, length: float) -> Shape:
    step = max(2.0, length / 30)
    path = walk(dice, start, length, dice.uniform(0.05, 0.35), step, dice.uniform(0, _TURN))
    width = max(2.5, length * dice.log_uniform(0.03, 0.2))
    taper = np.sin(np.linspace(0.25, math.pi - 0.25, len(path))) ** dice.uniform(0, 1)
    return stroke(path, np.maximum(width * taper, 2.0).tolist())


def _crack(dice: Dice, start: Point, length: float) -> Shape:
    heading = dice.uniform(0, _TURN)
    paths: list[Outline] = []
    for branch in range(dice.integer(1, 4)):
        origin = np.array(start) if branch == 0 else paths[0][dice.integer(0, len(paths[0]) - 1)]
        reach = length if branch == 0 else length * dice.uniform(0.2, 0.6)
        angle = heading if branch == 0 else heading + dice.sign() * dice.uniform(0.4, 1.2)
        steps = max(3, round(reach / dice.uniform(4, 14)))
        turns = angle + dice.array.normal(0, dice.uniform(0.3, 0.8), steps)
        hops = np.stack([np.cos(turns), np.sin(turns)], 1) * (reach / steps)
        paths.append(np.concatenate([origin[None], np.cumsum(hops, 0) + origin]))
    width = dice.log_uniform(2, 7)
    return _strokes(paths, [width * dice.array.uniform(0.5, 1.3, len(path)) for path in paths])


def _vessel(dice: Dice, start: Point, length: float) -> Shape:
    width = max(3.0, length * dice.log_uniform(0.02, 0.09))
    paths: list[Outline] = []
    widths: list[NDArray[np.float64]] = []
    queue = [(start, dice.uniform(0, _TURN), length * 0.5, width)]
    while queue and len(paths) < 9:
        origin, angle, reach, thick = queue.pop(0)
        path = walk(dice, origin, reach, 0.12, max(3.0, reach / 12), angle)
        paths.append(path)
        widths.append(np.linspace(thick, thick * 0.8, len(path)))
        if thick > 2.5:
            end = (float(path[-1, 0]), float(path[-1, 1]))
            heading = math.atan2(*(path[-1] - path[-2])[::-1])
            for sign in (-1, 1):
                queue.append(
                    (end, heading + sign * dice.uniform(0.2, 0.7), reach * dice.uniform(0.5, 0.9), thick * 0.7)
                )
    return _strokes(paths, widths)


def _river(dice: Dice, start: Point, length: float) -> Shape:
    count = 28
    along = np.linspace(-0.5, 0.5, count) * length * 1.4
    bend = sum(dice.uniform(0, 0.14) * length * np.sin(k * along / length * 4 + dice.uniform(0, 6)) for k in (1, 2, 3))
    turn = dice.uniform(0, _TURN)
    path = np.stack([along * math.cos(turn) - bend * math.sin(turn), along * math.sin(turn) + bend * math.cos(turn)], 1)
    width = np.exp(dice.array.normal(0, 0.15, count)) * max(3.0, length * dice.log_uniform(0.02, 0.2))
    return _strokes([path + start], [np.convolve(width, np.ones(5) / 5, "same") + 1])


def _letter(dice: Dice, start: Point, length: float) -> Shape:
    size = length * 0.6
    knots = np.array([(x, y) for x in (-0.3, 0, 0.3) for y in (-0.5, 0, 0.5)])
    paths = []
    for _ in range(dice.integer(1, 3)):
        path = knots[dice.array.permutation(9)[: dice.integer(2, 5)]]
        paths.append(path * size + start)
    if dice.chance(0.4):
        paths.append(arc(0, dice.uniform(2, _TURN), 20) * size * 0.3 + start)
    width = max(2.5, size * dice.uniform(0.06, 0.2))
    return _strokes(paths, [np.full(len(path), width) for path in paths])


def _grille(dice: Dice, start: Point, length: float) -> Shape:
    """A comb, ladder, fence or grid."""
    rows, columns = dice.integer(1, 4), dice.integer(2, 7)
    height = length * dice.uniform(0.3, 0.8)
    paths = [np.array([(-0.5, y), (0.5, y)]) for y in np.linspace(-0.5, 0.5, rows)]
    paths += [np.array([(x, -0.5), (x, 0.5)]) for x in np.linspace(-0.5, 0.5, columns)]
    turn = dice.uniform(0, _TURN)
    width = max(2.0, min(length / columns, height / rows) * dice.uniform(0.1, 0.35))
    return _strokes(
        [place(path * (length, height), start, 1, turn) for path in paths], [np.full(2, width) for _ in paths]
    )


def _strokes(paths: Sequence[Outline], widths: Sequence[NDArray[np.float64]]) -> Shape:
    pen = Pen(np.concatenate(list(paths)), margin=max(float(width.max()) for width in widths))
    for path, width in zip(paths, widths, strict=True):
        pen.line(path, width.tolist())
    return pen.shape()


def holed(dice: Dice, canvas: Canvas) -> None:
    """Rings, washers, frames, open rings and arcs, lying flat or tilted; the truth has no hole and no gap."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.05, 0.9))
    if dice.chance(0.5):
        _clutter(dice, canvas, base)
    low, high = _diameters(dice, side)
    low = max(low, 14)
    count = _crowd(dice, side, math.sqrt(low * max(high, low)) / 2, 30)
    radii = np.sort(np.exp(dice.array.uniform(math.log(low / 2), math.log(max(high, low) / 2), count)))[::-1]
    sun = dice.integer(0, 11)
    contrast = dice.log_uniform(30, 255)
    squeeze = dice.uniform(0.25, 1)
    turn = dice.uniform(0, _TURN)
    shadows = dice.uniform(0.2, 0.8) if dice.chance(0.5) else 0.0
    offset = (dice.uniform(-8, 8), dice.uniform(-8, 8))
    alike = dice.chance(0.5)
    tones = [apart(dice, base, contrast / 2, contrast) for _ in range(1 if alike else 4)]
    surfaces = [material(dice, tone, sun) for tone in tones]
    metals = [metal(dice) for _ in tones]
    for index, centre in scatter(dice, side, radii, gap=dice.pick((0.3, 0.6, 1.0))):
        radius = float(radii[index])
        if not alike:
            squeeze = dice.uniform(0.25, 1)
            turn = dice.uniform(0, _TURN)
        shape = ring(dice, centre, radius, squeeze, turn)
        if shadows:
            _shadow(dice, canvas, shape, offset, shadows)
        if radius > 10 and dice.chance(0.35):
            paint = coloured(cone(shape.size, dice.integer(1, 4)), dice.pick(metals))
        else:
            paint = dice.pick(surfaces).paint(dice, shape.size)
        canvas.add(shape.mask, shape.at, paint)


def ring(dice: Dice, centre: Point, radius: float, squeeze: float, turn: float) -> Shape:
    """One flat thing with a hole, a gap or both; its hole is background."""
    inner = 1 - max(min(3 / radius, 0.5), dice.log_uniform(0.06, 0.45))
    kind = dice.uniform(0, 1)
    if kind < 0.45:
        hole = ellipse(inner, inner * squeeze) + np.array([dice.normal(0.02), 0])
        return filled([place(ellipse(1, squeeze), centre, radius, turn)], [place(hole, centre, radius, turn)])
    if kind < 0.7:
        start = dice.uniform(0, _TURN)
        end = start + _TURN - dice.log_uniform(0.15, 4.5)
        return filled([place(band(start, end, inner, squeeze), centre, radius, turn)])
    outline = outline_kind(dice)(dice)
    if kind < 0.9:
        return filled([place(outline, centre, radius, turn)], [place(outline * inner, centre, radius, turn)])
    holes = []
    for angle in np.linspace(0, _TURN, dice.integer(2, 6), False):
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
    turn = dice.uniform(0, _TURN)
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
    """A round bar from beyond the picture to a round tip, with bands on it."""
    side = canvas.side
    frame = np.stack([along, across])
    tip = width * dice.uniform(1.5, 7)
    back = -1.6 * side
    narrow = dice.uniform(0.7, 1)
    cap = arc(math.pi / 2, -math.pi / 2, 20) * (0.9 * width, narrow * width) + (tip, 0)
    outline = np.concatenate([[[back, -width], [back, width]], cap])
    # keep the window near the picture
    outline[:2, 0] = np.maximum(outline[:2, 0], -1.2 * side)
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
        _shadow(dice, canvas, Shape(mask, corner), (dice.normal(2), dice.normal(2)), dice.uniform(0.1, 0.5))
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
            else _anywhere(dice, side)
        )
        if dice.chance(0.3):
            colours = metal(dice)
        numbers.append(_solid_ring(dice, canvas, centre, radius * dice.uniform(0.8, 1.1), colours))
    if together and 1 < count < 4 and dice.chance(0.7):
        canvas.group(numbers)


def _solid_ring(dice: Dice, canvas: Canvas, centre: Point, radius: float, colours: bytes) -> int:
    squeeze = dice.uniform(0.12, 0.95)
    turn = dice.uniform(0, _TURN) if dice.chance(0.6) else dice.normal(0.3)
    thick = max(2.5 / radius, dice.log_uniform(0.04, 0.25))
    depth = dice.log_uniform(0.08, 0.7) * math.sqrt(1 - squeeze**2)
    front, back = np.array([0, depth / 2]), np.array([0, -depth / 2])
    outer, inner = ellipse(1, squeeze), ellipse(1 - thick, squeeze * (1 - thick))

    def put(outline: Outline) -> Outline:
        return place(outline, centre, radius, turn)

    stone = dice.chance(0.5)
    top = np.array([math.cos(angle := dice.uniform(0, _TURN)), math.sin(angle) * squeeze])
    extent = [put(outer + front), put(outer + back)]
    jewel = place(outline_kind(dice)(dice) if dice.chance(0.5) else ellipse(1, 1), (0, 0), dice.log_uniform(0.12, 0.45))
    jewel = jewel + top * dice.uniform(1, 1.25)
    if stone:
        extent.append(put(jewel))
    pen = Pen(np.concatenate(extent), margin=2)
    hull = [
        put(outer + front),
        put(outer + back),
        put(np.array([[-1, -depth / 2], [1, -depth / 2], [1, depth / 2], [-1, depth / 2]])),
    ]
    for outline in hull:
        pen.fill(outline)
    seen = Pen(np.concatenate(extent), margin=2)
    seen.fill(put(inner + front))
    other = Pen(np.concatenate(extent), margin=2)
    other.fill(put(inner + back))
    inside = seen.shape().mask
    hole = ImageChops.darker(inside, other.shape().mask)
    solid = pen.shape()
    mask = ImageChops.subtract(solid.mask, hole)
    around = cone(solid.size, dice.integer(1, 4))
    values = Image.blend(around, ramp(dice, solid.size, turn + math.pi / 2, dice.uniform(1, 6)), dice.uniform(0.1, 0.6))
    if dice.chance(0.4):
        kinds = ("weave", "speck", "cell", "marble", "vein")
        values = Image.blend(values, noise.texture(dice, solid.size, kinds), dice.uniform(0.2, 0.7))
    within = Image.blend(cone(solid.size, dice.integer(1, 3)), Image.new("L", solid.size, dice.integer(40, 220)), 0.5)
    values.paste(within, (0, 0), inside)
    edge = Pen(np.concatenate(extent), margin=2)
    for outline in (inner + front, outer + front):
        edge.line(put(np.concatenate([outline, outline[:1]])), max(1.0, radius * thick * 0.25))
    values.paste(dice.pick((10, 245)), (0, 0, *values.size), edge.shape().mask)
    if stone:
        jewel_pen = Pen(np.concatenate(extent), margin=2)
        jewel_pen.fill(put(jewel))
        gem = jewel_pen.shape().mask
        facets = noise.texture(dice, solid.size, ("cell", "check", "grain", "cell"), dice.log_uniform(0.5, 2))
        values.paste(Image.blend(facets, Image.new("L", solid.size, dice.integer(100, 255)), 0.3), (0, 0), gem)
        mask = ImageChops.lighter(mask, gem)
    shape = Shape(mask, solid.at)
    if dice.chance(0.6):
        _shadow(dice, canvas, shape, (dice.normal(5), dice.uniform(0, 0.15 * radius)), dice.uniform(0.1, 0.5))
    return canvas.add(mask, solid.at, coloured(values, colours))


def cluster(dice: Dice, canvas: Canvas) -> None:
    """Grapes, bubbles, pebbles: round things in heaps, each seen part its own object."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 1))
    radius = dice.log_uniform(6, side / 9)
    count = _crowd(dice, side, radius * 0.7, 80)
    tone = apart(dice, base, 30, 255)
    sun = dice.integer(0, 11)
    variety = dice.pick((5.0, 15.0, 40.0))
    surfaces = [material(dice, near(dice, tone, variety), sun) for _ in range(3)]
    outlines = blobs(dice, count, dice.pick((0.0, 0.05, 0.2)), dice.pick((1.05, 1.3, 1.8)))
    radii = radius * np.exp(dice.array.normal(0, dice.uniform(0.02, 0.3), count))
    radii = np.clip(radii, SMALLEST / 2, LARGEST_SHARE * side / 2)
    clusters = dice.integer(1, 4) if dice.chance(0.75) else 0
    shadows = dice.uniform(0.2, 0.6) if dice.chance(0.4) else 0.0
    rim = dice.uniform(0.2, 0.8) if dice.chance(0.5) else 0.0
    glassy = dice.chance(0.15)
    spread = radius * math.sqrt(count / max(clusters, 1)) * dice.uniform(0.35, 0.8)
    gap = dice.uniform(0.5, 0.95)
    for index, centre in scatter(dice, side, radii, gap=gap, clusters=clusters, spread=spread):
        size = float(radii[index])
        outline = place(outlines[index], centre, size)
        shape = filled([outline])
        if shadows:
            _shadow(dice, canvas, shape, (dice.normal(2), 3), shadows)
        paint = dice.pick(surfaces).paint(dice, shape.size)
        if glassy:
            paint = Image.blend(canvas.picture.crop(shape.box), paint, 0.4)
        canvas.add(shape.mask, shape.at, paint)
        if rim:
            _outline(canvas, outline, max(1, size * 0.08), scaled(tone, rim))


def mosaic(dice: Dice, canvas: Canvas) -> None:
    """Cells that fill the plane, with walls or joints between them."""
    side = canvas.side
    pitch = dice.log_uniform(20, side / 3)
    rows = math.ceil(1.4 * side / pitch) + 3
    jitter = dice.pick((0.0, 0.15, 0.3, 0.45))
    rng = dice.array
    corner = -pitch * rng.uniform(1, 1.5, 2)
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(rows)), 2).astype(float)
    grid[:, :, 0] += (np.arange(rows)[:, None] % 2) * dice.pick((0.0, 0.5))
    seeds = (grid + rng.uniform(-jitter, jitter, grid.shape)).reshape(-1, 2) * pitch + corner
    seeds[:, 1] *= dice.uniform(0.75, 1.2)
    seeds += rng.normal(0, 1e-3, seeds.shape)  # no four on a circle
    focus = rng.uniform(0, side, 2)
    seeds = seeds[np.argsort(((seeds - focus) ** 2).sum(1))[: 30 + 60 * side * side // _FULL_AREA]]
    wall_tone = colour(dice)
    canvas.picture = backdrop(dice, side, wall_tone, dice.uniform(0, 0.4))
    tone = apart(dice, wall_tone, 15, 255)
    variety = dice.pick((3.0, 12.0, 40.0))
    sun = dice.integer(0, 11)
    wall = dice.log_uniform(1.2, max(1.5, pitch * 0.25))
    surfaces = [material(dice, near(dice, tone, variety), sun) for _ in range(4)]
    round_off = dice.chance(0.4)
    missing = dice.pick((0.0, 0.0, 0.15, 0.5))
    for outline in _voronoi(seeds):
        middle = outline.mean(0)
        reach = np.hypot(*(outline - middle).T)
        size = float(reach.mean())
        if dice.chance(missing) or size < SMALLEST / 2 or float(reach.max()) > 1.05 * pitch:
            continue
        if (outline.max(0) < 0).any() or (outline.min(0) > side).any():
            continue
        outline = middle + (outline - middle) * max(0.3, 1 - wall / 2 / size)
        if round_off:
            outline = _rounded(outline)
        shape = filled([outline])
        canvas.add(shape.mask, shape.at, dice.pick(surfaces).paint(dice, shape.size))


def _voronoi(seeds: Outline) -> list[Outline]:
    """The cells of the seeds that are bounded, convex outlines, in the order of the seeds."""
    from scipy.spatial import Voronoi

    diagram = Voronoi(seeds)
    cells = []
    for seed, region in zip(seeds, diagram.point_region, strict=True):
        corners = diagram.regions[region]
        if corners and -1 not in corners:
            cell = diagram.vertices[corners]
            cells.append(cell[np.argsort(np.arctan2(*(cell - seed).T))])
    return cells


def _rounded(outline: Outline) -> Outline:
    """Corners cut twice, which makes them round."""
    for _ in range(2):
        after = np.roll(outline, -1, 0)
        outline = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], 1).reshape(-1, 2)
    return outline


def nested(dice: Dice, canvas: Canvas) -> None:
    """Wholes with a part that is an object as well: cell and nucleus, wheel and hub, button and centre."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.05, 0.8))
    low, high = _diameters(dice, side)
    low = max(low, 20)
    radius = math.sqrt(low * max(high, low)) / 2
    count = _crowd(dice, side, radius, 35)
    sun = dice.integer(0, 11)
    tone = apart(dice, base, 20, 220)
    alike = dice.chance(0.7)
    outers = [material(dice, tone, sun)]
    if not alike:
        outers += [material(dice, apart(dice, base, 20, 255), sun) for _ in range(4)]
    inner = material(dice, apart(dice, tone, 20, 220), sun)
    kind, part = outline_kind(dice), outline_kind(dice)
    radii = np.exp(dice.array.uniform(math.log(low / 2), math.log(max(high, low) / 2), count))
    bodies = blobs(dice, count, dice.uniform(0, 0.3), dice.uniform(1, 2))
    nuclei = blobs(dice, 12, 0.1, 1.4)
    cells = dice.chance(0.5)
    shadows = dice.uniform(0.2, 0.7) if dice.chance(0.3) else 0.0
    for index, centre in scatter(dice, side, radii, gap=dice.pick((0.7, 1.0))):
        size = float(radii[index])
        turn = dice.uniform(0, _TURN)
        outline = place(bodies[index] if cells else kind(dice), centre, size, turn)
        shape = filled([outline])
        if shadows:
            _shadow(dice, canvas, shape, (3, 4), shadows)
        whole = canvas.add(shape.mask, shape.at, dice.pick(outers).paint(dice, shape.size))
        if dice.chance(0.2):
            _outline(canvas, outline, max(1, size * 0.05), scaled(tone, 0.6))
        for _ in range(1 if dice.chance(0.8) else dice.integer(2, 4)):
            share = dice.uniform(0.2, 0.65)
            off = (centre[0] + dice.normal(0.15 * size), centre[1] + dice.normal(0.15 * size))
            within = filled([place(nuclei[dice.integer(0, 11)] if cells else part(dice), off, size * share, turn)])
            mask = Image.new("L", within.size)
            mask.paste(shape.mask, (shape.at[0] - within.at[0], shape.at[1] - within.at[1]))
            mask = ImageChops.darker(mask, within.mask)
            number = canvas.add(mask, within.at, inner.paint(dice, within.size))
            canvas.include(whole, number)


_TEXTURES = ("cloud", "fibre", "wave", "grain", "weave", "cell", "vein", "speck", "marble", "check")


def subtle(dice: Dice, canvas: Canvas) -> None:
    """Things that differ from their surroundings by texture, by a shade of colour or by their outline only."""
    side = canvas.side
    size = (side, side)
    base = colour(dice)
    canvas.faint = True
    mode = dice.pick(("texture", "shade", "outline", "turned"))
    kind = dice.pick(("fibre", "wave") if mode == "turned" else _TEXTURES)
    zoom = dice.log_uniform(0.7, 2.5)
    stops = palette([near(dice, base, 35), near(dice, base, 35), near(dice, base, 35)])
    values = noise.texture(dice, size, (kind,), zoom)
    canvas.picture = coloured(values, stops) if mode != "shade" else backdrop(dice, side, base, dice.uniform(0, 0.6))
    low, high = _diameters(dice, side)
    low = max(low, 24 if mode in ("texture", "turned") else 10)
    high = max(high, low * 1.2)
    count = _crowd(dice, side, math.sqrt(low * high) / 2, 40)
    radii = np.exp(dice.array.uniform(math.log(low / 2), math.log(high / 2), count))
    form = outline_kind(dice)
    other = (dice.pick([name for name in _TEXTURES if name != kind]),)
    shift = [dice.normal(16) for _ in range(3)] if dice.chance(0.5) else [dice.sign() * dice.uniform(7, 30)] * 3
    line = near(dice, base, 70)
    for index, centre in scatter(dice, side, radii, gap=1.05 if mode == "outline" else 0.9):
        outline = place(form(dice), centre, float(radii[index]), dice.uniform(0, _TURN))
        shape = filled([outline])
        if mode == "texture":
            paint = coloured(noise.texture(dice, shape.size, other, zoom), stops)
        elif mode == "turned":
            turned = noise.texture(dice, shape.size[::-1], (kind,), zoom).transpose(Image.Transpose.ROTATE_90)
            paint = coloured(turned, stops)
        elif mode == "shade":
            table = [min(255, max(0, round(v + part))) for part in shift for v in range(256)]
            paint = canvas.picture.crop(shape.box).point(table)
        else:
            paint = canvas.picture.crop(shape.box)
        canvas.add(shape.mask, shape.at, paint)
        if mode == "outline" or dice.chance(0.05):
            _outline(canvas, outline, dice.uniform(1, 3), line)


def terrain(dice: Dice, canvas: Canvas) -> None:
    """Ground parted into large regions, as from the air: shores, fields, rivers, roads, lakes, lesions."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 0.8))
    canvas.claim(Image.new("L", (side, side), 255), (0, 0), label=dice.chance(0.3))
    contrast = dice.log_uniform(20, 255)
    for _ in range(dice.integer(1, 4)):
        shape = dice.pick((_shore, _stream, _lake))(dice, side).within(side)
        if shape is None:
            continue
        tone = apart(dice, base, contrast / 2, contrast)
        surface = Material(dice, tone, texture=dice.uniform(0, 0.8), relief=0.0, sun=0)
        canvas.add(shape.mask, shape.at, surface.paint(dice, shape.size))
    kind = outline_kind(dice)
    surface = material(dice, colour(dice), dice.integer(0, 11))
    for _ in range(dice.pick((0, 0, 3, 8))):
        outline = place(kind(dice), _anywhere(dice, side), dice.log_uniform(6, 30), dice.uniform(0, _TURN))
        shape = filled([outline])
        canvas.add(shape.mask, shape.at, surface.paint(dice, shape.size))


def _shore(dice: Dice, side: int) -> Shape:
    """All that lies on one side of a wavy line through the picture."""
    along = np.linspace(-1, 1, 80)
    wave = np.zeros(80)
    for order in (1, 2, 4, 8, 16):
        wave += dice.uniform(0, 0.16) / order * np.sin(order * math.pi * along + dice.uniform(0, _TURN))
    outline = np.concatenate([np.stack([along, wave], 1), [[1.0, 1.5], [-1.0, 1.5]]])
    middle = (side * dice.uniform(0.2, 0.8), side * dice.uniform(0.2, 0.8))
    return filled([np.clip(place(outline, middle, 1.2 * side, dice.uniform(0, _TURN)), -4, side + 4)])


def _stream(dice: Dice, side: int) -> Shape:
    """A river or road across the picture."""
    count = 60
    along = np.linspace(-1, 1, count)
    wave, width = np.zeros(count), np.full(count, dice.log_uniform(0.01, 0.12))
    if dice.chance(0.7):
        for order in (1, 2, 3):
            wave += dice.uniform(0, 0.25) / order * np.sin(order * 4 * along + dice.uniform(0, _TURN))
        width *= np.exp(0.3 * np.sin(dice.uniform(4, 14) * along))
    outline = np.concatenate([np.stack([along, wave + width], 1), np.stack([along, wave - width], 1)[::-1]])
    middle = (side * dice.uniform(0.2, 0.8), side * dice.uniform(0.2, 0.8))
    return filled([np.clip(place(outline, middle, side, dice.uniform(0, _TURN)), -4, side + 4)])


def _lake(dice: Dice, side: int) -> Shape:
    """A large irregular patch, perhaps with islands."""
    radius = side * dice.uniform(0.12, 0.4)
    middle = _anywhere(dice, side)
    if dice.chance(0.5):
        return island(dice, middle, radius)
    outline = place(blobs(dice, 1, dice.uniform(0.1, 0.5), 2.5, 96)[0], middle, radius)
    holes = []
    for _ in range(dice.pick((0, 0, 1, 2))):
        at = (middle[0] + dice.normal(0.3 * radius), middle[1] + dice.normal(0.3 * radius))
        holes.append(place(blobs(dice, 1, 0.2, 2)[0], at, radius * dice.uniform(0.1, 0.3)))
    return filled([outline], holes)


STYLES: dict[str, Callable[[Dice, Canvas], None]] = {
    "natural": natural,
    "fluorescence": fluorescence,
    "stained": stained,
    "brightfield": brightfield,
    "thin": thin,
    "holed": holed,
    "worn": worn,
    "jewellery": jewellery,
    "cluster": cluster,
    "mosaic": mosaic,
    "nested": nested,
    "subtle": subtle,
    "terrain": terrain,
}
