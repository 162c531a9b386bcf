"""The threshold: counted in one go it equals masks at every threshold, and the best one wins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lora_sam.core.structures import Prompts
from lora_sam.evaluation.backends.threshold import THRESHOLDS, iou_at_thresholds, tune_threshold
from lora_sam.predictors.torch_predictor import TorchPredictor

from .conftest import Fading, Squares, boxes_of


def test_counts_equal_masks_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (30, 40)).astype(np.float32)
    logits[:5] = np.round(logits[:5], 1)  # some exactly on a threshold
    truth = rng.random((30, 40)) < 0.3
    expected = []
    for threshold in THRESHOLDS:
        mask = logits > float(threshold)
        expected.append((mask & truth).sum() / (mask | truth).sum())
    assert iou_at_thresholds(logits, truth).tolist() == pytest.approx(expected, abs=0)


def test_nothing_predicted_of_nothing_is_perfect() -> None:
    values = iou_at_thresholds(np.full((4, 4), -9, np.float32), np.zeros((4, 4), np.bool_))
    assert values.tolist() == [1] * len(THRESHOLDS)


def test_the_best_threshold_cuts_what_is_too_large(squares: Squares) -> None:
    # at 0 the mask is two pixels too large on every side; from 1.5 on it is exact, up to 2.5
    tuned = tune_threshold(Fading(2.5), squares, boxes_of)
    assert tuned.threshold == 1.5
    assert (tuned.iou, tuned.iou_at_zero) == (1, pytest.approx(100 / 196))
    assert (tuned.images, tuned.objects) == (12, 24)


def test_of_equal_ones_the_nearest_to_zero(squares: Squares) -> None:
    assert tune_threshold(Fading(0.5), squares, boxes_of).threshold == 0
    assert tune_threshold(Fading(2.5), squares, boxes_of, multimask=True).threshold == 1.5


def test_predict_with_the_threshold_gives_the_masks_that_were_counted(
    tiny_sam: Callable[[], Any], squares: Squares
) -> None:
    sam = tiny_sam()
    predictor = TorchPredictor(sam, sam.image_encoder.img_size)
    sample = squares[5]
    prompts = boxes_of(sample)
    found = predictor.predict_all(sample.image, prompts)
    spread = float(np.abs(found.logits[:, 0]).max())
    assert spread > 0.05
    for index, threshold in enumerate(THRESHOLDS):
        masks = predictor.predict(sample.image, prompts, threshold=float(threshold)).masks
        for mask, logits, truth in zip(masks, found.logits[:, 0], sample.masks, strict=True):
            union = (mask | truth).sum()
            assert iou_at_thresholds(logits, truth)[index] == pytest.approx((mask & truth).sum() / union)


def test_many_prompts_are_decoded_a_few_at_a_time(squares: Squares) -> None:
    most = []

    class Spy(Fading):
        def predict_all(self, image, prompts):  # type: ignore[no-untyped-def]
            most.append(len(prompts))
            return super().predict_all(image, prompts)

    many = Prompts(boxes=np.tile(np.float32([[5, 5, 15, 15]]), (7, 1)))
    sample = squares[0]
    from lora_sam.core.structures import Sample

    class One:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample(sample.id, sample.image, np.repeat(sample.masks[:1], 7, axis=0), tuple("abcdefg"))

    assert tune_threshold(Spy(), One(), lambda _: many).objects == 7  # type: ignore[arg-type]
    assert max(most) <= 2
