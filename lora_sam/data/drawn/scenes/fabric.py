"""Soft things: ropes and cables that cross, garments, bags, ribbons, all with folds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.bends import oval, rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter, lit, textured, turned, warped
from lora_sam.data.drawn.layout import anywhere
from lora_sam.data.drawn.materials import colour, near, scaled
from lora_sam.data.drawn.outlines import blobs, walk
from lora_sam.data.drawn.shapes import Shape, filled, stroke
from lora_sam.data.drawn.spectra import Skin


def fabric(dice: Dice, canvas: Canvas) -> None:
    """Clothes, bags and cables lying about on a floor or cloth, seen from above."""
    side = canvas.side
    canvas.camera = lens.taken
    canvas.picture = spectra.photo(dice, (side, side), colour(dice), dice.uniform(0.05, 0.6))
    sun, depth = dice.angle(), dice.uniform(0.2, 0.7)
    makers = dice.pick(((garment,), (cloth, bag), (cable,), (garment, cloth, bag, cable)))
    for _ in range(dice.integer(2, 10)):
        layer = dice.pick(makers)(dice, side * dice.log_uniform(0.12, 0.7))
        layer = turned(layer, dice.angle())
        layer = lit(layer, sun, dice.uniform(0.4, 1.5))
        at = layer.at(anywhere(dice, side))
        shadow(dice, canvas, Shape(layer.cover, at), (3 * math.cos(sun + math.pi), 3 * math.sin(sun + math.pi)), depth)
        canvas.stamp(layer, at)


def _folded(dice: Dice, layer: Layer) -> Layer:
    """With folds, and bent."""
    folds = spectra.field(dice, layer.size, ("oriented", "ridged", "pink"), dice.log_uniform(1.5, 6))
    layer = textured(layer, folds, dice.uniform(0.2, 0.9))
    layer = replace(layer, foot=(layer.size[0] / 2, layer.size[1] / 2))
    return warped(dice, layer, dice.uniform(0.03, 0.14))


def garment(dice: Dice, height: float) -> Layer:
    """A shirt, dress, trousers or sock; labels: the whole, sleeves or legs."""
    painter = Painter(1.3 * height, height + 4)
    middle = 0.65 * height
    skin = Skin(dice, colour(dice))
    kind = dice.uniform(0, 1)
    half, flare = dice.uniform(0.2, 0.3), dice.uniform(0.9, 1.6)
    if kind < 0.5:
        reach, drop = dice.uniform(0.15, 0.35), dice.uniform(0.1, 0.5)
        sleeves = []
        for sign in (-1, 1):
            outline = np.array(
                [(half * 0.9, 0.05), (half + reach, drop), (half + reach - 0.1, drop + 0.1), (half * 0.95, 0.28)]
            )
            shape = filled([outline * (sign * height, height) + (middle, 2)])
            sleeves.append(painter.put(shape, skin.paint(dice, shape.size)))
        body = np.array(
            [
                (-0.1, 0.02),
                (-half, 0.06),
                (-half, 0.4),
                (-half * flare, 0.98),
                (half * flare, 0.98),
                (half, 0.4),
                (half, 0.06),
                (0.1, 0.02),
                (0, 0.1),
            ]
        )
        shape = filled([body * height + (middle, 2)])
        trunk = painter.put(shape, skin.paint(dice, shape.size))
        if height > 60:
            for sleeve in sleeves:
                painter.label(sleeve)
        parts = (trunk, *sleeves)
    elif kind < 0.8:
        legs = []
        spread = dice.uniform(0.0, 0.25)
        for sign in (-1, 1):
            outline = np.array([(0, 0.02), (half, 0.02), (half + spread, 0.98), (spread + 0.03, 0.98), (0, 0.4)])
            shape = filled([outline * (sign * height, height) + (middle, 2)])
            legs.append(painter.put(shape, skin.paint(dice, shape.size)))
        parts = tuple(legs)
    else:
        outline = np.array(
            [(-0.12, 0.02), (0.12, 0.02), (0.12, 0.6), (0.4, 0.8), (0.36, 0.97), (0.0, 0.95), (-0.12, 0.8)]
        )
        shape = filled([rounded(outline * height + (middle, 2), 2)])
        parts = (painter.put(shape, skin.paint(dice, shape.size)),)
    if dice.chance(0.3):
        pitch, tone = height * dice.uniform(0.04, 0.12), colour(dice)
        for y in np.arange(0, height, pitch):
            painter.mark(stroke(np.array([(0, y), (1.3 * height, y)]), max(1.0, pitch * 0.4)), tone, parts)
    return _folded(dice, painter.layer())


def cloth(dice: Dice, height: float) -> Layer:
    """A towel, scarf or rag; labels: the whole."""
    painter = Painter(height * 1.5, height * 1.5)
    if dice.chance(0.5):
        outline = blobs(dice, 1, 0.3, 1.8, 40)[0] * 0.35 * height + 0.75 * height
    else:
        width = dice.uniform(0.15, 0.6)
        corners = np.array([(-width, -0.5), (width, -0.5), (width, 0.5), (-width, 0.5)]) + dice.array.normal(
            0, 0.05, (4, 2)
        )
        outline = corners * height + 0.75 * height
    shape = filled([outline])
    painter.put(shape, Skin(dice, colour(dice)).paint(dice, shape.size))
    return _folded(dice, painter.layer())


def bag(dice: Dice, height: float) -> Layer:
    """A bag with handles, through which the ground is seen; labels: the whole, the body."""
    painter = Painter(height * 1.2, height + 4)
    middle, width, rim = 0.6 * height, dice.uniform(0.25, 0.5) * height, dice.uniform(0.3, 0.5) * height
    skin = Skin(dice, colour(dice))
    angle = np.linspace(math.pi, math.tau, 20)
    handle = np.stack([middle + np.cos(angle) * width * 0.55, rim + np.sin(angle) * rim * 0.85], 1)
    painter.limb(handle, max(2.0, 0.04 * height), near(dice, (60, 45, 35), 30))
    corners = np.array(
        [(middle - width * 0.9, rim), (middle + width * 0.9, rim), (middle + width, height), (middle - width, height)]
    )
    shape = filled([rounded(corners, 1)])
    body = painter.put(shape, skin.paint(dice, shape.size))
    painter.label(body)
    return _folded(dice, painter.layer())


def cable(dice: Dice, height: float) -> Layer:
    """A rope, hose or cable that runs in loops; labels: the whole."""
    width = max(3.0, height * dice.log_uniform(0.02, 0.12))
    length, bend = height * dice.uniform(1, 5), dice.uniform(0.1, 0.35)
    path = walk(dice, (0.0, 0.0), length, bend, width, dice.angle())
    path = path - path.min(0) + 2 * width
    extent = path.max(0) + 2 * width
    painter = Painter(min(float(extent[0]), 3 * height), min(float(extent[1]), 3 * height))
    tone = colour(dice)
    shape = stroke(path, width)
    number = painter.put(shape, Skin(dice, tone).paint(dice, shape.size))
    painter.mark(stroke(path - width * 0.15, max(1.0, width * 0.3)), scaled(tone, 1.4), (number,))
    if dice.chance(0.4):
        plug = filled([oval((float(path[-1][0]), float(path[-1][1])), width * 1.6, width * 1.2)])
        painter.put(plug, colour(dice))
    layer = painter.layer()
    return replace(layer, foot=(layer.size[0] / 2, layer.size[1] / 2))
