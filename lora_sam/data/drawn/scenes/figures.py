"""People-like figures: jointed limbs, clothes, heads; alone or in a crowd."""

from __future__ import annotations

import math

import numpy as np

from lora_sam.data.drawn.bends import Place, curve, joint, oval, rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter
from lora_sam.data.drawn.materials import Colour, colour, hsv, near
from lora_sam.data.drawn.outlines import ellipse
from lora_sam.data.drawn.outlines import place as placed
from lora_sam.data.drawn.shapes import filled, stroke
from lora_sam.data.drawn.spectra import Skin
from lora_sam.data.drawn.staging import place, populate


def figures(dice: Dice, canvas: Canvas) -> None:
    """People standing, walking and waving on a ground with depth."""
    stage = place(dice, canvas, outdoors=dice.chance(0.6))
    populate(dice, canvas, stage, (person,), dice.integer(2, 11), tallest=1.1)


def skin_tone(dice: Dice) -> Colour:
    """A colour of skin, light to dark."""
    return hsv(dice.uniform(0.03, 0.1), dice.uniform(0.25, 0.6), dice.uniform(0.25, 0.95))


def person(dice: Dice, height: float) -> Layer:
    """A figure of about this height; labels: the whole, head, clothes, what is carried."""
    painter = Painter(1.3 * height, 1.12 * height)
    middle, top = 0.65 * height, 0.06 * height
    wide = dice.uniform(0.75, 1.35)
    front = dice.chance(0.6)
    hips, neck = (middle, top + 0.5 * height), (middle + dice.normal(0.03) * height, top + 0.17 * height)
    skin, hair = skin_tone(dice), hsv(dice.uniform(0.03, 0.12), dice.uniform(0, 0.7), dice.uniform(0.03, 0.8))
    shirt, trousers = Skin(dice, colour(dice)), Skin(dice, colour(dice))
    shoe = near(dice, (40, 35, 30), 25) if dice.chance(0.7) else colour(dice)
    shoulder = (0.1 if front else 0.04) * height * wide
    hip = (0.055 if front else 0.02) * height * wide
    thick = 0.075 * height * wide * dice.uniform(0.8, 1.2)
    sleeves, shorts, dress = dice.chance(0.6), dice.chance(0.2), dice.chance(0.2)
    stride = dice.uniform(0, 0.7) if dice.chance(0.6) else dice.uniform(0, 0.12)
    left_arm = _arm(dice, painter, (neck[0] - shoulder, neck[1] + 0.03 * height), height, thick, skin, shirt, sleeves)
    legs: list[int] = []
    for sign in (-1, 1):
        start = (hips[0] + sign * hip, hips[1])
        turn = sign * stride + dice.normal(0.05)
        knee = joint(start, 0.24 * height, turn)
        ankle = joint(knee, 0.24 * height, turn - dice.uniform(0, 0.6) * stride * 2)
        toe = (ankle[0] + (sign * 0.02 if front else 0.06) * height, ankle[1] + 0.015 * height)
        painter.limb(np.array([ankle, toe]), 0.045 * height, shoe)
        points, widths = curve([(*start, thick * 1.25), (*knee, thick * 0.9), (*ankle, thick * 0.6)], 2)
        line = stroke(points, widths)
        if shorts or dress:
            painter.put(line, skin)
            half = len(points) // 2
            line = stroke(points[:half], widths[:half])
        legs.append(painter.put(line, trousers.paint(dice, line.size)))
    body = _torso(neck, hips, shoulder + thick * 0.3, hip + thick * 0.45, dress=dress, height=height)
    shape = filled([rounded(body, 2)])
    torso = painter.put(shape, shirt.paint(dice, shape.size))
    _print(dice, painter, torso, neck, hips, height)
    painter.limb(np.array([neck, (neck[0], neck[1] - 0.05 * height)]), thick * 0.7, skin)
    head = _head(dice, painter, (neck[0] + dice.normal(0.01) * height, neck[1] - 0.095 * height), height, skin, hair)
    right_arm = _arm(dice, painter, (neck[0] + shoulder, neck[1] + 0.03 * height), height, thick, skin, shirt, sleeves)
    if height > 40:
        painter.label(*head)
        painter.label(torso, *([left_arm, right_arm] if sleeves else []))
        if not dress:
            painter.label(*legs)
    if dice.chance(0.25):
        _bag(dice, painter, (hips[0] + dice.sign() * (shoulder + 0.03 * height), hips[1]), height)
    return painter.layer()


def _torso(neck: Place, hips: Place, shoulder: float, hip: float, *, dress: bool, height: float) -> np.ndarray:
    low = hips[1] + (0.2 if dress else 0.03) * height
    flare = 1.9 if dress else 1.0
    waist = (neck[1] + hips[1]) / 2
    return np.array(
        [
            (neck[0] - 0.02 * height, neck[1] - 0.01 * height),
            (neck[0] + 0.02 * height, neck[1] - 0.01 * height),
            (neck[0] + shoulder, neck[1] + 0.02 * height),
            (neck[0] + shoulder, neck[1] + 0.08 * height),
            (hips[0] + hip * 1.05, waist),
            (hips[0] + hip * flare * 1.1, low),
            (hips[0] - hip * flare * 1.1, low),
            (hips[0] - hip * 1.05, waist),
            (neck[0] - shoulder, neck[1] + 0.08 * height),
            (neck[0] - shoulder, neck[1] + 0.02 * height),
        ]
    )


def _arm(
    dice: Dice, painter: Painter, start: Place, height: float, thick: float, skin: Colour, shirt: Skin, sleeve: bool
) -> int:
    """Draw an arm that hangs, bends or is raised; the number of its sleeve, or of all of it."""
    out = dice.normal(0.35) if dice.chance(0.8) else dice.sign() * dice.uniform(1.5, 2.8)
    elbow = joint(start, 0.16 * height, out)
    hand = joint(elbow, 0.15 * height, out + dice.normal(0.8))
    points, widths = curve([(*start, thick * 0.85), (*elbow, thick * 0.65), (*hand, thick * 0.5)], 2)
    arm = painter.limb(points, widths, skin)
    tip = np.array([hand]) + ellipse(0.028 * height, 0.022 * height)
    painter.fill(tip, skin)
    if sleeve:
        end = len(points) - 2 if dice.chance(0.5) else max(3, len(points) // 2)
        line = stroke(points[:end], [width * 1.15 for width in widths[:end]])
        return painter.put(line, shirt.paint(dice, line.size))
    return arm


def _print(dice: Dice, painter: Painter, torso: int, neck: Place, hips: Place, height: float) -> None:
    """Draw stripes or a badge on the shirt."""
    kind = dice.uniform(0, 1)
    if kind < 0.25:
        pitch = dice.uniform(0.03, 0.08) * height
        tone = colour(dice)
        y = neck[1]
        while y < hips[1]:
            line = np.array([[neck[0] - 0.2 * height, y], [neck[0] + 0.2 * height, y]])
            painter.mark(stroke(line, max(1.0, pitch * 0.45)), tone, (torso,))
            y += pitch
    elif kind < 0.4:
        badge = oval((neck[0], neck[1] + 0.12 * height), 0.04 * height, 0.04 * height)
        painter.mark(filled([badge]), colour(dice), (torso,))


def _head(dice: Dice, painter: Painter, centre: Place, height: float, skin: Colour, hair: Colour) -> tuple[int, ...]:
    size = 0.062 * height * dice.uniform(0.9, 1.15)
    parts = []
    if dice.chance(0.4):  # long hair falls behind the face
        parts.append(painter.fill(oval((centre[0], centre[1] + 0.4 * size), size * 1.1, size * 1.6), hair))
    parts.append(painter.fill(oval(centre, size * 0.85, size * 1.1), skin))
    if dice.chance(0.85):
        angle = np.linspace(math.pi * 0.95, math.pi * 2.05, 16)
        cap = np.stack([np.cos(angle) * 0.95, np.sin(angle) * 1.2 - 0.15], 1)
        parts.append(painter.fill(placed(cap, centre, size), hair))
    if dice.chance(0.2):
        brim = np.array([[-1.5, 0.05], [1.5, 0.05], [0.9, -0.15], [0.8, -0.9], [-0.8, -0.9], [-0.9, -0.15]])
        parts.append(painter.fill(brim * size + (centre[0], centre[1] - 0.4 * size), colour(dice)))
    if height > 110:
        for sign in (-1, 1):
            eye = oval((centre[0] + sign * 0.35 * size, centre[1]), 0.12 * size, 0.08 * size)
            painter.mark(filled([eye]), (25, 20, 20))
        mouth = np.array([[-0.25, 0.5], [0.25, 0.5]]) * size + centre
        painter.mark(stroke(mouth, 0.09 * size), (130, 50, 50))
    return tuple(parts)


def _bag(dice: Dice, painter: Painter, at: Place, height: float) -> None:
    width, tall = dice.uniform(0.05, 0.1) * height, dice.uniform(0.06, 0.12) * height
    corners = np.array([[-1, 0], [1, 0], [1.1, 2], [-1.1, 2]]) * (width, tall / 2) + at
    shape = filled([rounded(corners, 1)])
    painter.label(painter.put(shape, Skin(dice, colour(dice)).paint(dice, shape.size)))
