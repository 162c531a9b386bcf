"""Animal-like things: four legs, wings, fins, six legs; spotted, striped, furry."""

from __future__ import annotations

import math

import numpy as np

from lora_sam.data.drawn.bends import Place, curve, joint, oval
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter, turned
from lora_sam.data.drawn.materials import Colour, colour, hsv, near, scaled
from lora_sam.data.drawn.outlines import blobs
from lora_sam.data.drawn.outlines import place as placed
from lora_sam.data.drawn.shapes import Shape, filled, stroke
from lora_sam.data.drawn.spectra import Skin
from lora_sam.data.drawn.staging import place, populate


def animals(dice: Dice, canvas: Canvas) -> None:
    """A herd, a flock, a shoal, or several kinds together."""
    stage = place(dice, canvas, outdoors=True)
    makers = (dice.pick((quadruped, bird, fish, insect)),) if dice.chance(0.6) else (quadruped, quadruped, bird, insect)
    populate(dice, canvas, stage, makers, dice.integer(2, 12), tallest=0.8)


def _coat(dice: Dice) -> Colour:
    if dice.chance(0.75):
        return hsv(dice.uniform(0.03, 0.12), dice.uniform(0, 0.65), dice.uniform(0.08, 0.95))
    return colour(dice)


def _pattern(dice: Dice, painter: Painter, parts: tuple[int, ...], tone: Colour) -> None:
    """Draw spots, stripes or patches on some parts."""
    width, height = painter.size
    kind = dice.uniform(0, 1)
    if kind < 0.25:
        count = dice.integer(8, 30)
        forms = blobs(dice, count, 0.2, 1.6, 12)
        for form in forms:
            spot = placed(form, (dice.uniform(0, width), dice.uniform(0, height)), dice.uniform(0.015, 0.05) * width)
            painter.mark(filled([spot]), tone, parts)
    elif kind < 0.45:
        pitch = dice.uniform(0.04, 0.09) * width
        lean = dice.normal(0.15) * height
        for start in np.arange(0, width, pitch):
            bend = dice.normal(0.25) * pitch
            line = np.array([[start - lean, 0], [start + bend, height / 2], [start + lean, height]])
            painter.mark(stroke(line, max(1.0, pitch * dice.uniform(0.25, 0.55))), tone, parts)
    elif kind < 0.65:
        for form in blobs(dice, dice.integer(2, 5), 0.4, 2, 24):
            patch = placed(form, (dice.uniform(0, width), dice.uniform(0, height)), dice.uniform(0.06, 0.2) * width)
            painter.mark(filled([patch]), tone, parts)


def quadruped(dice: Dice, height: float) -> Layer:
    """Cow, horse, dog, cat, giraffe, pig or none of them; labels: the whole and its head."""
    legs = dice.uniform(0.25, 0.6) * height
    rise = dice.uniform(-0.05, 0.55) * dice.pick((0.5, 1.0)) * height
    body = dice.uniform(0.7, 1.5) * (height - 0.5 * rise) * 0.8
    thick = dice.uniform(0.22, 0.4) * body
    painter = Painter(body * 2.3 + height * 0.4, height * 1.5 + legs * 0.2)
    ground = painter.size[1] - 0.05 * height
    rump = (0.55 * body, ground - legs - thick * 0.35)
    chest = (rump[0] + body, rump[1] + dice.normal(0.05) * height)
    skull = (chest[0] + dice.uniform(0.2, 0.5) * body, chest[1] - rise - dice.uniform(-0.1, 0.3) * thick)
    coat = _coat(dice)
    skin, dark = Skin(dice, coat), Skin(dice, scaled(coat, dice.uniform(0.4, 0.9)))
    gait = dice.uniform(0, 0.6)
    bone = legs / 2 + 0.2 * thick
    leg_width = thick * dice.uniform(0.18, 0.4)
    parts = [_leg(dice, painter, at, bone, leg_width, dark, gait) for at in (rump, chest)]
    tail = [(rump[0] - 0.25 * thick, rump[1] - 0.2 * thick, leg_width * 0.7)]
    turn = dice.uniform(-2.4, -0.2)
    for _ in range(3):
        tail.append((*joint(tail[-1][:2], dice.uniform(0.1, 0.25) * body, turn), leg_width * dice.uniform(0.3, 0.8)))
        turn += dice.normal(0.5)
    points, widths = curve(tail, 2)
    painter.limb(points, widths, skin.paint(dice, stroke(points, widths).size))
    sag = dice.uniform(0.85, 1.15)
    middle = ((rump[0] + chest[0]) / 2, (rump[1] + chest[1]) / 2 + 0.08 * thick)
    neck = ((chest[0] + skull[0]) / 2 + 0.05 * body, (chest[1] + skull[1]) / 2)
    spine = [
        (rump[0] - 0.15 * thick, rump[1], thick * 0.7),
        (*rump, thick * 1.05),
        (*middle, thick * sag),
        (*chest, thick * 1.1),
        (*neck, thick * dice.uniform(0.4, 0.75)),
        (*skull, thick * 0.4),
    ]
    points, widths = curve(spine, 3)
    trunk = stroke(points, widths)
    number = painter.put(trunk, skin.paint(dice, trunk.size))
    parts += [_leg(dice, painter, at, bone, leg_width, skin, gait) for at in (rump, chest)]
    _pattern(dice, painter, (number, *parts[2:]), near(dice, scaled(coat, dice.pick((0.3, 1.8))), 20))
    head = _head(dice, painter, skull, thick * dice.uniform(0.28, 0.5), skin, scaled(coat, 0.5))
    if height > 40:
        painter.label(*head)
    return painter.layer()


def _leg(dice: Dice, painter: Painter, at: Place, bone: float, width: float, skin: Skin, gait: float) -> int:
    start = (at[0] + dice.normal(0.3) * width, at[1])
    turn = dice.normal(gait)
    knee = joint(start, bone, turn)
    hoof = joint(knee, bone, turn * 0.3 - abs(dice.normal(gait * 0.5)))
    points, widths = curve([(*start, width * 2), (*knee, width), (*hoof, width * 0.8)], 2)
    line = stroke(points, widths)
    return painter.put(line, skin.paint(dice, line.size))


def _head(dice: Dice, painter: Painter, at: Place, size: float, skin: Skin, dark: Colour) -> tuple[int, ...]:
    """Draw skull, muzzle, ears and perhaps horns; their numbers."""
    turn = dice.uniform(0.5, 1.6)
    nose = joint(at, size * dice.uniform(1, 2.2), turn)
    parts = []
    long = dice.uniform(0.3, 1.3)
    for lean in (-0.5, 0.0):
        tip = (at[0] + (lean - 0.2) * size, at[1] - size * (0.6 + long))
        ear = np.array(
            [(at[0] + (lean - 0.3) * size, at[1] - 0.4 * size), tip, (at[0] + (lean + 0.3) * size, at[1] - 0.5 * size)]
        )
        parts.append(painter.fill(ear, dark))
    if dice.chance(0.25):
        horn = [(at[0], at[1] - 0.6 * size, size * 0.25)]
        way = dice.uniform(2.2, 3.4)
        for _ in range(3):
            horn.append((*joint(horn[-1][:2], size * 0.7, way), size * 0.12))
            way += dice.normal(0.5)
        points, widths = curve(horn, 2)
        parts.append(painter.limb(points, widths, near(dice, (190, 175, 140), 20)))
    points, widths = curve([(*at, size * 1.6), (*at, size * 1.5), (*nose, size * dice.uniform(0.6, 1))], 2)
    line = stroke(points, widths)
    parts.append(painter.put(line, skin.paint(dice, line.size)))
    if size > 6:
        painter.mark(filled([oval((at[0] + 0.3 * size, at[1] - 0.2 * size), size * 0.13, size * 0.13)]), (15, 12, 10))
        painter.mark(filled([oval(nose, size * 0.2, size * 0.16)]), dark)
    return tuple(parts)


def bird(dice: Dice, height: float) -> Layer:
    """Standing or flying; labels: the whole and its wing."""
    painter = Painter(2.6 * height, 2 * height)
    middle, size = (1.2 * height, 0.9 * height), 0.3 * height
    coat = colour(dice)
    skin, wing_skin = Skin(dice, coat), Skin(dice, near(dice, coat, 50))
    flying = dice.chance(0.35)
    long = dice.uniform(0.1, 1.0)
    neck = (middle[0] + size * (0.8 + 0.4 * long), middle[1] - size * (0.5 + 0.9 * long))
    if flying:
        far = _feather(dice, middle, size, -dice.uniform(0.3, 1.2))
        painter.put(far, Skin(dice, scaled(coat, 0.6)).paint(dice, far.size))
    else:
        for shift in (-0.15, 0.15):
            foot = (middle[0] + shift * size, middle[1] + size * dice.uniform(1, 2.2))
            legs = np.array([(middle[0] + shift * size, middle[1]), foot, (foot[0] + 0.35 * size, foot[1])])
            painter.limb(legs, max(1.0, 0.1 * size), near(dice, (200, 130, 40), 40))
    tail = (
        np.array([(-0.6, -0.2), (-2.1, dice.uniform(-0.6, 0.8)), (-2.0, dice.uniform(0.2, 1.1)), (-0.5, 0.3)]) * size
        + middle
    )
    painter.fill(tail, scaled(coat, 0.7))
    spine = [
        (middle[0] - 0.9 * size, middle[1] + 0.1 * size, 0.5 * size),
        (*middle, size * dice.uniform(1.1, 1.6)),
        (middle[0] + 0.6 * size, middle[1] - 0.1 * size, size),
        (*neck, 0.45 * size),
    ]
    points, widths = curve(spine, 3)
    trunk = stroke(points, widths)
    body = painter.put(trunk, skin.paint(dice, trunk.size))
    radius = size * dice.uniform(0.28, 0.42)
    reach = dice.uniform(1.4, 3.2)
    beak = np.array([(0.4, -0.4), (reach, 0.1), (0.4, 0.4)]) * radius + neck
    painter.fill(beak, near(dice, (210, 140, 30), 40))
    painter.fill(oval(neck, radius, radius), coat if dice.chance(0.5) else colour(dice))
    painter.mark(
        filled([oval((neck[0] + 0.3 * radius, neck[1] - 0.2 * radius), radius * 0.2, radius * 0.2)]), (5, 5, 5)
    )
    _pattern(dice, painter, (body,), near(dice, coat, 60))
    near_wing = _feather(
        dice, middle, size, dice.uniform(-1.0, 0.4) if flying else dice.uniform(0.0, 0.25), folded=not flying
    )
    wing = painter.put(near_wing, wing_skin.paint(dice, near_wing.size))
    if height > 40:
        painter.label(wing)
    return painter.layer()


def _feather(dice: Dice, middle: Place, size: float, turn: float, *, folded: bool = False) -> Shape:
    """The outline of a wing."""
    count = dice.integer(3, 7)
    reach = 1.0 if folded else dice.uniform(1.8, 2.6)
    top = [(0.5, -0.2), (-0.4 * reach, -0.5 if folded else -0.2 - 0.3 * reach)]
    tips = [(-reach + 0.9 * reach * k / count, 0.25 + 0.25 * (k % 2) + 0.1 * k / count) for k in range(count + 1)]
    outline = np.array(top + tips)
    return filled([placed(outline, middle, size, -turn if folded else turn * 1.5 + 0.6)])


def fish(dice: Dice, height: float) -> Layer:
    """Seen from the side, swimming in any direction; labels: the whole."""
    length = 1.2 * height
    painter = Painter(1.6 * length, 1.2 * height)
    middle = (0.75 * length, 0.6 * height)
    coat = colour(dice)
    tone = Skin(dice, coat)
    along = np.linspace(-0.5, 0.5, 24)
    half = dice.uniform(0.14, 0.34) * np.clip(np.cos(along * math.pi) ** 0.7 * (1 + 0.6 * along), 0.05, 2)
    bend = dice.normal(0.06) * np.sin(along * 5)
    upper, lower = np.stack([along, bend - half], 1), np.stack([along, bend + half], 1)
    fin = scaled(coat, dice.uniform(0.5, 1.5))
    fork = dice.uniform(0.1, 0.3)
    tail = np.array([(-0.45, 0), (-0.75, -fork), (-0.75 + dice.uniform(0, 0.15), 0), (-0.75, fork)])
    painter.fill(tail * length + middle, fin)
    start, end = dice.integer(5, 9), dice.integer(12, 19)
    back = np.array([upper[start], upper[start] + (-0.03, -dice.uniform(0.05, 0.15)), upper[end]])
    painter.fill(back * length + middle, fin)
    shape = filled([np.concatenate([upper, lower[::-1]]) * length + middle])
    body = painter.put(shape, tone.paint(dice, shape.size))
    _pattern(dice, painter, (body,), near(dice, coat, 70))
    painter.mark(
        filled([oval((middle[0] + 0.38 * length, middle[1] - 0.03 * length), 0.025 * length, 0.025 * length)]),
        (10, 10, 10),
    )
    painter.fill(np.array([(0.1, 0.02), (-0.06, 0.12), (0.02, 0.1)]) * length + middle, fin)
    return turned(painter.layer(), dice.normal(0.3))


def insect(dice: Dice, height: float) -> Layer:
    """Beetle, ant, fly or butterfly from above; labels: the whole and its wings."""
    painter = Painter(1.8 * height, 1.4 * height)
    middle = (0.9 * height, 0.7 * height)
    coat = near(dice, (50, 35, 25), 25) if dice.chance(0.5) else colour(dice)
    thin = max(1.0, 0.025 * height)
    for sign in (-1, 1):
        for k in (-1, 0, 1):
            knee = (
                middle[0] + sign * dice.uniform(0.2, 0.3) * height,
                middle[1] + (0.12 * k + dice.normal(0.03)) * height,
            )
            foot = (knee[0] + sign * 0.15 * height, knee[1] + (0.2 * k + 0.05) * height)
            painter.limb(np.array([(middle[0], middle[1] + 0.08 * k * height), knee, foot]), thin, scaled(coat, 0.8))
        feeler = np.array(
            [(middle[0], middle[1] - 0.35 * height), (middle[0] + sign * 0.12 * height, middle[1] - 0.6 * height)]
        )
        painter.limb(feeler, thin, coat)
    wings: list[int] = []
    if dice.chance(0.5):
        tone = Skin(dice, colour(dice))
        for k, size in ((0, dice.uniform(0.25, 0.45)), (1, dice.uniform(0.2, 0.35))):
            form = blobs(dice, 1, 0.12, 1.5, 24)[0] * (size * height, size * 0.6 * height)
            form = placed(form, (0.8 * size * height, (0.15 if k else -0.1) * height), 1)
            for sign in (-1, 1):
                shape = filled([form * (sign, 1) + middle])
                wings.append(painter.put(shape, tone.paint(dice, shape.size)))
        _pattern(dice, painter, tuple(wings), colour(dice))
    slim = dice.uniform(0.06, 0.2)
    for shift, size in ((0.25, 0.24), (-0.05, 0.13), (-0.3, 0.1)):
        shape = filled([oval((middle[0], middle[1] + shift * height), slim * height * size / 0.18, size * height)])
        painter.put(shape, Skin(dice, coat).paint(dice, shape.size))
    if wings and height > 40:
        for wing in wings:
            painter.label(wing)
    return turned(painter.layer(), dice.angle())
