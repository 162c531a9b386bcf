"""Plants: trees, flowers, pot plants, and foliage that fills the picture."""

from __future__ import annotations

import math

import numpy as np

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.bends import Place, curve, joint, oval, rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter
from lora_sam.data.drawn.layout import crowd, scatter
from lora_sam.data.drawn.materials import Colour, colour, hsv, near, scaled
from lora_sam.data.drawn.outlines import Outline, blobs, ellipse, strip
from lora_sam.data.drawn.outlines import place as placed
from lora_sam.data.drawn.shapes import filled, stroke
from lora_sam.data.drawn.spectra import Skin


def green(dice: Dice) -> Colour:
    """A colour of leaves: green mostly, else of autumn."""
    hue = dice.uniform(0.2, 0.4) if dice.chance(0.75) else dice.uniform(0.0, 0.17)
    return hsv(hue, dice.uniform(0.25, 0.9), dice.uniform(0.15, 0.85))


def foliage(dice: Dice, canvas: Canvas) -> None:
    """Leaves, petals or blades that cover one another, of one or two plants, in light and shade."""
    side = canvas.side
    canvas.camera = lens.taken
    tone = green(dice)
    canvas.picture = spectra.photo(dice, (side, side), scaled(tone, dice.uniform(0.1, 0.7)), dice.uniform(0.1, 0.5))
    size = dice.log_uniform(8, side / 4)
    count = min(110, round(2 * crowd(dice, side, size * 0.6, 150)))
    kinds = [_leaf_form(dice) for _ in range(dice.pick((1, 1, 2)))]
    skins = [Skin(dice, near(dice, tone, 25), dice.uniform(0.05, 0.4)) for _ in range(3)]
    if dice.chance(0.4):
        kinds.append(blobs(dice, 1, 0.1, 1.2, 24)[0])
        skins.append(Skin(dice, colour(dice)))
    lean, spread = dice.angle(), dice.pick((0.3, 0.8, 3.0))
    radii = size * np.exp(dice.array.normal(0, 0.25, count))
    depth = dice.uniform(0.2, 0.7)
    veins = dice.chance(0.6)
    for _, centre, radius in scatter(dice, side, radii, gap=dice.uniform(0.15, 0.6)):
        turn = lean + dice.normal(spread)
        kind = dice.integer(0, len(kinds) - 1)
        outline = placed(kinds[kind], centre, radius, turn)
        shape = filled([outline])
        if dice.chance(0.6):
            shadow(dice, canvas, shape, (0.15 * radius, 0.2 * radius), depth)
        skin = skins[3] if kind == len(kinds) - 1 and len(skins) > 3 else skins[dice.integer(0, 2)]
        canvas.add(shape.mask, shape.at, skin.paint(dice, shape.size))
        if veins and radius > 7:
            _veins(canvas, centre, radius, turn, near(dice, scaled(tone, dice.pick((0.6, 1.5))), 10))


def _leaf_form(dice: Dice) -> Outline:
    """One kind of leaf, along x, of radius 1."""
    along = np.linspace(-1, 1, 32)
    width = dice.uniform(0.12, 0.7) * (1 - along**2) ** dice.uniform(0.5, 1.3) * (1 + dice.uniform(-0.6, 0.6) * along)
    if dice.chance(0.3):
        width = width * (1 + dice.uniform(0.05, 0.3) * np.sign(np.sin(along * dice.integer(6, 20))))
    if dice.chance(0.2):  # a hand with fingers
        angle = np.linspace(0, math.tau, 61)
        radius = 0.35 + 0.65 * np.abs(np.cos(dice.pick((2.5, 1.5, 3.5)) * angle)) ** dice.uniform(0.5, 2)
        return np.stack([np.cos(angle) * radius, np.sin(angle) * radius], 1)
    return strip(along, dice.uniform(-0.25, 0.25) * along**2, width)


def _veins(canvas: Canvas, centre: Place, radius: float, turn: float, tone: Colour) -> None:
    line = placed(np.array([[-0.95, 0.0], [0.9, 0.0]]), centre, radius, turn)
    shape = stroke(line, max(1.0, radius * 0.05))
    canvas.picture.paste(tone, shape.box, shape.mask.point([round(0.6 * v) for v in range(256)]))


def tree(dice: Dice, height: float) -> Layer:
    """A tree or shrub, bare or in leaf; labels: the whole, its crown."""
    painter = Painter(1.4 * height, 1.1 * height)
    middle = 0.7 * height
    bark = Skin(dice, hsv(dice.uniform(0.03, 0.12), dice.uniform(0.05, 0.5), dice.uniform(0.1, 0.6)))
    trunk = dice.uniform(0.1, 0.5) * height
    tips: list[tuple[float, float, float]] = []
    _branch(
        dice,
        painter,
        (middle, 1.08 * height),
        trunk,
        math.pi + dice.normal(0.08),
        height * dice.uniform(0.03, 0.08),
        0,
        tips,
        bark,
    )
    if dice.chance(0.8):
        tone = green(dice)
        skin, dark = Skin(dice, tone, 0.6), Skin(dice, scaled(tone, 0.6), 0.6)
        size = dice.uniform(0.07, 0.2) * height
        forms = blobs(dice, 6, 0.35, 1.3, 20)
        crown = []
        for surface, shift in ((dark, 0.25), (skin, -0.15)):
            for x, y, _ in tips:
                outline = placed(
                    forms[dice.integer(0, 5)], (x + dice.normal(0.4) * size, y + shift * size), size, dice.angle()
                )
                shape = filled([outline])
                crown.append(painter.put(shape, surface.paint(dice, shape.size)))
        if height > 40:
            painter.label(*crown)
    return painter.layer()


def _branch(
    dice: Dice,
    painter: Painter,
    start: Place,
    length: float,
    turn: float,
    width: float,
    level: int,
    tips: list[tuple[float, float, float]],
    bark: Skin,
) -> None:
    bend = joint(start, length * 0.5, turn + dice.normal(0.1))
    end = joint(bend, length * 0.5, turn + dice.normal(0.15))
    points, widths = curve([(*start, width), (*bend, width * 0.85), (*end, width * 0.7)], 1)
    line = stroke(points, widths)
    painter.put(line, bark.paint(dice, line.size))
    if level == 3 or width < 0.8:
        tips.append((*end, width))
        return
    for side in (-1, 1):
        turn_by = side * dice.uniform(0.15, 0.75)
        _branch(
            dice, painter, end, length * dice.uniform(0.55, 0.85), turn + turn_by, width * 0.65, level + 1, tips, bark
        )


def conifer(dice: Dice, height: float) -> Layer:
    """A fir: tiers of twigs; labels: the whole."""
    painter = Painter(height, 1.05 * height)
    middle = 0.5 * height
    painter.limb(np.array([(middle, 0.5 * height), (middle, 1.04 * height)]), 0.05 * height, (70, 50, 35))
    tiers, wide = dice.integer(4, 9), dice.uniform(0.15, 0.4)
    tone = hsv(dice.uniform(0.27, 0.45), dice.uniform(0.2, 0.7), dice.uniform(0.12, 0.5))
    for k in range(tiers):
        low = 0.92 - 0.75 * k / tiers
        half = wide * (1 - k / tiers) + 0.03
        count = 9
        x = np.linspace(-half, half, count)
        y = low + 0.05 * (np.arange(count) % 2) - 0.06 * np.abs(x) / half + dice.array.normal(0, 0.01, count)
        outline = np.concatenate([np.stack([x, y], 1), [[0.02, low - 1.1 / tiers], [-0.02, low - 1.1 / tiers]]])
        shape = filled([outline * height + (middle, 0.05 * height)])
        painter.put(shape, Skin(dice, near(dice, tone, 10), 0.5).paint(dice, shape.size))
    return painter.layer()


def flower(dice: Dice, height: float) -> Layer:
    """Blossoms on stems; labels: the whole, blossoms, leaves."""
    painter = Painter(height, 1.1 * height)
    tone, petal, heart = green(dice), colour(dice), hsv(dice.uniform(0.08, 0.16), 0.8, dice.uniform(0.4, 1))
    leaf = _leaf_form(dice)
    for _ in range(dice.integer(1, 4)):
        foot = (0.5 * height + dice.normal(0.05) * height, 1.08 * height)
        top = (0.5 * height + dice.normal(0.17) * height, height * dice.uniform(0.15, 0.5))
        size = height * dice.uniform(0.07, 0.15)
        points, widths = curve(
            [(*foot, 0.03 * height), (0.5 * height, 0.7 * height, 0.025 * height), (*top, 0.02 * height)], 2
        )
        painter.limb(points, widths, tone)
        side = dice.sign()
        at = (0.5 * height + side * 0.13 * height, height * dice.uniform(0.65, 0.95))
        shape = filled([placed(leaf, at, 0.15 * height, side * 0.6)])
        number = painter.put(shape, Skin(dice, tone).paint(dice, shape.size))
        if height > 60:
            painter.label(number)
        count, slim = dice.integer(4, 12), dice.uniform(0.2, 0.6)
        skin = Skin(dice, petal, 0.2)
        blossom = []
        for k in range(count):
            turn = math.tau * k / count
            form = placed(
                ellipse(1, slim)[::4],
                (top[0] + size * math.cos(turn), top[1] + 0.8 * size * math.sin(turn)),
                size,
                turn,
            )
            shape = filled([form])
            blossom.append(painter.put(shape, skin.paint(dice, shape.size)))
        blossom.append(painter.fill(oval(top, 0.45 * size, 0.4 * size), heart))
        painter.label(*blossom)
    return painter.layer()


def pot_plant(dice: Dice, height: float) -> Layer:
    """A plant in a pot; labels: the whole, pot, plant, large leaves."""
    painter = Painter(1.3 * height, 1.1 * height)
    middle, rim = 0.65 * height, height * dice.uniform(0.6, 0.8)
    tone = green(dice)
    form = _leaf_form(dice)
    skins = [Skin(dice, near(dice, tone, 20), 0.25) for _ in range(3)]
    leaves = []
    for _ in range(dice.integer(5, 22)):
        turn = math.pi + dice.normal(0.75)
        stem = joint((middle + dice.normal(0.03) * height, rim), height * dice.uniform(0.1, 0.35), turn)
        leaves.append(
            painter.limb(np.array([(middle, rim + 0.05 * height), stem]), max(1.0, 0.012 * height), scaled(tone, 0.7))
        )
        size = height * dice.uniform(0.08, 0.2)
        tip = joint(stem, size, turn)
        shape = filled([placed(form, tip, size, math.pi / 2 - turn)])
        number = painter.put(shape, dice.pick(skins).paint(dice, shape.size))
        leaves.append(number)
        if size > 14:
            painter.label(number)
    low, high = height * dice.uniform(0.1, 0.2), height * dice.uniform(0.13, 0.26)
    corners = np.array(
        [(middle - high, rim), (middle + high, rim), (middle + low, 1.08 * height), (middle - low, 1.08 * height)]
    )
    shape = filled([rounded(corners, 1) if dice.chance(0.5) else corners])
    pot = painter.put(shape, Skin(dice, colour(dice)).paint(dice, shape.size))
    painter.label(pot)
    painter.label(*leaves)
    return painter.layer()
