"""Outlines that are shares of an image, or of another size of it, in every format that has pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_sam.core.errors import DataError

from .tool_sets import SQUARE, TRIANGLE, H, W, images, put

IN_TRAIN = {"val": "train", "test": "train"}


def labelme(root: Path, points: list[list[float]], count: int = 4, repeats: int = 1) -> Path:
    names = tuple(f"im{index}.png" for index in range(count))
    images(root, names)
    shape = {"label": "a", "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
    for name in names:
        content = {"version": "5.0", "imagePath": name, "imageHeight": H, "imageWidth": W, "imageData": None}
        put((root / name).with_suffix(".json"), {**content, "shapes": [shape] * repeats})
    return root


def coco(root: Path, points: list[list[float]], count: int = 4, repeats: int = 1, **more: Any) -> Path:
    names = tuple(f"im{index}.png" for index in range(count))
    images(root / "images", names)
    ring = [value for point in points for value in point]
    entries = [
        {"id": place, "image_id": place % count, "category_id": 1, "segmentation": [ring], "iscrowd": 0, **more}
        for place in range(count * repeats)
    ]
    listed = [{"id": index, "file_name": name, "width": W, "height": H} for index, name in enumerate(names)]
    content = {"images": listed, "annotations": entries, "categories": [{"id": 1, "name": "a"}]}
    put(root / "annotations.json", json.dumps(content))
    return root


def shares(points: list[list[float]]) -> list[list[float]]:
    return [[x / W, y / H] for x, y in points]


def halves(points: list[list[float]]) -> list[list[float]]:
    return [[x / 2, y / 2] for x, y in points]


@pytest.mark.parametrize("write", [labelme, coco])
def test_shares_of_the_image_are_no_objects_of_a_pixel(option: Callable[..., Any], tmp_path: Path, write: Any) -> None:
    root = write(tmp_path, shares(SQUARE))
    with pytest.raises(DataError, match=r"lie between 0 and 1, .* multiply x by .*width") as caught:
        option("data/auto", root=str(root), **IN_TRAIN).open(0)
    assert "\n" not in str(caught.value)
    write(tmp_path, SQUARE)
    assert option("data/auto", root=str(root), **IN_TRAIN).open(0).train[0].masks.sum() == 20 * 16


def test_shares_are_read_where_the_box_says_so(option: Callable[..., Any], tmp_path: Path) -> None:
    root = coco(tmp_path, shares(SQUARE), bbox=[4, 5, 20, 16])
    assert option("data/auto", root=str(root), **IN_TRAIN).open(0).train[0].masks.sum() == 20 * 16


@pytest.mark.parametrize("write", [labelme, coco])
def test_outlines_of_images_at_half_size_are_warned_of(option: Callable[..., Any], tmp_path: Path, write: Any) -> None:
    def told(root: Path) -> bool:
        notes = option("data/auto", root=str(root), **IN_TRAIN).open(0).notes
        return any("left upper quarter" in note for note in notes)

    assert told(write(tmp_path / "half", halves(TRIANGLE), 6, 4))
    assert not told(write(tmp_path / "full", TRIANGLE, 6, 4))
    assert not told(write(tmp_path / "few", halves(TRIANGLE), 4, 2))  # chance


@pytest.mark.parametrize("write", [labelme, coco])
def test_outlines_beyond_the_image_are_warned_of(option: Callable[..., Any], tmp_path: Path, write: Any) -> None:
    """As of images that were made smaller, or cut, after labelling; not where a hand slipped over the edge."""

    def told(root: Path) -> list[str]:
        notes = option("data/auto", root=str(root), **IN_TRAIN).open(0).notes
        return [note for note in notes if "out of the image" in note]

    right = max(x for x, _ in SQUARE)
    moved = {name: [[x + W - right + by, y] for x, y in SQUARE] for name, by in (("far", 9), ("slip", 2))}
    (note,) = told(write(tmp_path / "far", moved["far"]))
    assert ": 4 of 4 outlines reach out of the image (by 9 pixels in " in note
    assert told(write(tmp_path / "slip", moved["slip"])) == told(write(tmp_path / "inside", SQUARE)) == []


def test_what_is_no_list_of_numbers_is_left_to_its_reader(option: Callable[..., Any], tmp_path: Path) -> None:
    root = coco(tmp_path, SQUARE)
    file = root / "annotations.json"
    content = json.loads(file.read_text())
    for ring in ([[1e400, 0.0, 1, 1, 0, 1]], [["0.1", "0.2", "0.3"]], [[]], [[0.5, 0.5]]):
        content["annotations"][0]["segmentation"] = ring
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match="annotation 0"):
            option("data/auto", root=str(root), **IN_TRAIN).open(0)
