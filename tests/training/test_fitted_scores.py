"""Scores fitted on labelled images: lines folded into the IoU head, thresholds that part good masks from others."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lora_sam.core.scores import META
from lora_sam.core.structures import Prompts, Sample
from lora_sam.models.checkpoints import load_scores
from lora_sam.models.iou_head import correct_predicted_iou
from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.training.fitted_scores import (
    OFFSETS,
    Candidates,
    candidates,
    fit_lines,
    fit_thresholds,
    line_of,
    predicted_and_actual,
)

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
    assert actual[3, 3] == pytest.approx((found & true).sum() / (found | true).sum())
    correct_predicted_iou(sam, fit_lines([(predicted, actual)]))
    again, same = predicted_and_actual(TorchPredictor(sam, 64), sample, sets)
    assert np.array_equal(same, actual)
    assert again.mean(axis=0) == pytest.approx(actual.mean(axis=0), abs=1e-5)
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


def test_candidates_are_what_automatic_masks_choose_from(tiny_sam: Callable[[], Any], sample: Sample) -> None:
    predictor = TorchPredictor(tiny_sam(), 64)
    found = candidates(predictor, sample, points_per_side=3)
    settings = AutomaticMasks(
        points_per_side=3, predicted_iou=0, stability=0, stability_offset=OFFSETS[2], box_overlap=1
    )
    masks = settings.generate(predictor, sample.image)
    order = np.argsort(-found.scores, kind="stable")
    assert len(order) == 27
    assert found.scores[order] == pytest.approx(masks.scores, abs=1e-6)
    assert found.stability[2][order] == pytest.approx(masks.stability, abs=1e-6)
    expected = [[(mask & true).sum() / (mask | true).sum() for true in sample.masks] for mask in masks.masks]
    assert found.overlaps[order] == pytest.approx(np.array(expected))


def test_the_script_writes_weights_with_scores(tiny_sam: Callable[[], Any], tmp_path: Path) -> None:
    given, made = tmp_path / "given.safetensors", tmp_path / "made.safetensors"
    save_file(fuse_projections(tiny_sam()).state_dict(), given)
    fit = runpy.run_path(str(ROOT / "scripts" / "fit_scores.py"))["fit"]
    fit(given, made, 2, ["model=tiny_random", "data=synthetic", "data.side=64"])
    assert load_scores(given) == META
    assert load_scores(made) != META
    before, after = load_file(given), load_file(made)
    changed = {name for name, value in after.items() if not (value == before[name].half()).all()}
    last = f"mask_decoder.iou_prediction_head.layers.{2}"
    assert changed <= {f"{last}.weight", f"{last}.bias"}
    assert f"{last}.bias" in changed
