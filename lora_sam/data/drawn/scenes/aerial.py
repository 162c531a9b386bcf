"""From the air, straight down: roofs with their shadows, roads, vehicles, crowns of trees, pools, fields, ships."""

from __future__ import annotations

import math

import numpy as np

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.bends import rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import anywhere, crowd, scatter
from lora_sam.data.drawn.materials import Colour, colour, hsv, near, scaled
from lora_sam.data.drawn.outlines import Outline, blobs, place, strip
from lora_sam.data.drawn.shapes import filled, stroke
from lora_sam.data.drawn.spectra import Skin

_UNIT = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


def aerial(dice: Dice, canvas: Canvas) -> None:
    """A town, a suburb, fields or a harbour; `scale` is pixels for about three metres."""
    side = canvas.side
    canvas.camera = lens.taken
    scale = dice.log_uniform(2.5, 14)
    lean = dice.angle()
    sun = (scale * dice.uniform(-1.5, 1.5), scale * dice.uniform(-1.5, 1.5))
    water = dice.chance(0.15)
    if water:
        base = hsv(dice.uniform(0.45, 0.65), dice.uniform(0.2, 0.8), dice.uniform(0.15, 0.6))
    else:
        base = hsv(dice.uniform(0.07, 0.35), dice.uniform(0.05, 0.5), dice.uniform(0.25, 0.7))
    canvas.picture = spectra.photo(dice, (side, side), base, dice.uniform(0.1, 0.5))
    if water:
        _ships(dice, canvas)
        return
    if dice.chance(0.6):
        _fields(dice, canvas, lean, base)
    pitch = scale * dice.uniform(8, 20)
    if dice.chance(0.8):
        _roads(dice, canvas, lean, pitch, scale)
    if dice.chance(0.85):
        _houses(dice, canvas, lean, pitch, scale, sun)
    if dice.chance(0.75):
        _trees(dice, canvas, scale, sun)


def _grid(dice: Dice, side: int, lean: float, pitch: float) -> list[tuple[float, float]]:
    """Places on a lattice turned by `lean`, those in the picture, in random order."""
    count = math.ceil(side / pitch) + 1
    steps = np.arange(-count, count + 1) + dice.uniform(0, 1)
    points = np.stack(np.meshgrid(steps, steps), 2).reshape(-1, 2) * pitch
    turned = place(points, (side / 2, side / 2), 1, lean)
    inside = turned[((turned > -0.1 * side) & (turned < 1.1 * side)).all(1)]
    result: list[tuple[float, float]] = [(float(x), float(y)) for x, y in dice.array.permutation(inside)]
    return result


def _fields(dice: Dice, canvas: Canvas, lean: float, base: Colour) -> None:
    """Parcels of different crops; labels: each."""
    side = canvas.side
    for _ in range(dice.integer(1, 7)):
        sides = (dice.uniform(0.5, 1.5), dice.uniform(0.3, 1))
        radius = side * dice.uniform(0.12, 0.35)
        corners = _UNIT * sides + dice.array.normal(0, 0.1, (4, 2))
        shape = filled([place(corners, anywhere(dice, side), radius, lean)]).within(side)
        if shape is not None:
            tone = (
                near(dice, base, 35) if dice.chance(0.7) else hsv(dice.uniform(0.08, 0.35), 0.5, dice.uniform(0.2, 0.8))
            )
            canvas.add(shape.mask, shape.at, Skin(dice, tone).paint(dice, shape.size))


def _roads(dice: Dice, canvas: Canvas, lean: float, pitch: float, scale: float) -> None:
    """Roads with marks on them, and vehicles; labels: some roads, all vehicles."""
    side = canvas.side
    level = dice.integer(70, 170)
    tone, labelled = near(dice, (level, level, level), 5), dice.chance(0.5)
    asphalt = Skin(dice, tone, 0.12)
    width = scale * dice.uniform(1.2, 2.5)
    for _ in range(dice.integer(1, 4)):
        turn = lean + (math.pi / 2 if dice.chance(0.5) else 0) + (dice.angle() if dice.chance(0.1) else 0)
        middle = anywhere(dice, side)
        along = np.linspace(-1.6, 1.6, 30)
        bend = dice.uniform(-0.2, 0.2) * np.sin(along * 2 + dice.angle()) if dice.chance(0.4) else np.zeros(30)
        outline = strip(along, bend, np.full(30, width / side))
        shape = filled([np.clip(place(outline, middle, side, turn), -30, side + 30)]).within(side)
        if shape is None:
            continue
        canvas.add(shape.mask, shape.at, asphalt.paint(dice, shape.size), label=labelled)
        line = place(np.stack([along, bend], 1), middle, side, turn)
        if scale > 4:
            for k in range(0, 29):
                mark = shape.common(
                    stroke(line[k : k + 1] + (line[k + 1] - line[k]) * np.array([[0.0], [0.5]]), max(1.0, 0.12 * scale))
                )
                canvas.picture.paste(near(dice, (225, 225, 215), 8), mark.box, mark.mask)
        for _ in range(dice.integer(0, 8)):
            share, lane = dice.uniform(-1.2, 1.2), dice.sign()
            at = np.array([(share, float(np.interp(share, along, bend)) + lane * 0.5 * width / side)])
            x, y = place(at, middle, side, turn)[0]
            _vehicle(dice, canvas, (float(x), float(y)), scale, turn)


def _vehicle(dice: Dice, canvas: Canvas, at: tuple[float, float], scale: float, turn: float) -> None:
    """A car or truck from above."""
    long = scale * (dice.uniform(0.6, 0.85) if dice.chance(0.8) else dice.uniform(1, 2))
    slim = scale * dice.uniform(0.28, 0.38)
    form = rounded(_UNIT * (long, slim), 1)
    shape = filled([place(form, at, 1, turn)])
    shadow(dice, canvas, shape, (1, 1), 0.5)
    tone = near(dice, dice.pick(((230, 230, 230), (30, 30, 32), (140, 142, 145), (150, 30, 30), (40, 60, 120))), 15)
    canvas.add(shape.mask, shape.at, tone)
    for spot, length in ((0.3, 0.12), (-0.6, 0.1)):
        pane = filled([place(_UNIT * (long * length, slim * 0.75) + (spot * long, 0), at, 1, turn)]).common(shape)
        canvas.picture.paste((30, 36, 44), pane.box, pane.mask)


def _houses(dice: Dice, canvas: Canvas, lean: float, pitch: float, scale: float, sun: tuple[float, float]) -> None:
    """Roofs, hipped or flat, some around a court; labels: each roof, pools."""
    tones = [hsv(dice.uniform(0, 0.12), dice.uniform(0, 0.6), dice.uniform(0.25, 0.85)) for _ in range(3)]
    tones.append(colour(dice))
    depth = dice.uniform(0.3, 0.8)
    most = round(dice.log_uniform(4, 45))
    for spot in _grid(dice, canvas.side, lean, pitch)[:most]:
        at = (spot[0] + dice.normal(0.08) * pitch, spot[1] + dice.normal(0.08) * pitch)
        half = np.array((pitch * dice.uniform(0.2, 0.42), pitch * dice.uniform(0.2, 0.42)))
        turn = lean + dice.normal(0.04) + (dice.angle() if dice.chance(0.05) else 0)
        _roof(dice, canvas, at, half, turn, dice.pick(tones), (sun, depth))
        if dice.chance(0.12):
            pool_at = (at[0] + half[0] * 1.5, at[1] + half[1] * 0.6)
            pool = filled([place(rounded(_UNIT * (1, 0.6), 2), pool_at, max(4.0, scale * 0.9), turn)])
            canvas.add(pool.mask, pool.at, Skin(dice, hsv(0.52, 0.6, 0.85), 0.08).paint(dice, pool.size))


def _roof(
    dice: Dice,
    canvas: Canvas,
    at: tuple[float, float],
    half: Outline,
    turn: float,
    tone: Colour,
    light: tuple[tuple[float, float], float],
) -> None:
    kind = dice.uniform(0, 1)
    holes = []
    outline = _UNIT * half
    if kind < 0.25:  # like an L
        a, b = dice.uniform(-0.3, 0.4), dice.uniform(-0.3, 0.4)
        outline = np.array([(-1, -1), (1, -1), (1, b), (a, b), (a, 1), (-1, 1)]) * half
    elif kind < 0.35:
        holes = [place(_UNIT * half * dice.uniform(0.3, 0.6), at, 1, turn)]
    shape = filled([place(outline, at, 1, turn)], holes)
    shadow(dice, canvas, shape, light[0], light[1])
    canvas.add(shape.mask, shape.at, Skin(dice, tone, 0.15).paint(dice, shape.size))
    if kind > 0.45:  # four sides of a hipped roof, lit differently
        ridge = 1 - min(half) / max(half) if dice.chance(0.7) else 1.0
        first, second = (
            (np.array((-ridge, 0.0)), np.array((ridge, 0.0)))
            if half[0] > half[1]
            else (np.array((0.0, -ridge)), np.array((0.0, ridge)))
        )
        corners = _UNIT
        planes = (
            [corners[0], corners[1], second, first] if half[0] > half[1] else [corners[1], corners[2], second, first],
            [corners[1], corners[2], second] if half[0] > half[1] else [corners[2], corners[3], second],
        )
        for points, factor in zip(planes, (dice.uniform(0.5, 0.8), dice.uniform(1.0, 1.3)), strict=True):
            plane = filled([place(np.array(points) * half, at, 1, turn)]).common(shape)
            canvas.picture.paste(near(dice, scaled(tone, factor), 4), plane.box, plane.mask)


def _trees(dice: Dice, canvas: Canvas, scale: float, sun: tuple[float, float]) -> None:
    """Crowns, alone and in groves; labels: each."""
    side = canvas.side
    radius = scale * dice.uniform(0.7, 1.8)
    count = min(60, crowd(dice, side, radius, 120))
    forms = blobs(dice, 10, 0.25, 1.2, 28)
    tone = hsv(dice.uniform(0.2, 0.4), dice.uniform(0.2, 0.7), dice.uniform(0.15, 0.5))
    skins = [Skin(dice, near(dice, tone, 15), 0.6) for _ in range(2)]
    radii = np.maximum(radius * np.exp(dice.array.normal(0, 0.3, count)), 4)
    for _, centre, size in scatter(dice, side, radii, gap=0.8, clusters=dice.pick((0, 3, 5))):
        shape = filled([place(forms[dice.integer(0, 9)], centre, size, dice.angle())])
        shadow(dice, canvas, shape, (sun[0] * 0.5, sun[1] * 0.5), 0.55)
        canvas.add(shape.mask, shape.at, dice.pick(skins).paint(dice, shape.size))


def _ships(dice: Dice, canvas: Canvas) -> None:
    """Ships and boats with wakes, at moorings or under way; labels: each ship, the quay."""
    side = canvas.side
    if dice.chance(0.5):
        y, depth = side * dice.uniform(0.1, 0.9), side * dice.uniform(0.05, 0.25)
        quay = filled([place(_UNIT * (2 * side, depth), (side / 2, y), 1, dice.normal(0.3))]).within(side)
        if quay is not None:
            canvas.add(quay.mask, quay.at, Skin(dice, near(dice, (165, 160, 150), 20), 0.2).paint(dice, quay.size))
    lean = dice.angle()
    radii = np.exp(dice.array.uniform(math.log(6), math.log(side / 5), dice.integer(2, 16)))
    for _, centre, radius in scatter(dice, side, radii, gap=0.9):
        turn = lean + dice.normal(0.1)
        slim = dice.uniform(0.15, 0.35)
        hull = np.array([(-1, -slim), (0.5, -slim), (1, 0), (0.5, slim), (-1, slim)])
        if dice.chance(0.4):
            wake = filled(
                [place(np.array([(-1, -slim), (-3.5, -slim * 3), (-3.5, slim * 3), (-1, slim)]), centre, radius, turn)]
            )
            foam = wake.mask.point([round(0.35 * v) for v in range(256)])
            canvas.picture.paste((235, 240, 245), wake.box, foam)
        shape = filled([rounded(place(hull, centre, radius, turn), 1)])
        tone = near(dice, (215, 212, 205), 30) if dice.chance(0.7) else colour(dice)
        canvas.add(shape.mask, shape.at, Skin(dice, tone, 0.1).paint(dice, shape.size))
        for _ in range(dice.integer(0, 4)):
            spot = np.array([(dice.uniform(-0.7, 0.5), dice.normal(0.05))])
            x, y = place(spot, centre, radius, turn)[0]
            part = filled([place(_UNIT * (0.12, 0.5 * slim), (float(x), float(y)), radius, turn)]).common(shape)
            canvas.picture.paste(colour(dice), part.box, part.mask)
