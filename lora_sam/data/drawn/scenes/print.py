"""Printed matter: pages, posters, screens and signs with lines of glyphs that look like writing."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from lora_sam.data.drawn import lens, spectra
from lora_sam.data.drawn.bends import oval, rounded
from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layers import Layer, Painter, turned
from lora_sam.data.drawn.layout import anywhere
from lora_sam.data.drawn.materials import Colour, apart, colour, near
from lora_sam.data.drawn.outlines import ellipse, outline_kind, place
from lora_sam.data.drawn.shapes import Shape, filled, stroke
from lora_sam.data.drawn.spectra import Skin


def prints(dice: Dice, canvas: Canvas) -> None:
    """Pages and labels on a table or wall, with writing and pictures; large letters are objects."""
    side = canvas.side
    canvas.camera = lens.taken
    base = colour(dice)
    canvas.picture = spectra.photo(dice, (side, side), base, dice.uniform(0.05, 0.5))
    if dice.chance(0.4):  # writing on the ground itself
        lines = writing(dice, (side, side), dice.log_uniform(5, side / 6))
        canvas.picture.paste(apart(dice, base, 40, 200), (0, 0, side, side), lines)
    depth = dice.uniform(0.2, 0.6) if dice.chance(0.7) else 0.0
    lean = dice.angle() if dice.chance(0.3) else dice.normal(0.1)
    for _ in range(dice.integer(1, 6)):
        layer = page(dice, side * dice.log_uniform(0.15, 0.8))
        layer = turned(layer, lean + dice.normal(0.1))
        at = layer.at(anywhere(dice, side))
        if depth:
            shadow(dice, canvas, Shape(layer.cover, at), (2, 3), depth)
        canvas.stamp(layer, at)
    if dice.chance(0.5):
        size = dice.log_uniform(14, side / 4)
        tone = apart(dice, base, 60, 255)
        x, y = dice.uniform(0, side / 2), dice.uniform(size, side - size)
        while x < side:
            shape = glyph(dice, (x, y), size)
            canvas.add(shape.mask, shape.at, tone)
            x += size * dice.uniform(0.9, 1.2)


def glyph(dice: Dice, centre: tuple[float, float], size: float) -> Shape:
    """One letter-like sign of strokes between the points of a 3 × 3 lattice, connected."""
    points = [(dice.integer(-1, 1) * 0.3, dice.integer(-1, 1) * 0.42)]
    for _ in range(dice.integer(2, 4)):
        step = dice.pick(((0.3, 0.0), (-0.3, 0.0), (0.0, 0.42), (0.0, -0.42), (0.3, 0.42), (-0.6, 0.0), (0.0, 0.84)))
        x, y = points[-1]
        points.append((min(0.3, max(-0.3, x + step[0])), min(0.42, max(-0.42, y + step[1]))))
    line = np.array(points) * size + centre
    widths = max(1.5, size * dice.uniform(0.1, 0.2))
    if dice.chance(0.3):
        loop = place(ellipse(0.3, 0.3), (centre[0], centre[1] + dice.pick((-0.15, 0.15)) * size), size)
        return stroke(
            np.concatenate([line[:1], loop, loop[:1]]) if dice.chance(0.3) else np.concatenate([loop, loop[:1]]), widths
        )
    return stroke(line, widths)


def writing(dice: Dice, size: tuple[int, int], height: float) -> Image.Image:
    """Lines of writing in a window of (width, height), 8-bit grey; small writing is bars and dots."""
    width, tall = size
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    y, pitch = height * 0.7, height * dice.uniform(1.2, 2)
    fine = height > 6
    left = dice.uniform(0.03, 0.1) * width
    glyphs = _alphabet(dice, height) if fine else []
    while y + height / 2 < tall:
        x = left
        end = width * (dice.uniform(0.4, 0.95) if dice.chance(0.3) else 0.93)
        while x < end:
            if dice.chance(0.16):
                x += height * 0.5
                continue
            if fine:
                letter = dice.pick(glyphs)
                mask.paste(255, (round(x), round(y - height / 2)), letter)
                x += letter.width + height * 0.12
            else:
                step = height * dice.uniform(0.3, 0.6)
                up = height * dice.pick((0.25, 0.25, 0.45))
                draw.rectangle((x, y - up, x + step * 0.6, y + height * 0.25), fill=dice.integer(130, 255))
                x += step
        y += pitch
    return mask


def _alphabet(dice: Dice, height: float) -> list[Image.Image]:
    letters = [glyph(dice, (0.0, 0.0), height).mask for _ in range(10)]
    return [letter for letter in letters if letter.height <= 2 * height]


def _content(dice: Dice, painter: Painter, sheet: int, paper: Colour, box: tuple[float, float, float, float]) -> None:
    """Print writing, pictures and rules within XYXY of a sheet."""
    left, top, right, bottom = box
    width = right - left
    y = top
    while y < bottom - 4:
        tall = min((bottom - top) * dice.uniform(0.1, 0.5), bottom - y)
        kind = dice.uniform(0, 1)
        size = (max(2, round(width)), max(2, round(tall)))
        if kind < 0.55:
            height = min(dice.log_uniform(2.5, 14), tall * 0.8)
            lines = writing(dice, size, height)
            painter.mark(Shape(lines, (round(left), round(y))), apart(dice, paper, 100, 255), (sheet,))
        elif kind < 0.85:  # a picture
            shape = filled([np.array([(left, y), (right, y), (right, y + tall * 0.9), (left, y + tall * 0.9)])])
            number = painter.put(shape, Skin(dice, colour(dice), 0.7).paint(dice, shape.size))
            inner = place(
                outline_kind(dice)(dice), ((left + right) / 2, y + tall * 0.45), min(width, tall) * 0.35, dice.angle()
            )
            thing = filled([inner])
            part = painter.put(thing, colour(dice))
            if min(size) > 16:
                painter.label(number, part)
                painter.label(part)
        y += tall + 3


def page(dice: Dice, height: float) -> Layer:
    """A sheet, label or screen; labels: the whole, pictures on it."""
    width = height * dice.pick((0.7, 0.7, 1.0, 1.6))
    painter = Painter(width + 4, height + 4)
    paper = near(dice, (235, 232, 222), 15) if dice.chance(0.6) else colour(dice)
    corners = np.array([(2, 2), (2 + width, 2), (2 + width, 2 + height), (2, 2 + height)])
    shape = filled([rounded(corners, 1) if dice.chance(0.1) else corners])
    sheet = painter.put(shape, Skin(dice, paper, 0.06).paint(dice, shape.size))
    margin = 0.08 * min(width, height) + 1
    if dice.chance(0.2):
        frame = [corners, corners + np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * margin * 0.6]
        painter.mark(filled(frame[:1], frame[1:]), apart(dice, paper, 40, 255), (sheet,))
    _content(dice, painter, sheet, paper, (2 + margin, 2 + margin, 2 + width - margin, 2 + height - margin))
    return painter.layer()


def sign(dice: Dice, height: float) -> Layer:
    """A board on one or two posts; labels: the whole, the board."""
    width = height * dice.uniform(0.3, 0.9)
    painter = Painter(width + 6, height + 4)
    tone, middle = colour(dice), width / 2 + 3
    low = height * dice.uniform(0.3, 0.6)
    posts = (0.0,) if dice.chance(0.6) else (-0.3, 0.3)
    for shift in posts:
        x = middle + shift * width
        painter.limb(
            np.array([(x, 0.2 * height), (x, height + 2)]), max(1.5, 0.03 * height), near(dice, (110, 110, 110), 40)
        )
    kind = dice.uniform(0, 1)
    half = min(width, low) / 2
    if kind < 0.5:
        outline = np.array([(3, 2), (3 + width, 2), (3 + width, low), (3, low)])
    elif kind < 0.75:
        outline = oval((middle, half + 2), half, half)
    else:
        sides = dice.pick((3, 4, 8))
        angle = np.linspace(0, math.tau, sides, False) - math.pi / 2
        outline = np.stack([np.cos(angle), np.sin(angle)], 1) * half + (middle, half + 2)
    shape = filled([outline])
    board = painter.put(shape, Skin(dice, tone, 0.08).paint(dice, shape.size))
    ink = apart(dice, tone, 90, 255)
    extent = shape.size
    painter.mark(Shape(writing(dice, extent, max(2.5, extent[1] * dice.uniform(0.12, 0.35))), shape.at), ink, (board,))
    painter.label(board)
    return painter.layer()
