"""Masks whose objects are told apart by colours: read so when that is said, and never taken for something else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError

from .test_siblings import IN_TRAIN, H, W, check_all, labels, objects, opened, told, written

COLOURS = np.array([[0, 0, 0], [250, 10, 10], [10, 250, 10], [70, 70, 200], [200, 200, 0]], np.uint8)
TYPED = "data=labels data.colours=objects"


def coloured(number: int, colours: NDArray[Any] = COLOURS) -> NDArray[np.uint8]:
    """Each object in a colour of its own."""
    shift = np.uint8(number) * (colours.any(axis=1, keepdims=True))
    return np.asarray(colours + shift, np.uint8)[labels(number)]


def few_cells(number: int, values: int = 2) -> NDArray[np.uint8]:
    """32 cells that do not touch, in `values` values."""
    columns, rows = np.mgrid[:H, :W]
    cells = (columns % 15 > 3) & (rows % 10 > 2 + number % 2)
    return np.where(cells, 1 + (columns // 15 + rows // 10) % values, 0).astype(np.uint8)


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_the_message_has_the_words_that_read_them(kind: str, tmp_path: Path) -> None:
    root = written(tmp_path, kind, coloured)
    with pytest.raises(DataError, match="a mask with colours") as caught:
        opened(root)
    typed = re.search(r"read it with (.*?);", str(caught.value))
    assert typed
    check_all(opened(root, typed[1]))


def test_with_transparency(tmp_path: Path) -> None:
    """As matplotlib and skimage write PNG."""

    def draw(number: int) -> NDArray[np.uint8]:
        return np.dstack((coloured(number), np.full((H, W), 255, np.uint8)))

    check_all(opened(written(tmp_path, "labels", draw), TYPED))


def test_one_grey_object_among_coloured_files(tmp_path: Path) -> None:
    """A file whose only object is white has no colours; it is an object all the same, and no void."""

    def draw(number: int) -> NDArray[np.uint8]:
        return np.repeat((objects(0)[0] * np.uint8(255))[..., None], 3, axis=2) if number == 3 else coloured(number)

    splits = opened(written(tmp_path, "labels", draw), TYPED)
    assert [len(sample.masks) for sample in splits.train] == [4, 4, 4, 1, 4, 4]


def test_a_background_that_is_not_black(tmp_path: Path) -> None:
    white = np.vstack((np.full((1, 3), 255, np.uint8), COLOURS[1:]))

    def draw(number: int) -> NDArray[np.uint8]:
        return white[labels(number)]

    root = written(tmp_path, "labels", draw)
    check_all(opened(root, f"{TYPED} {told(opened(root, TYPED), 'no_background')}"))


def test_few_colours_for_many_cells(tmp_path: Path) -> None:
    """BBBC039: the red channel numbers the nuclei, and those that do not touch share a number."""

    def draw(number: int) -> NDArray[np.uint8]:
        return np.dstack((few_cells(number), np.zeros((H, W, 2), np.uint8), np.full((H, W), 255, np.uint8)))

    root = written(tmp_path, "masks", draw)
    typed = f"{TYPED} data.labels=masks"
    splits = opened(root, typed)
    assert any(one.kind == "colours_of_classes" for one in splits.noticed)
    told_words = told(splits, "masks_of_many_parts")
    assert {len(sample.masks) for sample in opened(root, f"{typed} {told_words}").train} == {32}


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_few_values_for_many_cells(kind: str, tmp_path: Path) -> None:
    """Class maps, and graph-coloured label images: a value is an object of many parts, which is told."""
    root = written(tmp_path, kind, few_cells)
    splits = opened(root)
    words = told(splits, "masks_of_many_parts")
    assert len(splits.train[0].masks) == 2
    data = "labels" if kind == "labels" else "folder"
    assert {len(sample.masks) for sample in opened(root, f"data={data} {words}").train} == {32}


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_one_value_for_each_object_is_not_told(kind: str, tmp_path: Path) -> None:
    splits = opened(written(tmp_path, kind, lambda number: labels(number)))
    assert not splits.noticed


def test_void_of_many_parts_is_not_told(tmp_path: Path) -> None:
    """255 along all borders of one object a mask says nothing of the objects."""

    def draw(number: int) -> NDArray[np.uint8]:
        drawn = np.where(few_cells(number) > 0, 255, 0).astype(np.uint8)
        drawn[objects(number)[0]] = 1 + number
        return drawn

    kinds = {one.kind for one in opened(written(tmp_path, "labels", draw)).noticed}
    assert "void_values" in kinds
    assert "masks_of_many_parts" not in kinds


def test_smoothed_edges_are_refused(tmp_path: Path) -> None:
    def draw(number: int) -> Image.Image:
        large = Image.fromarray(coloured(number)).resize((3 * W, 3 * H), Image.Resampling.NEAREST)
        return large.resize((W, H), Image.Resampling.BICUBIC).rotate(5, Image.Resampling.BILINEAR)

    root = written(tmp_path, "labels", draw)
    with pytest.raises(DataError, match="resized or compressed.*every object in one colour"):
        opened(root, TYPED)


def test_photographs_are_refused(tmp_path: Path) -> None:
    """The folder of the labels is that of other pictures."""
    random = np.random.default_rng(0)
    root = written(tmp_path, "labels", lambda _: random.integers(0, 256, (H, W, 3), np.uint8))
    with pytest.raises(DataError, match="every object in one colour"):
        opened(root, TYPED)


def test_colours_of_instances_are_no_classes(tmp_path: Path) -> None:
    """Colours at random, other ones in every file."""
    random = np.random.default_rng(0)

    def draw(number: int) -> NDArray[np.uint8]:
        drawn = random.integers(1, 256, (5, 3)).astype(np.uint8)
        drawn[0] = 0
        return drawn[labels(number)]

    splits = opened(written(tmp_path, "labels", draw), TYPED)
    check_all(splits)
    assert not splits.noticed


def test_jpeg_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path, "labels", coloured)
    for file in sorted((root / "labels").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    with pytest.raises(DataError, match="JPEG"):
        opened(root, f"{TYPED} {' '.join(f'data.{key}={value}' for key, value in IN_TRAIN.items())}")
