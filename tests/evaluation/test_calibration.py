"""Calibration of the predicted IoU against torchmetrics and cases computed by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from lora_sam.evaluation.calibration import Bin, reliability_of


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_error_equals_torchmetrics(bins: int) -> None:
    """Its calibration error is for labels 0 and 1, so the IoU here are of such objects."""
    import torch
    from torchmetrics.classification import BinaryCalibrationError

    rng = np.random.default_rng(bins)
    predicted = rng.uniform(0, 1, 500).astype(np.float32)
    actual = (rng.random(500) < predicted**2).astype(np.float64)
    reference = BinaryCalibrationError(n_bins=bins, norm="l1")(
        torch.from_numpy(predicted), torch.from_numpy(actual).int()
    )
    assert 0.05 < float(reference) < 0.3
    assert reliability_of(predicted, actual, bins).error == pytest.approx(float(reference), abs=1e-6)


def test_perfectly_calibrated() -> None:
    predicted = (np.arange(100) + 0.5) / 100
    found = reliability_of(predicted, predicted)
    assert (found.error, found.bias) == (0, 0)
    assert [one.objects for one in found.bins] == [10] * 10
    for one in found.bins:
        assert one.predicted == one.actual


def test_by_hand() -> None:
    """Bin 0.2 to 0.3: predicted 0.24, actual 0.50. Bin 0.9 to 1: predicted 0.95 and 1, actual 0.75 and 0.85."""
    found = reliability_of(np.array([0.95, 0.24, 1.0]), np.array([0.75, 0.5, 0.85]))
    assert found.error == pytest.approx((0.26 + 0.2 + 0.15) / 3)
    assert found.bias == pytest.approx((-0.26 + 0.2 + 0.15) / 3)
    assert found.bins[2] == Bin(pytest.approx(0.2), pytest.approx(0.3), 1, pytest.approx(0.24), pytest.approx(0.5))
    assert found.bins[9].objects == 2
    assert found.bins[9].predicted == pytest.approx(0.975)
    assert found.bins[9].actual == pytest.approx(0.8)
    assert found.bins[0] == Bin(0.0, pytest.approx(0.1), 0, None, None)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["bins"][0]["actual"] is None


def test_too_sure_is_a_bias_above_zero() -> None:
    actual = np.full(50, 0.6)
    found = reliability_of(np.full(50, 0.9), actual)
    assert found.error == pytest.approx(0.3)
    assert found.bias == pytest.approx(0.3)


def test_a_regression_that_leaves_its_range() -> None:
    found = reliability_of(np.array([1.3, -0.2], np.float32), np.array([1.0, 0.0]))
    assert found.error == 0
    assert (found.bins[0].objects, found.bins[9].objects) == (1, 1)
