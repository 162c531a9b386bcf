"""Scores fitted on labelled images: lines folded into the IoU head, thresholds that part good masks from others."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Prompts, Sample
from lora_sam.evaluation.average_precision import encode_masks, overlaps_of
from lora_sam.models.checkpoints import load_scores
from lora_sam.models.iou_head import correct_predicted_iou
from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.automatic import AutomaticMasks, score_of
from lora_sam.predictors.suppression import boxes_within, suppress
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.training.fitted_lines import fit_lines, line_of, predicted_and_actual
from lora_sam.training.fitted_scores import (
    LEAST_IOU,
    LEAST_STABILITY,
    OFFSETS,
    Candidates,
    candidates,
    fit_scores,
    fit_thresholds,
    found_iou,
)
from lora_sam.training.validation import Validation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sample() -> Sample:
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[0, 4:20, 4:20] = masks[1, 22:44, 30:60] = True
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    return Sample("a.png", image, masks, ("1", "2"))


def test_a_line_through_predicted_and_actual() -> None:
    predicted = np.array([0.1, 0.3, 0.5, 0.7])
    assert line_of(predicted, 1.2 * predicted + 0.1) == pytest.approx((1.2, 0.1))
    # what says nothing keeps the least slope, or 1 where it is one number, and the mean is right
    assert line_of(predicted, np.array([0.5, 0.6, 0.6, 0.5])) == pytest.approx((0.25, 0.45))
    assert line_of(predicted, 1 - predicted) == pytest.approx((0.25, 0.5))
    assert line_of(np.full(4, 0.4), predicted) == pytest.approx((1.0, 0.0))
    assert line_of(predicted / 100, predicted)[0] == 4.0


def test_lines_are_folded_into_the_head(tiny_sam: Callable[[], Any], sample: Sample) -> None:
    lines = [(1.0, 0.0), (0.5, 0.1), (2.0, -0.2), (1.5, 0.3)]
    sam = tiny_sam()
    prompts = Prompts(boxes=sample.boxes.copy())
    before = TorchPredictor(sam, 64).predict_all(sample.image, prompts)
    correct_predicted_iou(sam, lines)
    after = TorchPredictor(sam, 64).predict_all(sample.image, prompts)
    slopes, offsets = np.array(lines, np.float32).T
    assert after.scores == pytest.approx(slopes * before.scores + offsets, abs=1e-5)
    assert np.array_equal(after.logits, before.logits)


def test_fitted_lines_bring_predicted_to_actual(tiny_sam: Callable[[], Any], sample: Sample) -> None:
    sam = tiny_sam()
    sets = [Prompts(boxes=sample.boxes.copy()), Prompts(boxes=sample.boxes - 2)]
    predicted, actual = predicted_and_actual(TorchPredictor(sam, 64), sample, sets)
    assert predicted.shape == actual.shape == (4, 4)
    expected = TorchPredictor(sam, 64).predict_all(sample.image, sets[1])
    assert predicted[2:] == pytest.approx(expected.scores, abs=1e-5)
    true = sample.masks[1]
    found = expected.logits[1, 3] > 0
    # a logit near 0 may change its sign where more prompts are decoded at once
    assert actual[3, 3] == pytest.approx((found & true).sum() / (found | true).sum(), abs=2e-3)
    correct_predicted_iou(sam, fit_lines([(predicted, actual)]))
    again, same = predicted_and_actual(TorchPredictor(sam, 64), sample, sets)
    assert np.array_equal(same, actual)
    assert again[:, 0].mean() == pytest.approx(actual[:, 0].mean(), abs=1e-5)
    assert again[:, 1:].mean() == pytest.approx(actual[:, 1:].mean(), abs=1e-5)
    assert np.array_equal(again[:, 1:].argsort(axis=1), predicted[:, 1:].argsort(axis=1))  # the best of three stays it
    assert ((again - actual) ** 2).mean() <= ((predicted - actual) ** 2).mean()


def test_thresholds_part_good_masks_from_others() -> None:
    """Bad masks are as sure as good ones, but less stable; some good ones are no surer than very bad ones."""
    overlaps = np.zeros((5, 2))
    overlaps[0, 0], overlaps[1, 1] = 0.9, 0.6
    stability = np.tile(np.array([0.9, 0.85, 0.2, 0.1, 0.95], np.float32), (len(OFFSETS), 1))
    boxes = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [0, 20, 9, 29], [20, 0, 29, 9], [5, 12, 9, 16]], np.float32)
    image = Candidates(np.array([0.6, 0.5, 0.7, 0.6, 0.2], np.float32), stability, boxes, overlaps)
    scores, figure = fit_thresholds([image])
    assert figure == 1.0
    assert scores.stability_offset == OFFSETS[0]
    assert 0.2 <= scores.predicted_iou < 0.5
    assert 0.2 < scores.stability <= 0.85
    # without any stability that parts them, the best is two of four
    flat = Candidates(image.scores, np.ones_like(stability), boxes, overlaps)
    assert fit_thresholds([flat])[1] == pytest.approx(0.5)


def crowded(seed: int, count: int = 60) -> Candidates:
    """Many overlapping masks of 4 objects, of which some lie on ignored pixels."""
    draws = np.random.default_rng(seed)
    corners = draws.uniform(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + draws.uniform(4, 10, (count, 2))], axis=1).astype(np.float32)
    overlaps = draws.uniform(0, 1, (count, 4)) * (draws.random((count, 4)) < 0.3)
    stability = draws.uniform(0, 1, (len(OFFSETS), count)).astype(np.float32)
    scores = (0.5 * overlaps.max(axis=1) + draws.uniform(0, 0.5, count)).astype(np.float32)
    return Candidates(scores, stability, boxes, overlaps, draws.random(count) < 0.2)


def figure_of(images: list[Candidates], scores: Scores) -> float:
    """What thresholds are worth, one mask after the other."""
    right = wrong = missed = 0
    overlap = 0.0
    for image in images:
        stability = image.stability[OFFSETS.index(scores.stability_offset)]
        ranked = score_of(image.scores, stability, scores.ranking)
        good = np.flatnonzero((ranked > scores.predicted_iou) & (stability >= scores.stability))
        open_ = set(range(4))
        for row in good[suppress(image.boxes[good], ranked[good], scores.box_overlap)]:
            place = max(open_, key=lambda one: image.overlaps[row, one]) if open_ else None
            if place is not None and image.overlaps[row, place] >= 0.5:
                open_.discard(place)
                right += 1
                overlap += image.overlaps[row, place]
            else:
                wrong += not image.ignored[row]  # type: ignore[index]
        missed += len(open_)
    found = np.concatenate([found_iou(image, scores) for image in images])
    assert len(found) == right + wrong + missed
    assert found.sum() == pytest.approx(overlap)
    return right / (right + wrong + missed)


def test_what_is_fitted_is_worth_what_is_said_and_nothing_tried_is_better() -> None:
    images = [{"three": crowded(seed), "single": crowded(seed + 10)} for seed in range(3)]
    scores, figure = fit_scores(images)  # type: ignore[arg-type]
    assert figure == pytest.approx(figure_of([image[scores.masks] for image in images], scores))
    assert figure >= max(fit_thresholds([image[choice] for image in images])[1] for choice in ("three", "single"))
    for choice in ("three", "single"):
        chosen = [image[choice] for image in images]
        plain, best = fit_thresholds(chosen)
        assert best == pytest.approx(figure_of(chosen, plain))
        tried = [
            figure_of(chosen, Scores(predicted_iou=iou, stability=stability, stability_offset=offset))
            for iou in LEAST_IOU[::3]
            for stability in LEAST_STABILITY[::2]
            for offset in OFFSETS[::2]
        ]
        assert max(tried) <= best + 1e-9


def test_masks_of_one_object_whose_boxes_differ_are_told_by_the_masks() -> None:
    masks = np.zeros((4, 40, 60), np.bool_)
    masks[0, 4:14, 4:14] = masks[1, 4:14, 4:14] = masks[2, 26:36, 40:50] = masks[3, 26:36, 40:50] = True
    masks[1, 38, 55] = masks[3, 2, 2] = True  # a speck far away
    encoded = encode_masks(masks)
    scores = np.array([0.92, 0.82, 0.87, 0.72], np.float32)
    image = Candidates(
        scores, np.ones((len(OFFSETS), 4), np.float32), boxes_within(masks), overlaps_of(encoded, encoded[::2]),
        encoded=encoded,
    )  # fmt: skip
    boxes_alone, parted = fit_scores([{"single": replace(image, encoded=())}])
    # boxes cannot part them; a threshold of the score that leaves one of the four out can
    assert (boxes_alone.mask_overlap, parted) == (1.0, 1.0)
    mixed = replace(image, scores=scores[[0, 2, 3, 1]])
    assert fit_scores([{"single": replace(mixed, encoded=())}])[1] == pytest.approx(2 / 3)
    found, figure = fit_scores([{"single": mixed}])
    assert figure == 1.0
    assert found.mask_overlap == 0.1
    assert found_iou(mixed, found).tolist() == pytest.approx(found_iou(image, boxes_alone).tolist(), abs=0.02)


def test_the_better_masks_of_a_point_are_chosen() -> None:
    good = Candidates(
        np.array([0.9, 0.8], np.float32),
        np.ones((len(OFFSETS), 2), np.float32),
        np.array([[0, 0, 9, 9], [20, 20, 29, 29]], np.float32),
        np.array([[0.9, 0.0], [0.0, 0.8]]),
    )
    bad = Candidates(good.scores, good.stability, good.boxes, good.overlaps * 0.4)
    assert fit_scores([{"three": bad, "single": good}])[0].masks == "single"
    assert fit_scores([{"three": good, "single": bad}]) == (fit_thresholds([good])[0], 1.0)


def test_validation_looks_at_masks_without_prompts_too(
    tiny_sam: Callable[[], Any], sample: Sample, option: Callable[..., Any]
) -> None:
    class Source:
        ids, sizes, object_counts = ("a.png",), ((48, 64),), (2,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return sample

    predictor = TorchPredictor(tiny_sam(), 64)
    settings: dict[str, Any] = {
        "predictor": predictor, "source": Source(), "seed": 0, "max_objects": None,
        "prompt": option("prompt/everything", points_per_side=6),  # half of them are tried
    }  # fmt: skip
    images = [candidates(predictor, sample, points_per_side=3, masks="single")]
    found = found_iou(images[0], fit_thresholds(images, "single")[0])
    (prompted,) = Validation(**settings)()
    (both,) = Validation(**settings, masks_of_points=("single",))()
    assert both == pytest.approx(np.concatenate([prompted, found]))
    assert len(found) >= 2


def test_masks_on_ignored_pixels_do_not_count(tiny_sam: Callable[[], Any], sample: Sample) -> None:
    everywhere = replace(sample, ignored=np.ones(sample.size, np.bool_))
    predictor = TorchPredictor(tiny_sam(), 64)
    found = candidates(predictor, everywhere, points_per_side=2, masks="single")
    assert found.ignored is not None
    assert found.ignored.tolist() == [bool(box[2] > box[0]) for box in found.boxes]
    assert not candidates(predictor, sample, points_per_side=2).ignored.any()  # type: ignore[union-attr]


def test_candidates_are_what_automatic_masks_choose_from(tiny_sam: Callable[[], Any], sample: Sample) -> None:
    predictor = TorchPredictor(tiny_sam(), 64)
    found = candidates(predictor, sample, points_per_side=3)
    settings = AutomaticMasks(
        points_per_side=3, predicted_iou=LEAST_IOU[0], stability=0, stability_offset=OFFSETS[2], box_overlap=1
    )
    masks = settings.generate(predictor, sample.image)
    order = np.argsort(-found.scores, kind="stable")
    assert 0 < len(order) == len(masks.scores) < 27
    assert found.scores[order] == pytest.approx(masks.scores, abs=1e-6)
    assert found.stability[2][order] == pytest.approx(masks.stability, abs=1e-6)
    expected = [[(mask & true).sum() / (mask | true).sum() for true in sample.masks] for mask in masks.masks]
    assert found.overlaps[order] == pytest.approx(np.array(expected))


def test_the_script_writes_weights_with_scores(tiny_sam: Callable[[], Any], tmp_path: Path) -> None:
    given, made = tmp_path / "given.safetensors", tmp_path / "made.safetensors"
    save_file(fuse_projections(tiny_sam()).state_dict(), given)
    fit = runpy.run_path(str(ROOT / "scripts" / "fit_scores.py"))["fit"]
    fit(given, made, 2, ["model=tiny_random", "data=synthetic", "data.side=64"], ["world_held_out"])
    assert load_scores(given) == META
    assert load_scores(made) != META
    before, after = load_file(given), load_file(made)
    changed = {name for name, value in after.items() if not (value == before[name].half()).all()}
    last = f"mask_decoder.iou_prediction_head.layers.{2}"
    assert changed <= {f"{last}.weight", f"{last}.bias"}
    assert f"{last}.bias" in changed
