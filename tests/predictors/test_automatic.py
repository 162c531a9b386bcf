"""Automatic masks: the same as those of segment_anything, and the parts they are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from segment_anything import SamAutomaticMaskGenerator

from lora_sam.core.console import note
from lora_sam.core.predictor import AllMasks
from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Prompts
from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.grid import grid_points
from lora_sam.predictors.suppression import boxes_within, iou_of_bits, stability_of, suppress
from lora_sam.predictors.torch_predictor import TorchPredictor


@pytest.mark.parametrize("size", [(48, 64), (64, 50), (100, 150)], ids=str)
@pytest.mark.parametrize(("iou", "stability", "overlap"), [(0.0, 0.0, 0.7), (0.0, 0.3, 0.9), (0.05, 0.2, 0.3)])
def test_equals_the_generator_of_segment_anything(
    tiny_sam: Callable[[], Any], size: tuple[int, int], iou: float, stability: float, overlap: float
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    sam = tiny_sam()
    # the logits of random weights are small
    settings = AutomaticMasks(
        points_per_side=8, predicted_iou=iou, stability=stability, stability_offset=0.01, box_overlap=overlap
    )
    found = settings.generate(TorchPredictor(sam, 64), image)
    reference = SamAutomaticMaskGenerator(
        fuse_projections(tiny_sam()),
        points_per_side=8,
        pred_iou_thresh=iou,
        stability_score_thresh=stability,
        stability_score_offset=0.01,
        box_nms_thresh=overlap,
        output_mode="coco_rle",
    ).generate(image)
    assert len(found.masks) == len(reference) >= 1
    assert np.array_equal(found.masks, [coco_mask.decode(one["segmentation"]).astype(bool) for one in reference])
    assert found.scores == pytest.approx([one["predicted_iou"] for one in reference], abs=1e-5)
    assert found.stability == pytest.approx([one["stability_score"] for one in reference], abs=1e-5)
    assert found.points == pytest.approx(np.array([one["point_coords"][0] for one in reference]), abs=1e-3)


def test_parts_of_the_grid_change_nothing(tiny_sam: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    settings = AutomaticMasks(points_per_side=6, predicted_iou=0, stability=0)
    predictor = TorchPredictor(tiny_sam(), 64)
    whole = settings.generate(predictor, image)
    monkeypatch.setattr("lora_sam.predictors.automatic._LOGITS_AT_ONCE", 4 * 48 * 64 * 5)
    calls: list[tuple[int, int]] = []
    parts = settings.generate(predictor, image, on_points=lambda done, count: calls.append((done, count)))
    assert calls == [(done, 36) for done in (5, 10, 15, 20, 25, 30, 35, 36)]
    assert np.array_equal(whole.masks, parts.masks)


def test_nothing_is_found_above_every_score(tiny_sam: Callable[[], Any]) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    found = AutomaticMasks(points_per_side=2, predicted_iou=1.0).generate(TorchPredictor(tiny_sam(), 64), image)
    assert found.masks.shape == (0, 20, 30)
    assert found.points.shape == (0, 2)
    assert found.nothing is not None
    assert re.fullmatch(
        r"no mask was found: the highest predicted IoU from 4 points is -?0\.\d\d, and masks are kept above 1\.00\. "
        r"Set predicted_iou lower, give more points_per_side, or tune with prompt=everything on images like this one\.",
        found.nothing,
    )
    unstable = AutomaticMasks(points_per_side=2, predicted_iou=0.0, stability=1.0, stability_offset=100.0)
    found = unstable.generate(TorchPredictor(tiny_sam(), 64), image)
    assert found.nothing == (
        "no mask was found: of those from 4 points with enough predicted IoU, the highest stability is 0.00, and 1.00 "
        "is asked for. Set stability lower, or give more points_per_side."
    )


def test_the_single_mask_and_the_product_with_stability(tiny_sam: Callable[[], Any]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    predictor = TorchPredictor(tiny_sam(), 64)
    all_of = {"points_per_side": 4, "predicted_iou": 0, "stability": 0, "stability_offset": 0.01, "box_overlap": 1}
    single = AutomaticMasks(**all_of, masks="single").generate(predictor, image)
    assert single.nothing is None
    points = grid_points(4, (48, 64))
    expected = predictor.predict(image, Prompts(points=points[:, None], labels=np.ones((16, 1), np.int64)))
    order = np.argsort(-expected.scores, kind="stable")
    assert np.array_equal(single.masks, expected.masks[order])
    assert single.scores == pytest.approx(expected.scores[order], abs=1e-6)
    assert np.array_equal(single.scores, single.predicted_iou)
    product = AutomaticMasks(**all_of, ranking="iou_stability").generate(predictor, image)
    three = AutomaticMasks(**all_of).generate(predictor, image)
    assert len(product.masks) == len(three.masks) == 48
    assert product.scores == pytest.approx(product.predicted_iou * product.stability)
    assert (np.diff(product.scores) <= 0).all()
    assert not np.array_equal(product.points, three.points)
    least = float(np.median(product.scores))
    high = AutomaticMasks(**{**all_of, "predicted_iou": least}, ranking="iou_stability").generate(predictor, image)
    assert np.array_equal(high.masks, product.masks[product.scores > np.float32(least)])


def test_a_decoder_without_the_three_masks_is_told(
    tiny_sam: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = TorchPredictor(tiny_sam(), 64)
    every = predictor.predict_all

    def single(*arguments: Any, **options: Any) -> Any:
        found = every(*arguments, **{**options, "worth": None})
        return AllMasks(found.logits[:, :1], found.scores[:, :1], found.low_res_logits[:, :1])

    predictor.predict_all = single  # type: ignore[method-assign]
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    note.cache_clear()
    for masks, told in (("single", ""), ("three", "note: this decoder gives single masks only")):
        found = AutomaticMasks(points_per_side=2, predicted_iou=0, stability=0, masks=masks).generate(predictor, image)
        assert len(found.masks)
        assert capsys.readouterr().err.partition(",")[0] == told


class Colours:
    """Segments what has the colour of the point, and counts the points."""

    image_size, scores = 64, META

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def predict_all(self, image: Any, prompts: Prompts, **_: Any) -> AllMasks:
        assert prompts.points is not None
        points = prompts.points[:, 0]
        self.asked += [(float(x), float(y)) for x, y in points]
        colours = image[points[:, 1].astype(int), points[:, 0].astype(int), 0]
        logits = np.where(image[None, :, :, 0] == colours[:, None, None], 10, -10).astype(np.float32)
        scores = np.where(colours > 0, 0.95, 0.0).astype(np.float32)
        return AllMasks(logits[:, None], scores[:, None], np.zeros((len(points), 1, 1, 1), np.float32))


def test_a_second_grid_finds_what_lies_between_the_first_points() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[5:45, 5:35] = 1
    image[48:54, 62:68] = 2
    image[20:26, 62:68] = 3  # between the points of both grids
    coarse, finer, fine = (
        AutomaticMasks(points_per_side=2), AutomaticMasks(points_per_side=2, holes_per_side=8),
        AutomaticMasks(points_per_side=8),
    )  # fmt: skip
    predictors = [Colours() for _ in range(3)]
    found = [one.generate(predictor, image) for one, predictor in zip((coarse, finer, fine), predictors, strict=True)]
    assert [len(one.masks) for one in found] == [1, 2, 2]
    for mask in found[1].masks:
        assert any(np.array_equal(mask, other) for other in found[2].masks)
    asked = [len(predictor.asked) for predictor in predictors]
    assert asked[0] == 4
    assert 4 < asked[1] < asked[2] == 64
    assert not any(image[int(y), int(x), 0] == 1 for x, y in predictors[1].asked[4:])
    calls: list[tuple[int, int]] = []
    finer.generate(Colours(), image, on_points=lambda done, count: calls.append((done, count)))
    assert calls == [(4, 4), (asked[1], asked[1])]


@pytest.mark.parametrize(
    ("first", "second", "shared"), [(2, 6, 4), (3, 9, 9), (2, 4, 0), (3, 3, 9), (6, 2, 4), (5, 1, 1)]
)
def test_no_point_is_asked_twice(first: int, second: int, shared: int) -> None:
    predictor = Colours()
    image = np.zeros((60, 80, 3), np.uint8)
    found = AutomaticMasks(points_per_side=first, holes_per_side=second).generate(predictor, image)
    assert len({(round(x, 3), round(y, 3)) for x, y in predictor.asked}) == len(predictor.asked)
    assert len(predictor.asked) == first**2 + second**2 - shared
    assert f" from {len(predictor.asked)} points" in str(found.nothing)


def test_without_a_hole_nothing_is_asked_again() -> None:
    predictor = Colours()
    found = AutomaticMasks(points_per_side=2, holes_per_side=8).generate(predictor, np.ones((60, 80, 3), np.uint8))
    assert (len(found.masks), len(predictor.asked)) == (1, 4)


class Specks(Colours):
    """Each point also gives a pixel of its own in the top row, so that no two boxes are alike."""

    def predict_all(self, image: Any, prompts: Prompts, **options: Any) -> AllMasks:
        found = super().predict_all(image, prompts, **options)
        assert prompts.points is not None
        for row, (x, _) in enumerate(prompts.points[:, 0]):
            found.logits[row, 0, 0, int(7 * x) % 80] = 10
        return found


def test_equal_masks_with_a_speck_are_one_object() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[42:58, 42:58] = 1
    image[20:26, 62:78] = 2
    every = AutomaticMasks(points_per_side=16, box_overlap=0.99).generate(Specks(), image)
    assert len(every.masks) > 2
    once = AutomaticMasks(points_per_side=16, box_overlap=0.99, mask_overlap=0.5).generate(Specks(), image)
    assert len(once.masks) == 2
    assert {tuple(mask[[50, 22], [50, 70]].tolist()) for mask in once.masks} == {(True, False), (False, True)}
    own = Specks()
    own.scores = replace(META, mask_overlap=0.5)  # type: ignore[misc]
    assert np.array_equal(AutomaticMasks(points_per_side=16, box_overlap=0.99).generate(own, image).masks, once.masks)


def test_overlap_of_packed_masks() -> None:
    masks = np.random.default_rng(0).random((5, 7, 9)) < 0.5
    masks[3] = masks[4] = False
    masks[1, :, :5] = masks[2, :, 4:] = False  # boxes that share nothing
    packed = np.packbits(masks.reshape(5, -1), axis=1)
    for place in range(5):
        expected = [(masks[place] & one).sum() / max(1, (masks[place] | one).sum()) for one in masks[place + 1 :]]
        assert iou_of_bits(packed, boxes_within(masks), place).tolist() == pytest.approx(expected)


def test_the_grid_lies_in_the_middle_of_its_cells() -> None:
    assert grid_points(2, (40, 80)).tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]


def test_stability_is_the_overlap_of_two_thresholds() -> None:
    logits = np.array([[[2, 0.5], [-0.5, -2]], [[-3, -3], [-3, -3]]], np.float32)
    assert stability_of(logits, 1.0) == pytest.approx([1 / 3, 0])


def test_of_two_boxes_that_overlap_the_better_one_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.1], np.float32)
    assert suppress(boxes, scores, 0.7).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.95).tolist() == [1, 0, 2, 3]
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_thresholds_are_those_of_the_weights_unless_set(tiny_sam: Callable[[], Any]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    own = Scores(predicted_iou=0.05, stability=0.2, stability_offset=0.01, points_per_side=8)
    set_ = AutomaticMasks(**vars(own)).generate(TorchPredictor(tiny_sam(), 64), image)
    found = AutomaticMasks().generate(TorchPredictor(tiny_sam(), 64, scores=own), image)
    assert len(set_.masks) >= 1
    assert np.array_equal(set_.masks, found.masks)
    assert np.array_equal(set_.stability, found.stability)
    assert not len(AutomaticMasks(points_per_side=8).generate(TorchPredictor(tiny_sam(), 64), image).masks)
    assert AutomaticMasks().completed(META) == META
    assert (META.points_per_side, AutomaticMasks(points_per_side=4).completed(own).points_per_side) == (16, 4)
    assert AutomaticMasks(stability=0.0).completed(own) == replace(own, stability=0.0)
