"""Large images in tiles: each object counts once, whole where a tile sees it whole; splits and ids stay in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.errors import ConfigError
from lora_sam.core.structures import Sample
from lora_sam.data.partly import some_of
from lora_sam.data.splits import Splits
from lora_sam.data.tiled import Tiles, in_tiles
from tests.conftest import make_blobs


@dataclass(frozen=True)
class Images:
    """Samples in memory."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sample.id for sample in self.samples)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return tuple(sample.size for sample in self.samples)

    @property
    def object_counts(self) -> tuple[int, ...]:
        return tuple(len(sample.masks) for sample in self.samples)

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        return tuple(sample.classes for sample in self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def sample(name: str, size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Sample:
    """Rectangles (XYXY) on noise; of two classes by turns."""
    masks = np.zeros((len(boxes), *size), np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*size, 3), np.uint8)
    ids = tuple(f"{name}:{row}" for row in range(len(boxes)))
    return Sample(name, pixels, masks, ids, tuple("ab"[row % 2] for row in range(len(boxes))))


def tiled(*samples: Sample, tile: int = 64) -> tuple[Tiles, tuple[str, ...]]:
    source = Images(samples)
    found = in_tiles(Splits(source, source, source, (), ()), tile)
    assert found.train is found.val
    assert isinstance(found.train, Tiles)
    return found.train, found.notes


# tiles of 64 that share 8 or more begin at 0, 48, 96 along 160
LARGE = sample("large.png", (64, 160), (5, 5, 20, 20), (55, 10, 70, 30), (54, 40, 60, 50), (10, 50, 150, 60))


def test_each_object_belongs_to_one_tile() -> None:
    source, (note,) = tiled(LARGE, sample("small.png", (64, 60), (1, 2, 30, 40)))
    assert source.ids == ("large.png/0,0", "large.png/48,0", "small.png")
    assert source.sizes == ((64, 64), (64, 64), (64, 60))
    assert [source[index].object_ids for index in range(3)] == [
        ("large.png:0",), ("large.png:1", "large.png:2", "large.png:3"), ("small.png:0",)
    ]  # fmt: skip
    assert source.object_counts == (1, 3, 1)
    assert source.classes == (("a",), ("b", "a", "b"), ("a",))
    assert note == (
        "data.tile = 64: 1 image cut into 2 tiles with objects; 1 object that no tile sees whole is cut by the edge of "
        "the tile with the largest part"
    )


def test_pixels_and_masks_are_those_of_the_place() -> None:
    source, _ = tiled(LARGE)
    second = source[1]
    assert (second.image == LARGE.image[:, 48:112]).all()
    assert (second.masks == LARGE.masks[1:, :, 48:112]).all()
    assert second.masks[2].sum() == 64 * 10, "the object larger than a tile is cut"
    assert second.ignored is None


def test_what_belongs_to_another_tile_is_neither_object_nor_background() -> None:
    source, _ = tiled(LARGE)
    first = source[0]
    assert first.ignored is not None
    expected = LARGE.masks[1:, :, :64].any(axis=0)
    assert expected.any()
    assert (first.ignored == expected).all()


def test_some_objects_are_those_of_the_sample() -> None:
    source, _ = tiled(LARGE)
    whole = source[1]
    for decode in (True, False):
        part, union = some_of(source, 1, np.array([2, 0]), decode=decode, union=True)
        assert (part.masks == whole.masks[[2, 0]]).all()
        assert part.object_ids == ("large.png:3", "large.png:1")
        assert union is not None
        assert (union == whole.masks.any(axis=0)).all()


def test_an_image_is_decoded_once_for_all_its_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def counted(*arguments: Any, decode: bool = True, **options: Any) -> Any:
        calls.append(decode)
        return some_of(*arguments, decode=decode, **options)

    source, _ = tiled(LARGE)
    monkeypatch.setattr("lora_sam.data.tiled.some_of", counted)
    assert [source[index].id for index in (0, 1, 0)]
    assert calls == [True, False, False]


def test_a_data_set_opens_in_tiles_and_all_of_an_image_stay_in_its_split(
    option: Callable[..., Any], tmp_path: Path
) -> None:
    from lora_sam.training.settings import Settings

    make_blobs(tmp_path, {"train": 3, "val": 1, "test": 1}, objects=6, size=(96, 130))
    whole = option("data/coco", root=str(tmp_path)).open(0)
    tiles = in_tiles(whole, 48)
    for name in ("train", "val", "test"):
        large, small = getattr(whole, name), getattr(tiles, name)
        assert {one.rpartition("/")[0] for one in small.ids} == set(large.ids)
        objects = [one for index in range(len(small)) for one in small[index].object_ids]
        assert sorted(objects) == sorted(one for index in range(len(large)) for one in large[index].object_ids)
        assert max(max(size) for size in small.sizes) == 48
    settings = object.__new__(Settings)
    object.__setattr__(settings, "data", option("data/coco", root=str(tmp_path), tile=48))
    object.__setattr__(settings, "trainer", option("trainer/default"))
    object.__setattr__(settings, "seed", 0)
    object.__setattr__(settings, "semantic", False)
    assert settings.open_data().train.ids == tiles.train.ids
    object.__setattr__(settings, "semantic", True)
    with pytest.raises(ConfigError, match="data.tile = 48: is for objects"):
        settings.open_data()
