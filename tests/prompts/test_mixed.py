"""Objects of one image that are prompted in different ways, and that each is decoded as it would be alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.errors import ConfigError
from lora_sam.core.structures import Prompts, Sample
from lora_sam.predictors.openvino_parts import openvino_directory
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.predictors.torch_predictor import TorchPredictor

Squares = Callable[..., Sample]


@pytest.fixture
def sample(squares: Squares) -> Sample:
    made = squares((48, 64), (5, 5, 20, 20), (30, 10, 60, 40), (2, 30, 12, 45), (40, 2, 50, 9), (20, 20, 24, 24))
    return replace(made, image=np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


def mixed(sample: Sample) -> Prompts:
    """A box, two points, both, a box with a mask, points of which one is padding."""
    nan = np.nan
    boxes = sample.boxes.copy()
    boxes[1] = boxes[4] = nan
    points = np.zeros((5, 2, 2), np.float32)
    points[1] = [[45.5, 25.5], [10.5, 40.5]]
    points[2] = [[6.5, 35.5], [8.5, 40.5]]
    points[4] = [[22.5, 22.5], [0, 0]]
    labels = np.array([[-1, -1], [1, 0], [1, 1], [-1, -1], [1, -1]])
    masks = np.full((5, 16, 16), nan, np.float32)
    masks[3] = np.random.default_rng(1).normal(0, 5, (16, 16))
    return Prompts(boxes, points, labels, masks)


def alone(prompts: Prompts, row: int) -> Prompts:
    """One object's prompts, written without anything that is not there."""
    parts: dict[int, dict[str, Any]] = {
        0: {"boxes": prompts.boxes},
        1: {"points": prompts.points, "labels": prompts.labels},
        2: {"boxes": prompts.boxes, "points": prompts.points, "labels": prompts.labels},
        3: {"boxes": prompts.boxes, "mask_inputs": prompts.mask_inputs},
        4: {"points": prompts.points, "labels": prompts.labels},
    }
    return Prompts(**{name: values[row : row + 1] for name, values in parts[row].items()})


def test_kinds_part_the_objects(sample: Sample) -> None:
    prompts = mixed(sample)
    kinds = prompts.kinds()
    assert sorted(rows.tolist() for rows, _ in kinds) == [[0], [1, 4], [2], [3]]
    for rows, part in kinds:
        for number, row in enumerate(rows.tolist()):
            expected = alone(prompts, row)
            for name, value in vars(part[np.array([number])]).items():
                np.testing.assert_array_equal(value, getattr(expected, name))
    boxes = Prompts(boxes=sample.boxes)
    ((rows, same),) = boxes.kinds()
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert same.boxes is boxes.boxes
    padded = Prompts(points=prompts.points, labels=np.full((5, 2), -1))
    assert [part.boxes for _, part in padded.kinds()] == [None]
    assert boxes[slice(0, 0)].kinds() == []


def check_each_alone(predictor: Any, sample: Sample, tolerance: float) -> None:
    prompts = mixed(sample)
    together, everything = predictor.predict(sample.image, prompts), predictor.predict_all(sample.image, prompts)
    assert np.isfinite(together.low_res_logits).all()
    for row in range(5):
        single = predictor.predict(sample.image, alone(prompts, row))
        assert np.abs(single.low_res_logits[0] - together.low_res_logits[row]).max() <= tolerance
        assert abs(single.scores[0] - together.scores[row]) <= tolerance
        assert (single.masks[0] == together.masks[row]).mean() > 0.999
        three = predictor.predict_all(sample.image, alone(prompts, row))
        assert np.abs(three.low_res_logits[0] - everything.low_res_logits[row]).max() <= tolerance
        assert np.abs(three.logits[0] - everything.logits[row]).max() <= tolerance
    assert np.abs(together.low_res_logits[0] - together.low_res_logits[2]).max() > 100 * tolerance


def test_every_object_is_decoded_as_alone(sample: Sample, tiny_sam: Callable[[], Any]) -> None:
    check_each_alone(TorchPredictor(tiny_sam(), 64, chunk=2), sample, 1e-5)


def test_every_object_is_decoded_as_alone_by_openvino(
    sample: Sample, exported_run: Callable[[Path], Path], tmp_path: Path
) -> None:
    run = exported_run(tmp_path / "run")
    predictor = OpenVINOPredictor(*openvino_directory(run / "openvino" / "fp32"), compile_cache=False, chunk=2)
    check_each_alone(predictor, sample, 1e-4)


def test_mask_prompts_are_scaled_to_the_model(sample: Sample, tiny_sam: Callable[[], Any]) -> None:
    predictor = TorchPredictor(tiny_sam(), 64)
    halves = np.full((5, 64, 64), 4, np.float32)
    halves[:, :, 32:] = -4

    def logits(masks: np.ndarray) -> np.ndarray:
        return predictor.predict(sample.image, Prompts(boxes=sample.boxes, mask_inputs=masks)).low_res_logits

    scaled, exact, mirrored = logits(halves), logits(halves[:, ::4, ::4]), logits(-halves[:, ::4, ::4])
    assert np.abs(scaled - exact).max() < 0.3 * np.abs(mirrored - exact).max()
    flat = np.full((5, 64, 64), 3, np.float32)
    assert np.abs(logits(flat) - logits(flat[:, :16, :16])).max() < 1e-5


# --- the source ------------------------------------------------------------------------------------------------------


def shares(option: Callable[..., Any], squares: Squares, **weights: float) -> tuple[np.ndarray, np.ndarray]:
    """Which of 3 x 200 objects got a box, and which points, of a source with these weights."""
    source = option("prompt/mixed", **weights)
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50), (1, 1, 4, 4))
    boxes, points = [], []
    for epoch in range(200):
        prompts = source.training_prompts(sample, 0, epoch)
        nothing = np.zeros(3, np.bool_)
        boxes.append(nothing if prompts.boxes is None else ~np.isnan(prompts.boxes).any(axis=1))
        points.append(nothing if prompts.labels is None else (prompts.labels == 1).any(axis=1))
    return np.array(boxes), np.array(points)


def test_kinds_are_drawn_for_every_object(option: Callable[..., Any], squares: Squares) -> None:
    boxes, points = shares(option, squares, box_weight=1.0, points_weight=2.0, both_weight=1.0)
    assert (boxes | points).all()
    assert (boxes & ~points).mean() == pytest.approx(0.25, abs=0.06)
    assert (points & ~boxes).mean() == pytest.approx(0.5, abs=0.07)
    assert (boxes.any(axis=1) & points.any(axis=1) & ~(boxes & points).all(axis=1)).mean() > 0.5
    assert np.abs(np.corrcoef(boxes.T.astype(float)) - np.eye(3)).max() < 0.25


def test_a_weight_of_zero_is_never(option: Callable[..., Any], squares: Squares) -> None:
    boxes, points = shares(option, squares, box_weight=3.0, points_weight=0.0, both_weight=0.0)
    assert boxes.all()
    assert not points.any()
    boxes, points = shares(option, squares, box_weight=0.0, points_weight=0.5, both_weight=0.0)
    assert points.all()
    assert not boxes.any()
    boxes, points = shares(option, squares, box_weight=0.0, points_weight=0.0, both_weight=7.0)
    assert (boxes & points).all()
    with pytest.raises(ConfigError, match="at least one a weight"):
        option("prompt/mixed", box_weight=0.0, points_weight=0.0, both_weight=0.0).check()
    option("prompt/mixed").check()


@pytest.mark.parametrize("name", ["mixed", "mask", "iterative"])
def test_prompts_depend_on_seed_epoch_and_id(option: Callable[..., Any], squares: Squares, name: str) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50), (1, 1, 9, 9))
    source = option(f"prompt/{name}")

    def same(one: Prompts, other: Prompts) -> bool:
        return all(
            (a is None) == (b is None) and (a is None or np.array_equal(a, b, equal_nan=True))
            for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
        )

    first = source.training_prompts(sample, 0, 1)
    assert same(first, source.training_prompts(sample, 0, 1))
    assert not same(first, source.training_prompts(sample, 0, 2))
    assert not same(first, source.training_prompts(sample, 1, 1))
    assert not same(first, source.training_prompts(replace(sample, id="b.png"), 0, 1))
    samples = [replace(sample, id=f"{number}.png") for number in range(12)]
    fixed = [source.evaluation_prompts(one, 0) for one in samples]
    assert all(same(one, source.evaluation_prompts(sample, 0)) for one, sample in zip(fixed, samples, strict=True))
    assert not all(same(one, source.evaluation_prompts(sample, 1)) for one, sample in zip(fixed, samples, strict=True))
