"""Objects that belong together: heaps, pavements, wholes with parts."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.details import edge, shadow
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.layout import FULL_AREA, SMALLEST, crowd, diameters, radii_around, radii_between, scatter
from lora_sam.data.drawn.materials import apart, backdrop, colour, material, near, scaled
from lora_sam.data.drawn.outlines import Outline, blobs, outline_kind, place
from lora_sam.data.drawn.shapes import filled


def cluster(dice: Dice, canvas: Canvas) -> None:
    """Grapes, bubbles, pebbles: round things in heaps, each seen part its own object."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.1, 1))
    radius = dice.log_uniform(6, side / 9)
    count = crowd(dice, side, radius * 0.7, 80)
    tone = apart(dice, base, 30, 255)
    sun = dice.integer(0, 11)
    variety = dice.pick((5.0, 15.0, 40.0))
    surfaces = [material(dice, near(dice, tone, variety), sun) for _ in range(3)]
    outlines = blobs(dice, count, dice.pick((0.0, 0.05, 0.2)), dice.pick((1.05, 1.3, 1.8)))
    radii = radii_around(dice, side, radius, dice.uniform(0.02, 0.3), count)
    clusters = dice.integer(1, 4) if dice.chance(0.75) else 0
    shadows = dice.uniform(0.2, 0.6) if dice.chance(0.4) else 0.0
    rim = dice.uniform(0.2, 0.8) if dice.chance(0.5) else 0.0
    glassy = dice.chance(0.15)
    spread = radius * math.sqrt(count / max(clusters, 1)) * dice.uniform(0.35, 0.8)
    gap = dice.uniform(0.5, 0.95)
    for index, centre, size in scatter(dice, side, radii, gap=gap, clusters=clusters, spread=spread):
        outline = place(outlines[index], centre, size)
        shape = filled([outline])
        if shadows:
            shadow(dice, canvas, shape, (dice.normal(2), 3), shadows)
        paint = dice.pick(surfaces).paint(dice, shape.size)
        if glassy:
            paint = Image.blend(canvas.picture.crop(shape.box), paint, 0.4)
        canvas.add(shape.mask, shape.at, paint)
        if rim:
            edge(canvas, outline, max(1, size * 0.08), scaled(tone, rim))


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
    seeds = seeds[np.argsort(((seeds - focus) ** 2).sum(1))[: 30 + 60 * side * side // FULL_AREA]]
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
    """The bounded cells around the seeds, convex outlines, in the order of the seeds."""
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
    """The outline with its corners cut twice, which makes them round."""
    for _ in range(2):
        after = np.roll(outline, -1, 0)
        outline = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], 1).reshape(-1, 2)
    return outline


def nested(dice: Dice, canvas: Canvas) -> None:
    """Wholes with a part that is an object as well: cell and nucleus, wheel and hub, button and centre."""
    side = canvas.side
    base = colour(dice)
    canvas.picture = backdrop(dice, side, base, dice.uniform(0.05, 0.8))
    low, high = diameters(dice, side, least=20)
    count = crowd(dice, side, math.sqrt(low * high) / 2, 35)
    sun = dice.integer(0, 11)
    tone = apart(dice, base, 20, 220)
    alike = dice.chance(0.7)
    outers = [material(dice, tone, sun)]
    if not alike:
        outers += [material(dice, apart(dice, base, 20, 255), sun) for _ in range(4)]
    inner = material(dice, apart(dice, tone, 20, 220), sun)
    kind, part = outline_kind(dice), outline_kind(dice)
    radii = radii_between(dice, low, high, count)
    bodies = blobs(dice, count, dice.uniform(0, 0.3), dice.uniform(1, 2))
    nuclei = blobs(dice, 12, 0.1, 1.4)
    cells = dice.chance(0.5)
    shadows = dice.uniform(0.2, 0.7) if dice.chance(0.3) else 0.0
    for index, centre, size in scatter(dice, side, radii, gap=dice.pick((0.7, 1.0))):
        turn = dice.angle()
        outline = place(bodies[index] if cells else kind(dice), centre, size, turn)
        shape = filled([outline])
        if shadows:
            shadow(dice, canvas, shape, (3, 4), shadows)
        whole = canvas.add(shape.mask, shape.at, dice.pick(outers).paint(dice, shape.size))
        if dice.chance(0.2):
            edge(canvas, outline, max(1, size * 0.05), scaled(tone, 0.6))
        for _ in range(1 if dice.chance(0.8) else dice.integer(2, 4)):
            share = dice.uniform(0.2, 0.65)
            off = (centre[0] + dice.normal(0.15 * size), centre[1] + dice.normal(0.15 * size))
            within = filled([place(nuclei[dice.integer(0, 11)] if cells else part(dice), off, size * share, turn)])
            within = within.common(shape)
            number = canvas.add(within.mask, within.at, inner.paint(dice, within.size))
            canvas.include(whole, number)
