"""Streets: houses with windows, vehicles on wheels, signs and lamps."""

from __future__ import annotations

import math

import numpy as np

from lora_sam.data.drawn.bends import curve, oval, rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter
from lora_sam.data.drawn.materials import apart, colour, coloured, hsv, near, palette, ramp, scaled
from lora_sam.data.drawn.outlines import band
from lora_sam.data.drawn.scenes.figures import person
from lora_sam.data.drawn.scenes.foliage import conifer, tree
from lora_sam.data.drawn.scenes.print import sign
from lora_sam.data.drawn.shapes import filled
from lora_sam.data.drawn.spectra import Skin
from lora_sam.data.drawn.staging import place, populate


def city(dice: Dice, canvas: Canvas) -> None:
    """A road or square with houses, vehicles, people, trees and signs."""
    stage = place(dice, canvas, outdoors=True)
    makers = (house, house, car, car, truck, bicycle, boat, tree, conifer, sign, lamp, person)
    populate(dice, canvas, stage, makers, dice.integer(4, 16), tallest=0.6)


def house(dice: Dice, height: float) -> Layer:
    """A front with windows, door and roof; labels: the whole, roof, windows, door."""
    width = height * dice.log_uniform(0.4, 1.6)
    painter = Painter(width * 1.25, height + 4)
    left, right = 0.12 * width, 1.12 * width
    eaves = height * (dice.uniform(0.2, 0.45) if dice.chance(0.7) else 0.03)
    tone = colour(dice)
    wall = filled([np.array([(left, eaves), (right, eaves), (right, height + 2), (left, height + 2)])])
    painter.put(wall, Skin(dice, tone).paint(dice, wall.size))
    rows, columns = dice.integer(1, 5), dice.integer(1, 6)
    pane, frame = hsv(0.6, dice.uniform(0, 0.5), dice.uniform(0.1, 0.9)), near(dice, (220, 220, 215), 25)
    cell_x, cell_y = (right - left) / columns, (height - eaves) / (rows + 0.3)
    half_x, half_y = cell_x * dice.uniform(0.15, 0.4), cell_y * dice.uniform(0.2, 0.4)
    round_top = dice.chance(0.2)
    door = dice.integer(0, columns - 1)
    for row in range(rows):
        for column in range(columns):
            x, y = left + cell_x * (column + 0.5), eaves + cell_y * (row + 0.6)
            low = y + half_y
            is_door = row == rows - 1 and column == door
            if is_door:
                low = height + 2
            corners = np.array(
                [(x - half_x, y - half_y), (x + half_x, y - half_y), (x + half_x, low), (x - half_x, low)]
            )
            outer = filled([corners + np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * max(1.0, 0.15 * half_x)])
            painter.mark(outer, frame)
            if round_top:
                corners = rounded(corners, 1)
            shape = filled([corners])
            paint = near(dice, pane, 12) if dice.chance(0.8) and not is_door else colour(dice)
            number = painter.put(shape, paint)
            if min(half_x, half_y) > 3.5:
                painter.label(number)
    if eaves > 0.1 * height:
        ridge = dice.uniform(0, 0.45) * (right - left)
        over = 0.08 * width
        shape = filled([np.array([(left - over, eaves), (left + ridge, 2), (right - ridge, 2), (right + over, eaves)])])
        roof = painter.put(shape, Skin(dice, apart(dice, tone, 30, 160)).paint(dice, shape.size))
        painter.label(roof)
    return painter.layer()


def _wheel(dice: Dice, painter: Painter, at: tuple[float, float], radius: float) -> int:
    tyre = painter.fill(oval(at, radius, radius), near(dice, (28, 28, 30), 8))
    painter.mark(filled([oval(at, 0.62 * radius, 0.62 * radius)]), near(dice, (150, 150, 155), 35))
    spokes = dice.integer(3, 8)
    for k in range(spokes):
        turn = math.tau * k / spokes
        dot = oval(
            (
                at[0] + 0.4 * radius * math.cos(turn),
                at[1] + 0.4 * radius * math.sin(turn),
            ),
            0.12 * radius,
            0.12 * radius,
        )
        painter.mark(filled([dot]), (60, 60, 64))
    return tyre


def car(dice: Dice, height: float) -> Layer:
    """A car from the side; labels: the whole, wheels, windows."""
    height *= 0.6
    length = height * dice.uniform(2.1, 3.4)
    painter = Painter(length + 8, height + 6)
    radius = height * dice.uniform(0.16, 0.23)
    low, belt = height - radius * 0.6, height * dice.uniform(0.42, 0.55)
    hood, boot = length * dice.uniform(0.12, 0.35), length * dice.uniform(0.02, 0.28)
    tone = colour(dice)
    rake = length * dice.uniform(0.05, 0.14)
    outline = np.array([
        (4, low), (4, belt + 0.1 * height), (4 + hood, belt), (4 + hood + rake, 4), (length - boot - rake, 4),
        (length - boot, belt), (length + 2, belt + 0.05 * height), (length + 4, low),
    ])  # fmt: skip
    shape = filled([rounded(outline, 2)])
    light = coloured(ramp(dice, shape.size, math.pi / 2), palette([scaled(tone, 1.5), tone, scaled(tone, 0.45)]))
    painter.put(shape, light)
    inner = 0.06 * height
    glass = []
    top, bottom = 4 + inner * 1.6, belt - inner * 0.3
    start, end = 4 + hood + inner, length - boot - inner
    split = dice.uniform(0.4, 0.6) * (end - start) + start
    for first, last in ((start, split - inner / 2), (split + inner / 2, end)):
        corners = np.array([
            (first + (rake if first == start else 0), top), (last - (rake if last == end else 0), top),
            (last, bottom), (first, bottom),
        ])  # fmt: skip
        glass.append(painter.fill(corners, hsv(0.6, dice.uniform(0, 0.3), dice.uniform(0.1, 0.7))))
    for x in (4, length - 0.03 * length):
        painter.mark(
            filled([oval((x + 0.02 * length, belt + 0.18 * height), 0.03 * length, 0.06 * height)]),
            near(dice, (230, 200, 150), 40),
        )
    wheels = [_wheel(dice, painter, (x, height - radius + 3), radius) for x in (0.2 * length, 0.8 * length)]
    if height > 30:
        for wheel in wheels:
            painter.label(wheel)
        for pane in glass:
            painter.label(pane)
    return painter.layer()


def truck(dice: Dice, height: float) -> Layer:
    """A truck or bus: cab, box, wheels; labels: the whole, cab, box, wheels."""
    length = height * dice.uniform(1.4, 2.6)
    painter = Painter(length + 8, height + 6)
    radius = height * dice.uniform(0.1, 0.16)
    low, cab = height - radius * 0.9, length * dice.uniform(0.18, 0.3)
    skin = Skin(dice, colour(dice))
    box = filled([np.array([(4 + cab, 3), (length + 2, 3), (length + 2, low), (4 + cab, low)])])
    load = painter.put(box, skin.paint(dice, box.size))
    roof = height * dice.uniform(0.05, 0.4)
    front = filled(
        [rounded(np.array([(4, low), (5, 0.55 * height), (4 + 0.3 * cab, roof), (2 + cab, roof), (2 + cab, low)]), 1)]
    )
    head = painter.put(front, skin.paint(dice, front.size) if dice.chance(0.5) else colour(dice))
    pane = np.array(
        [
            (4 + 0.2 * cab, 0.55 * height),
            (4 + 0.4 * cab, roof + 0.08 * height),
            (4 + 0.85 * cab, roof + 0.08 * height),
            (4 + 0.85 * cab, 0.55 * height),
        ]
    )
    painter.mark(filled([pane]), (40, 48, 60))
    if dice.chance(0.4):
        for k in range(5):
            x = 4 + cab + (length - cab) * (k + 0.2) / 5
            window = np.array(
                [
                    (x, 0.15 * height),
                    (x + 0.14 * length, 0.15 * height),
                    (x + 0.14 * length, 0.45 * height),
                    (x, 0.45 * height),
                ]
            )
            painter.mark(filled([window]), (45, 52, 66))
    spots = (0.13, 0.7, 0.85) if dice.chance(0.6) else (0.15, 0.8)
    wheels = [_wheel(dice, painter, (spot * length, height - radius + 3), radius) for spot in spots]
    if height > 40:
        painter.label(load)
        painter.label(head)
        for wheel in wheels:
            painter.label(wheel)
    return painter.layer()


def bicycle(dice: Dice, height: float) -> Layer:
    """Two open wheels and a frame of tubes; labels: the whole, each wheel."""
    length = 1.6 * height
    painter = Painter(length + 8, height + 6)
    radius, thick = 0.32 * height, max(1.2, 0.03 * height)
    y = height - radius + 2
    rear, front = (radius + 4, y), (length - radius, y)
    tone = colour(dice)
    for at in (rear, front):
        wheel = painter.fill(band(0, math.tau, 1 - 0.1 - 2 / max(radius, 8), 1) * radius + at, (30, 30, 32))
        if radius > 10:
            painter.label(wheel)
    pedal, saddle, bar = (0.45 * length, y), (0.38 * length, 0.28 * height), (0.68 * length, 0.2 * height)
    tubes = np.array([rear, saddle, pedal, rear, pedal, bar, saddle, bar, front])
    painter.limb(tubes, thick, tone)
    painter.fill(oval((saddle[0], saddle[1] - 0.03 * height), 0.08 * length, 0.04 * height), (35, 30, 28))
    painter.limb(
        np.array(
            [bar, (bar[0] + 0.05 * length, bar[1] - 0.1 * height), (bar[0] + 0.1 * length, bar[1] - 0.08 * height)]
        ),
        thick,
        tone,
    )
    return painter.layer()


def boat(dice: Dice, height: float) -> Layer:
    """A hull with sails or a cabin; labels: the whole, hull, sails."""
    length = height * dice.uniform(0.7, 1.4)
    painter = Painter(length * 1.1, height + 4)
    deck, mast = height * dice.uniform(0.75, 0.88), 0.5 * length
    painter.limb(np.array([(mast, 2), (mast, deck)]), max(1.0, 0.015 * height), (90, 70, 50))
    sails = []
    for way in (-1, 1):
        foot = mast + way * length * dice.uniform(0.25, 0.45)
        shape = filled(
            [
                np.array(
                    [
                        (mast + way * 2, 0.05 * height),
                        (foot, deck - 0.06 * height),
                        (mast + way * 2, deck - 0.06 * height),
                    ]
                )
            ]
        )
        sails.append(painter.put(shape, Skin(dice, near(dice, (230, 228, 220), 40), 0.1).paint(dice, shape.size)))
    outline = np.array(
        [
            (0.04 * length, deck),
            (1.06 * length, deck - 0.03 * height),
            (0.9 * length, height + 2),
            (0.2 * length, height + 2),
        ]
    )
    shape = filled([outline])
    hull = painter.put(shape, Skin(dice, colour(dice)).paint(dice, shape.size))
    painter.label(hull)
    for sail in sails:
        painter.label(sail)
    return painter.layer()


def lamp(dice: Dice, height: float) -> Layer:
    """A thin post with a lamp; labels: the whole."""
    painter = Painter(0.5 * height, height + 4)
    foot, thick = (0.25 * height, height + 2), max(1.5, 0.02 * height)
    tone = near(dice, (70, 72, 75), 30)
    reach = dice.sign() * dice.uniform(0, 0.18) * height
    points, widths = curve([(*foot, thick), (foot[0], 0.1 * height, thick), (foot[0] + reach, 0.06 * height, thick)], 2)
    painter.limb(points, widths, tone)
    painter.fill(oval((foot[0] + reach, 0.07 * height), 0.045 * height, 0.03 * height), hsv(0.13, 0.3, 1))
    return painter.layer()
