"""States that come from elsewhere: another device, another version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lora_sam.core.errors import AdapterError
from lora_sam.training.state import Progress, load_state, read_progress, save_state

CUDA = torch.cuda


@pytest.fixture
def weights() -> dict[str, torch.nn.Parameter]:
    return {"a": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)), "b": torch.nn.Parameter(torch.ones(1))}


def stepped(weights: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
    for parameter in weights.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def change(path: Path, edit: Any = None, **tensors: torch.Tensor) -> None:
    """Write a state with other progress or tensors, without a digest."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    progress = json.loads(metadata["progress"])
    if edit is not None:
        progress = edit(progress)
    del metadata["sha256"]
    save_file({**found, **tensors}, str(path), {**metadata, "progress": json.dumps(progress)})


@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_from_a_cpu_to_cuda_and_back(
    then: bool, now: bool, weights: dict[str, torch.nn.Parameter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The random state of a device is taken up where both have it; that of the CPU always."""
    state = torch.tensor([1, 2, 3], dtype=torch.uint8)
    taken: list[torch.Tensor] = []
    before, after = stepped(weights), torch.optim.AdamW(weights.values(), lr=0.1)
    torch.manual_seed(7)
    monkeypatch.setattr(CUDA, "is_available", lambda: then)
    monkeypatch.setattr(CUDA, "get_rng_state", lambda: state)
    monkeypatch.setattr(CUDA, "set_rng_state", taken.append)
    save_state(tmp_path / "s", Progress(step=3), weights, before)
    expected = torch.rand(3)
    monkeypatch.setattr(CUDA, "is_available", lambda: now)
    progress = load_state(tmp_path / "s", weights, after)
    assert progress.step == 3
    assert torch.equal(torch.rand(3), expected)
    assert [one.tolist() for one in taken] == ([[1, 2, 3]] if then and now else [])


def test_a_newer_version_is_named(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    save_state(tmp_path / "s", Progress(step=3), weights)
    change(tmp_path / "s", lambda progress: {**progress, "novel": 1})
    message = (
        "has 'novel' in its progress, which this lora_sam does not know; use the version of lora_sam that wrote it"
    )
    with pytest.raises(AdapterError, match=message):
        read_progress(tmp_path / "s")


def test_an_older_version_is_read(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    save_state(tmp_path / "s", Progress(step=3, base=0.5), weights)
    change(tmp_path / "s", lambda progress: {"step": progress["step"]})
    assert read_progress(tmp_path / "s") == Progress(step=3)


@pytest.mark.parametrize("progress", [[], 3, "text", None])
def test_a_progress_that_is_none_is_damage(
    progress: Any, weights: dict[str, torch.nn.Parameter], tmp_path: Path
) -> None:
    save_state(tmp_path / "s", Progress(step=3), weights)
    change(tmp_path / "s", lambda _: progress)
    with pytest.raises(AdapterError, match="is damaged"):
        read_progress(tmp_path / "s")


def test_a_run_begins_with_nothing_counted() -> None:
    begun = Progress()
    assert (begun.step, begun.epoch, begun.batch, begun.best_step) == (0, 0, 0, 0)
    assert (begun.validations_without_gain, begun.nonfinite, begun.seconds) == (0, 0, 0.0)
    assert (begun.best, begun.base, begun.trained, begun.finished) == (None, None, None, False)
