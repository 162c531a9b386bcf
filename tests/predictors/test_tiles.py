"""Tiles: what lies across them is found once and whole, whatever the size of image, tile and halo."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.crops import Crop
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.core.predictor import AllMasks, Worth
from lora_sam.core.scores import Scores
from lora_sam.core.structures import Masks, Prompts
from lora_sam.core.tile_grid import tiles_of
from lora_sam.predictors import tiled_prompts
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.tiled_prompts import prompted_in_tiles
from lora_sam.predictors.tiles import automatic_in_tiles
from lora_sam.predictors.torch_predictor import TorchPredictor


class Perfect:
    """Segments what has the colour of the point: the part of an object that the image shows."""

    image_size = 64
    scores = Scores(predicted_iou=0.5, stability=0.5, stability_offset=1.0)
    encoded = 0

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def predict_all(self, image: NDArray[np.uint8], prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        self.sizes.append(image.shape)
        assert prompts.points is not None
        columns, rows = prompts.points[:, 0].astype(int).T
        colours = image[rows, columns, 0]
        logits = np.where(image[None, :, :, 0] == colours[:, None, None], 10, -10).astype(np.float32)
        scores = np.where(colours > 0, 0.9, 0.0).astype(np.float32)
        return AllMasks(logits[:, None], scores[:, None], np.zeros((len(colours), 1, 1, 1), np.float32))


def discs(size: tuple[int, int], radius: tuple[int, int], count: int, seed: int) -> NDArray[np.uint8]:
    """Discs apart from each other, each of its own colour."""
    rng = np.random.default_rng(seed)
    image = np.zeros(size, np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    colour = 0
    for _ in range(2000):
        if colour == count:
            break
        r = int(rng.integers(*radius))
        y, x = int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= r * r
        near = (rows - y) ** 2 + (columns - x) ** 2 <= (r + 3) ** 2
        if not image[near].any() and inside.sum() > 60:
            colour += 1
            image[inside] = colour
    assert colour == count
    return np.repeat(image[:, :, None], 3, axis=2)


@pytest.mark.parametrize("size", [(200, 300), (64, 64), (65, 130), (40, 500), (50, 30)], ids=str)
@pytest.mark.parametrize(("tile", "halo"), [(64, 0), (64, 16), (64, 31), (100, 12)])
def test_tiles_cover_the_image_and_share_the_halo(size: tuple[int, int], tile: int, halo: int) -> None:
    seen = np.zeros(size, np.int64)
    boxes = tiles_of(size, tile, halo)
    for x1, y1, x2, y2 in boxes:
        assert (x2 - x1, y2 - y1) == (min(tile, size[1]), min(tile, size[0]))
        seen[y1:y2, x1:x2] += 1
    assert seen.min() == 1 or min(size) <= tile or halo > 0
    columns = sorted({(box[0], box[2]) for box in boxes})
    for (_, end), (start, _) in pairwise(columns):
        assert end - start >= halo
    assert len(columns) == 1 or (len(columns) - 1) * (tile - halo) < size[1]


@pytest.mark.parametrize("seed", range(2))
def test_each_disc_is_found_once_and_whole(seed: int) -> None:
    image = discs((230, 310), (5, 12), 40, seed)
    predictor = Perfect()
    calls: list[tuple[int, int]] = []
    found = automatic_in_tiles(
        AutomaticMasks(points_per_side=32),
        predictor,
        image,
        tile=96,
        halo=30,
        label=lambda pixels, masks, _: [str(pixels[mask][0, 0]) for mask in masks],
        on_tile=lambda done, count: calls.append((done, count)),
    )
    assert calls == [(done, 20) for done in range(1, 21)]
    assert {shape[:2] for shape in predictor.sizes} == {(96, 96)}
    colours = [int(image[crop.full(found.size)][0, 0]) for crop in found.crops]
    assert sorted(colours) == list(range(1, 41))
    assert found.labels == tuple(map(str, colours))
    for crop, colour in zip(found.crops, colours, strict=True):
        np.testing.assert_array_equal(crop.full(found.size), image[:, :, 0] == colour)
    for (x, y), crop in zip(found.points, found.crops, strict=True):
        assert crop.full(found.size)[int(y), int(x)]
    assert found.scores == pytest.approx(0.9)
    assert found.stability == pytest.approx(1.0)


@pytest.mark.parametrize("halo", [0, 16])
def test_an_object_larger_than_a_tile_is_put_together(halo: int) -> None:
    image = np.zeros((288, 288, 3), np.uint8)
    image[20:190, 100:140] = 7  # through two or three rows of tiles
    image[80:110, 10:250] = 7  # and all columns
    found = automatic_in_tiles(AutomaticMasks(points_per_side=16), Perfect(), image, tile=96, halo=halo)
    joined = np.zeros((288, 288), np.bool_)
    for crop in found.crops:
        joined |= crop.full(found.size)
    np.testing.assert_array_equal(joined, image[:, :, 0] == 7)
    # without a shared part nothing tells that two masks are one object
    assert (len(found.crops) == 1) == (halo > 0)


def test_neighbours_of_other_colours_stay_apart() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :100] = 1
    image[:, 100:] = 2
    found = automatic_in_tiles(AutomaticMasks(points_per_side=8), Perfect(), image, tile=80, halo=20)
    assert sorted(crop.area for crop in found.crops) == [10000, 10000]


def test_one_tile_is_the_image(tiny_sam: Callable[[], Any]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    automatic = AutomaticMasks(points_per_side=6, predicted_iou=0, stability=0)
    predictor = TorchPredictor(tiny_sam(), 64)
    whole = automatic.generate(predictor, image)
    tiled = automatic_in_tiles(automatic, predictor, image, tile=64, halo=8)
    assert len(tiled.crops) == len(whole.masks) > 0
    np.testing.assert_array_equal([crop.full((48, 64)) for crop in tiled.crops], whole.masks)
    np.testing.assert_array_equal(tiled.scores, whole.scores)
    np.testing.assert_array_equal(tiled.points, whole.points)


def test_nothing_found_is_no_error() -> None:
    found = automatic_in_tiles(
        AutomaticMasks(points_per_side=4), Perfect(), np.zeros((100, 100, 3), np.uint8), tile=64, halo=8
    )
    assert found.crops == ()
    assert found.points.shape == (0, 2)


class Window:
    """Answers a box with the box, and remembers what it was shown."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict(
        self, image: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0
    ) -> Masks:
        self.shapes.append(image.shape)
        masks = np.zeros((len(prompts), *image.shape[:2]), np.bool_)
        boxes = prompts.boxes if prompts.boxes is not None else np.zeros((len(prompts), 4))
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[max(0, y1) : y2, max(0, x1) : x2] = True
        if prompts.points is not None:
            for mask, (x, y) in zip(masks, prompts.points[:, 0].astype(int), strict=True):
                mask[y, x] = True
        return Masks(masks, np.full(len(prompts), 0.8, np.float32), np.zeros((len(prompts), 1, 1), np.float32))


def test_prompts_are_answered_where_they_are() -> None:
    image = np.zeros((500, 700, 3), np.uint8)
    boxes = np.array([[3, 4, 20, 30], [640, 470, 699, 499], [100, 50, 400, 420], [300, 300, 300, 300]], np.float32)
    predictor = Window()
    crops, scores, labels = prompted_in_tiles(
        predictor, image, Prompts(boxes=boxes), tile=128, label=lambda pixels, masks, _: [str(m.sum()) for m in masks]
    )
    assert labels == [str(crop.area) if crop else "0" for crop in crops]
    assert [crop.box if crop else None for crop in crops] == [tuple(box) for box in boxes[:3].astype(int)] + [None]
    assert scores.tolist() == pytest.approx([0.8] * 4)
    assert [shape[:2] for shape in predictor.shapes] == [(128, 128), (128, 128), (500, 450), (128, 128)]


def test_points_of_one_window_are_answered_together_and_in_place() -> None:
    predictor = Window()
    points = np.array([[[30, 40]], [[20, 10]], [[210, 90]]], np.float32)
    prompts = Prompts(points=points, labels=np.ones((3, 1), np.int64))
    crops, _, labels = prompted_in_tiles(predictor, np.zeros((100, 300, 3), np.uint8), prompts, tile=128)
    assert [(crop.x, crop.y) for crop in crops if crop] == [(30, 40), (20, 10), (210, 90)]
    assert labels == ["", "", ""]
    assert len(predictor.shapes) == 2


class Fill(Window):
    """Answers a point with all that has its grey."""

    def predict(
        self, image: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0
    ) -> Masks:
        self.shapes.append(image.shape)
        assert prompts.points is not None
        columns, rows = prompts.points[:, 0].astype(int).T
        masks = image[None, :, :, 0] == image[rows, columns, 0][:, None, None]
        return Masks(masks, np.full(len(prompts), 0.8, np.float32), np.zeros((len(prompts), 1, 1), np.float32))


def test_what_is_larger_than_the_window_of_its_point_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[20:230, 30:260] = 100
    image[250:290, 300:330] = 200
    points = np.array([[[140, 120]], [[310, 270]], [[5, 5]]], np.float32)
    prompts = Prompts(points=points, labels=np.ones((3, 1), np.int64))
    predictor = Fill()
    crops, scores, _ = prompted_in_tiles(predictor, image, prompts, tile=64)
    assert [crop.box if crop else None for crop in crops] == [
        (30, 20, 260, 230),
        (300, 250, 330, 290),
        (0, 0, 400, 300),
    ]
    assert scores.tolist() == pytest.approx([0.8] * 3)
    assert sorted(shape[0] for shape in predictor.shapes) == [64, 64, 64, 128, 128, 256, 256, 300]
    # no more prompts at once than there is memory for, and no window beyond the largest
    monkeypatch.setattr(tiled_prompts, "_PIXELS_AT_ONCE", 128**2)
    monkeypatch.setattr(tiled_prompts, "_LARGEST", 128**2)
    again = Fill()
    some, _, _ = prompted_in_tiles(again, image, prompts[np.array([0, 0, 1])], tile=64)
    assert [crop.box if crop else None for crop in some] == [(76, 56, 204, 184)] * 2 + [(300, 250, 330, 290)]
    assert sorted(shape[0] for shape in again.shapes) == [64, 64, 128, 128]


def test_what_cannot_be_tiled_is_told() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    with pytest.raises(ConfigError, match="tile=16: must be at least 32"):
        tiles_of((100, 100), 16, 0)
    with pytest.raises(ConfigError, match="halo=32: must be from 0 to less than half of tile=64, such as halo=8"):
        tiles_of((100, 100), 64, 32)
    boxes = np.array([[1, 1, 5, 5]], np.float32)
    inputs = Prompts(boxes=boxes, mask_inputs=np.zeros((1, 8, 8), np.float32))
    with pytest.raises(DataError, match="belong to the frame of the whole image"):
        prompted_in_tiles(Window(), image, inputs, tile=64)


def test_a_piece_that_a_neighbour_saw_whole_and_refused_is_left_out() -> None:
    image = np.zeros((64, 180, 3), np.uint8)
    image[20:40, 90:140] = 3  # whole in the last tile

    class Refuses(Perfect):
        def predict_all(self, image: NDArray[np.uint8], prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
            found = super().predict_all(image, prompts)
            whole = found.logits[:, 0].max(axis=1).max(axis=1) > 0
            wide = (found.logits[:, 0] > 0).any(axis=1).sum(axis=1) >= 50
            found.scores[whole & wide] = 0
            return found

    found = automatic_in_tiles(AutomaticMasks(points_per_side=12), Refuses(), image, tile=96, halo=40)
    assert [tile for tile in tiles_of((64, 180), 96, 40)] == [(0, 0, 96, 64), (42, 0, 138, 64), (84, 0, 180, 64)]
    assert found.crops == ()
    assert Crop.of(image[:, :, 0] == 3) is not None
