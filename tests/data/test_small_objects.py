"""Objects that are small in their images, and the tiles that are proposed for them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_sam.core.structures import Sample
from lora_sam.data.small_objects import MOST_IMAGES, Seen, small_objects
from lora_sam.training.setup import describe_data


def test_those_that_span_less_than_a_24th_are_small() -> None:
    large, small = Seen("large", 960, 40.0), Seen("small", 960, 39.9)
    assert small_objects([large] * 9) is None
    found = small_objects([large] * 9 + [small])
    assert found is not None
    assert (found.images, found.of, found.example.id) == (1, 10, "small")
    assert small_objects([large] * 10 + [small]) is None  # fewer than a tenth
    assert small_objects([]) is None


@pytest.mark.parametrize(("span", "tile"), [(1.0, 128), (10.0, 192), (12.9, 256), (30.0, 576)])
def test_tiles_are_twenty_objects_wide(span: float, tile: int) -> None:
    found = small_objects([Seen("a", 4000, span)])
    assert found is not None
    assert found.tile == tile
    assert f"data.tile={tile} shows it {4000 / tile:.1f} times as large" in str(found)


def test_images_that_tiles_would_not_cut_are_left_alone() -> None:
    assert small_objects([Seen("a", 128, 2.0)]) is None
    assert small_objects([Seen("a", 129, 2.0)]) is not None


class Squares:
    """Images of 300 x 400 with one square of 9 pixels each."""

    object_counts = None

    def __init__(self, count: int) -> None:
        self.read = 0
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        self.read += 1
        masks = np.zeros((1, 300, 400), np.bool_)
        masks[0, 8:11, 8:11] = True
        return Sample(str(index), np.zeros((300, 400, 3), np.uint8), masks, ("1",))


def test_a_run_says_it_where_data_can_be_cut_and_is_not(option: Callable[..., Any]) -> None:
    train = Squares(MOST_IMAGES + 5)
    splits: Any = SimpleNamespace(train=train, val=train, test=train, notes=(), skipped=())

    def said(data: Any, *, semantic: bool = False) -> list[str]:
        settings: Any = SimpleNamespace(data=data, semantic=semantic, seed=0)
        return [line for line in describe_data(splits, settings) if "data.tile" in line]

    assert said(option("data/coco", root="x", tile=128)) == []
    assert said(option("data/coco", root="x"), semantic=True) == []
    assert said(SimpleNamespace()) == []
    assert train.read == 0
    (line,) = said(option("data/coco", root="x"))
    assert line.startswith("  20 of 20 images: the median object spans less than 4.2% of the longer side (")
    assert line.endswith(": 3 of 400 pixels); data.tile=128 shows it 3.1 times as large")
    assert train.read == MOST_IMAGES
