"""Solids and furniture: boxes with faces, turned bodies, balls, stacks, chairs and tables."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from lora_sam.data.drawn.bends import oval, profile
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter
from lora_sam.data.drawn.materials import (
    Colour,
    apart,
    ball,
    colour,
    coloured,
    material,
    metal,
    near,
    palette,
    ramp,
    scaled,
)
from lora_sam.data.drawn.shapes import filled
from lora_sam.data.drawn.spectra import Skin
from lora_sam.data.drawn.staging import place, populate


def solids(dice: Dice, canvas: Canvas) -> None:
    """Boxes, bottles, balls and chairs on a floor or a table."""
    stage = place(dice, canvas, outdoors=dice.chance(0.2))
    populate(
        dice, canvas, stage, (crate, crate, turned_body, globe, stack, chair, table), dice.integer(3, 14), tallest=0.7
    )


def crate(dice: Dice, height: float) -> Layer:
    """A box seen from a corner, perhaps with a picture or lid; labels: the whole and its faces."""
    width = height * dice.log_uniform(0.4, 2)
    split, rise = dice.uniform(0.2, 0.8) * width, dice.uniform(0.05, 0.4) * min(height, width)
    tall = height - rise
    painter = Painter(width + 4, height + 4)
    tone = colour(dice)
    skin = Skin(dice, tone)
    a, b, c, d = (2.0, 2 + rise), (2 + split, 2 + 2 * rise), (2 + width, 2 + rise), (2 + width - split, 2.0)
    drop = np.array((0.0, tall - rise if tall > 1.5 * rise else tall))
    faces = [
        (np.array([a, b, b + drop, a + drop]), dice.uniform(0.55, 0.95)),
        (np.array([b, c, c + drop, b + drop]), dice.uniform(0.3, 0.7)),
        (np.array([a, b, c, d]), dice.uniform(0.9, 1.3)),
    ]
    numbers = []
    for outline, light in faces:
        shape = filled([outline])
        paint = skin.paint(dice, shape.size).point([min(255, round(v * light)) for v in range(256)] * 3)
        numbers.append(painter.put(shape, paint))
    kind = dice.uniform(0, 1)
    corner = np.array(a)
    across, down = np.array(b) - corner, drop
    if kind < 0.5:  # a picture, handle or door on the first face
        low, high = dice.uniform(0.05, 0.4), dice.uniform(0.6, 0.95)
        spots = [(low, low), (high, low), (high, high), (low, high)]
        outline = np.array([corner + across * u + down * v for u, v in spots])
        painter.mark(filled([outline]), apart(dice, tone, 30, 200), numbers[:1])
    if height > 45 and dice.chance(0.4):
        for number in numbers:
            painter.label(number)
    return painter.layer()


def _turned_paint(dice: Dice, size: tuple[int, int], tone: Colour) -> Image.Image:
    """Light across a turned body, matt or shiny."""
    turn = ramp(dice, size, 0.0)
    if dice.chance(0.35):
        waves = math.tau * dice.uniform(0.8, 2.5)
        wavy = [round(127.5 + 127.5 * math.sin(value / 255 * waves + 1)) for value in range(256)]
        return coloured(turn.point(wavy), metal(dice))
    bright = dice.integer(70, 180)
    return coloured(
        turn,
        palette(
            [scaled(tone, 0.35), scaled(tone, 0.9), scaled(tone, 1.4), tone, scaled(tone, 0.3)],
            (0, bright * 0.5, bright, bright * 1.2, 255),
        ),
    )


def turned_body(dice: Dice, height: float) -> Layer:
    """A bottle, vase, can, candle or pawn with a round top; labels: the whole, its lid or mouth, its band."""
    width = height * dice.uniform(0.25, 1.1)
    painter = Painter(width + 4, height + 4)
    middle, squash = width / 2 + 2, dice.uniform(0.08, 0.35)
    knots = dice.integer(2, 6)
    halves = np.interp(np.linspace(0, 1, 40), np.linspace(0, 1, knots), dice.array.uniform(0.3, 1, knots)) * width / 2
    if dice.chance(0.3):
        halves = np.full(40, width / 2)
    halves = np.convolve(np.pad(halves, 3, "edge"), np.ones(7) / 7, "valid")
    top, base = 2 + halves[0] * squash, height - halves[-1] * squash
    tone = colour(dice)
    heights = np.linspace(top, max(base, top + 3), 40)
    body = profile(heights, halves, middle)
    bottom = oval((middle, heights[-1]), halves[-1], halves[-1] * squash)
    shape = filled([body, bottom])
    number = painter.put(shape, _turned_paint(dice, shape.size, tone))
    if dice.chance(0.4):  # a label around it
        start, end = sorted((dice.integer(6, 34), dice.integer(6, 34)))
        if end - start > 4:
            sag = halves[start] * squash
            arc = np.linspace(0, math.pi, 12)
            lower = np.stack([middle + halves[end] * np.cos(arc), heights[end] + sag * np.sin(arc)], 1)
            upper = np.stack([middle + halves[start] * np.cos(arc), heights[start] + sag * np.sin(arc)], 1)
            patch = filled([np.concatenate([lower, upper[::-1]])])
            part = painter.put(patch, _turned_paint(dice, patch.size, apart(dice, tone, 40, 220)))
            painter.label(part)
    mouth = filled([oval((middle, top), halves[0], halves[0] * squash)])
    part = painter.put(mouth, Skin(dice, scaled(tone, dice.pick((0.3, 0.6, 1.3)))).paint(dice, mouth.size))
    if halves[0] > 8:
        painter.label(part)
        painter.label(number, part)
    return painter.layer()


def globe(dice: Dice, height: float) -> Layer:
    """A ball, plain, banded or shiny; labels: the whole."""
    painter = Painter(height + 4, height + 4)
    shape = filled([oval((height / 2 + 2, height / 2 + 2), height / 2, height / 2)])
    tone = colour(dice)
    surface = coloured(
        ball(shape.size, dice.integer(0, 11)), palette([scaled(tone, 0.2), tone, scaled(tone, 1.3), (255, 255, 250)])
    )
    number = painter.put(shape, Image.blend(surface, Skin(dice, tone).paint(dice, shape.size), dice.uniform(0, 0.6)))
    if dice.chance(0.3):
        other = filled([oval((height / 2 + 2, height / 2 + 2), height * dice.uniform(0.05, 0.3), height / 2)])
        painter.mark(other, apart(dice, tone, 40, 220), (number,))
    return painter.layer()


def stack(dice: Dice, height: float) -> Layer:
    """Books or boards on one another; labels: the whole and each."""
    count = dice.integer(2, 7)
    width = height * dice.uniform(0.7, 1.6)
    painter = Painter(width * 1.3, height + 4)
    thick = height / count
    for k in range(count):
        y = height + 2 - thick * (k + 1)
        left = 0.12 * width + dice.normal(0.04) * width
        wide = width * dice.uniform(0.75, 1)
        corners = np.array([(left, y), (left + wide, y), (left + wide, y + thick), (left, y + thick)])
        shape = filled([corners])
        number = painter.put(shape, material(dice, colour(dice), 11).paint(dice, shape.size))
        if thick > 5:
            painter.label(number)
    return painter.layer()


def chair(dice: Dice, height: float) -> Layer:
    """A chair or stool: what lies between its legs and bars is not part of it."""
    width, seat = height * dice.uniform(0.35, 0.6), height * dice.uniform(0.45, 0.65)
    painter = Painter(width * 1.6, height + 6)
    skin, bar = Skin(dice, colour(dice)), max(1.5, height * dice.uniform(0.025, 0.06))
    left, right, back = 0.2 * width, 1.2 * width, 0.22 * width
    tone = near(dice, colour(dice), 10)
    for x, y, low in (
        (left + back, seat, 0.9),
        (right + back, seat, 0.9),
        (left, seat + 4, 1.0),
        (right, seat + 4, 1.0),
    ):
        painter.limb(np.array([(x, y), (x + dice.normal(0.03) * width, low * height)]), bar, tone)
    if dice.chance(0.75):
        top = [(left + back, 0.05 * height), (right + back, 0.05 * height)]
        if dice.chance(0.5):
            for x, y in top:
                painter.limb(np.array([(x, y), (x, seat)]), bar, tone)
            for k in range(dice.integer(1, 4)):
                y = (0.05 + 0.11 * k) * height
                painter.limb(np.array([(left + back, y), (right + back, y)]), bar * 1.6, tone)
        else:
            shape = filled([np.array([*top, (right + back, seat), (left + back, seat)])])
            painter.put(shape, skin.paint(dice, shape.size))
    flat = np.array(
        [
            (left, seat + 0.06 * height),
            (left + back, seat - 0.03 * height),
            (right + back, seat - 0.03 * height),
            (right, seat + 0.06 * height),
        ]
    )
    shape = filled([flat])
    number = painter.put(shape, skin.paint(dice, shape.size))
    if height > 60:
        painter.label(number)
    return painter.layer()


def table(dice: Dice, height: float) -> Layer:
    """A table with things on it; labels: table, things."""
    width, deep = height * dice.uniform(1, 2), height * dice.uniform(0.1, 0.3)
    top = 0.4 * height
    painter = Painter(width * 1.2, height + 4)
    tone = colour(dice)
    skin, bar = Skin(dice, tone), max(2.0, height * dice.uniform(0.03, 0.08))
    left, right = 0.06 * width, 1.06 * width
    parts = [
        painter.limb(np.array([(x, top + deep / 2), (x, low * height)]), bar, scaled(tone, 0.7))
        for x, low in ((left + deep, 0.88), (right - deep, 0.88), (left + bar, 1.0), (right - bar, 1.0))
    ]
    shape = filled([np.array([(left + deep, top), (right - deep, top), (right, top + deep), (left, top + deep)])])
    parts.append(painter.put(shape, skin.paint(dice, shape.size)))
    painter.label(*parts)
    for _ in range(dice.integer(0, 3)):
        tall, half = height * dice.uniform(0.1, 0.35), height * dice.uniform(0.04, 0.12)
        x, y = dice.uniform(left + deep + half, right - deep - half), top + deep * dice.uniform(0.2, 0.8)
        thing = filled([profile(np.array([y - tall, y]), np.array([half, half * dice.uniform(0.5, 1)]), x)])
        painter.label(painter.put(thing, material(dice, colour(dice), 11).paint(dice, thing.size)))
    return painter.layer(whole=False)
