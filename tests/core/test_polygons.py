"""Polygons along pixel edges: filled they are the mask, and each is valid."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Polygon as Shape

from lora_sam.core.polygons import Polygon, polygons_of, single_ring


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def filled(polygons: list[Polygon], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside an outer ring and in none of its holes, by crossings of a line to the right."""
    mask = np.zeros(size, np.bool_)
    for polygon in polygons:
        for ring in (polygon.outer, *polygon.holes):
            mask ^= even_odd(ring, size)
    return mask


def even_odd(ring: list[tuple[int, int]], size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    odd = np.zeros(size, np.bool_)
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            odd ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return odd


def test_a_pixel_has_four_corners() -> None:
    mask = np.zeros((6, 9), np.bool_)
    mask[3, 5] = True
    assert polygons_of(mask) == [Polygon([(6, 3), (6, 4), (5, 4), (5, 3)])]
    assert polygons_of(np.zeros((3, 3), np.bool_)) == []


def test_holes_and_islands() -> None:
    mask = mask_of("#######", "#.....#", "#.###.#", "#.###.#", "#.....#", "#######", ".......", "##.....")
    found = polygons_of(mask)
    assert [len(polygon.holes) for polygon in found] == [1, 0, 0]
    assert [Shape(polygon.outer, polygon.holes).area for polygon in found] == [22, 6, 2]
    assert (filled(found, mask.shape) == mask).all()


@pytest.mark.parametrize(
    "rows",
    [
        ("#.", ".#"),  # two parts
        ("###.", "#.#.", "##.#", ".###"),  # holes and corners that touch
        (".#.", "#.#", ".#."),
        ("####", "#.##", "##.#", "####"),  # two holes that touch at a corner
        ("###", "#.#", "##."),  # the rim touches the hole at a corner
    ],
)
def test_corners_that_touch(rows: tuple[str, ...]) -> None:
    mask = mask_of(*rows)
    found = polygons_of(mask)
    assert all(Shape(polygon.outer, polygon.holes).is_valid for polygon in found)
    assert sum(Shape(polygon.outer, polygon.holes).area for polygon in found) == mask.sum()
    assert (filled(found, mask.shape) == mask).all()


@pytest.mark.parametrize("seed", range(30))
def test_any_mask_comes_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 14), rng.integers(1, 14))) < rng.uniform(0.1, 0.95)
    found = polygons_of(mask)
    assert (filled(found, mask.shape) == mask).all()
    shapes = [Shape(polygon.outer, polygon.holes) for polygon in found]
    assert all(shape.is_valid for shape in shapes)
    assert all(shape.exterior.is_ccw for shape in shapes)  # y is down: clockwise as it is seen
    assert sum(shape.area for shape in shapes) == mask.sum()
    ring = single_ring(found)
    assert (even_odd(ring, mask.shape) == mask).all() if len(ring) else not mask.any()
