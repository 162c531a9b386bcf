"""Training of the families beside the plain ViT: an interruption changes no bit, and neither does the cache's stage."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lora_sam.training.loop import Fit


@pytest.fixture(params=["tiny_vit_random", "sam2_random", "sam3_random", "sam_hq_random"])
def tiny_sam(option: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[[], Any]:
    """What `make_fit` trains here."""
    return lambda: option(f"model/{request.param}").build().sam


def state(fit: Fit) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fit.adapted.peft.state_dict().items()}


@pytest.mark.parametrize("method", ["lora", "decoder", "full"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    tiny_sam: Callable[[], Any], make_fit: Callable[..., Fit], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    whole = make_fit("whole", method=method, max_epochs=2)
    start = state(whole)
    whole.fit()
    stopped = make_fit("stopped", method=method, max_epochs=2)
    original = Fit._optimizer_step

    def step_then_signal(self: Fit, progress: Any, *arguments: Any) -> None:
        original(self, progress, *arguments)
        if self is stopped and progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Fit, "_optimizer_step", step_then_signal)
    assert stopped.fit().step == 3
    torch.manual_seed(123)
    resumed = make_fit("stopped", method=method, max_epochs=2)
    resumed.fit(resumed.run.last)
    expected, found = state(whole), state(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any(not torch.equal(expected[name], start[name]) for name in expected)
    # what the normalisations know of images is that of the weights, also where these train
    statistics = [name for name in expected if "running_" in name or "num_batches" in name]
    assert bool(statistics) == any(isinstance(module, torch.nn.BatchNorm2d) for module in tiny_sam().modules())
    assert all(torch.equal(expected[name], start[name]) for name in statistics)
