"""A few of many, evenly spaced."""

from __future__ import annotations

import pytest

from lora_sam.core.spaced import evenly_spaced


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(0, 4, []), (1, 4, [0]), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (9, 3, [0, 4, 8]), (100, 2, [0, 99])],
)
def test_the_first_and_the_last_are_among_them(count: int, most: int, places: list[int]) -> None:
    assert evenly_spaced(count, most) == places
