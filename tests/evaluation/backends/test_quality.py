"""Quality of several predictors: the scores are those of `evaluate`, and agreement is with masks, not with truth."""

from __future__ import annotations

import numpy as np
import pytest

from lora_sam.evaluation.backends.quality import measure_quality
from lora_sam.evaluation.scoring import evaluate

from .conftest import Fading, Squares, boxes_of


def test_scores_agreement_and_precision(squares: Squares) -> None:
    # a peak of 2.5 reaches two pixels beyond the box of 10 x 10
    predictors = {"exact": Fading(0.5), "large": Fading(2.5)}
    quality = measure_quality(predictors, squares, boxes_of, reference="large")
    assert quality.evaluation.scores["exact"][3].iou.tolist() == [1, 1]
    assert quality.evaluation.scores["large"][3].iou.tolist() == pytest.approx([100 / 196] * 2)
    assert quality.agreement == {"exact": pytest.approx(100 / 196), "large": 1}
    assert quality.average_precision["exact"].map == 1
    # IoU 0.51 is right at the threshold 0.50 only
    assert quality.average_precision["large"].map == pytest.approx(0.1)
    assert (quality.average_precision["large"].map_50, quality.average_precision["large"].map_75) == (1, 0)


def test_the_same_scores_as_evaluate(squares: Squares) -> None:
    quality = measure_quality({"large": Fading(2.5)}, squares, boxes_of)
    (ours, theirs) = (quality.evaluation, evaluate({"large": Fading(2.5)}, squares, boxes_of))
    for one, other in zip(ours.scores["large"], theirs.scores["large"], strict=True):
        assert np.array_equal(one.iou, other.iou)
        assert np.array_equal(one.boundary_f1, other.boundary_f1)
    assert quality.agreement == {}


def test_threshold_and_multimask_reach_the_predictor(squares: Squares) -> None:
    seen = []

    class Spy(Fading):
        def predict(self, image, prompts, *, multimask=False, threshold=0.0):  # type: ignore[no-untyped-def]
            seen.append((multimask, threshold))
            return super().predict(image, prompts, multimask=multimask, threshold=threshold)

    quality = measure_quality({"spy": Spy(2.5)}, squares, boxes_of, multimask=True, threshold=2.0)
    assert set(seen) == {(True, 2.0)}
    assert quality.evaluation.scores["spy"][0].iou.tolist() == [1, 1]


def test_masks_that_are_both_empty_agree(squares: Squares) -> None:
    quality = measure_quality({"nothing": Fading(-100), "tuned": Fading(-100)}, squares, boxes_of, reference="tuned")
    assert quality.agreement == {"nothing": 1, "tuned": 1}
    assert quality.average_precision["nothing"].map == 0
