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
from lora_sam.training.averaging import RunningMean
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


def resumed(weights: dict[str, torch.nn.Parameter]) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    fresh = {name: torch.nn.Parameter(torch.zeros_like(value)) for name, value in weights.items()}
    return fresh, torch.optim.AdamW(fresh.values(), lr=0.1)


def test_everything_comes_back_as_it_was(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    optimizer = stepped(weights)
    mean = RunningMean.of(0.5, weights)
    for value in mean.weights.values():
        value.mul_(3)
    progress = Progress(step=3, epoch=1, best=0.25, sums={"loss": 0.1}, base_sums=[[1.0, 2.0]], finished=True)
    save_state(tmp_path / "s", progress, weights, optimizer, mean)
    fresh, again = resumed(weights)
    other = RunningMean.of(0.5, fresh)
    assert load_state(tmp_path / "s", fresh, again, other) == read_progress(tmp_path / "s") == progress
    for name, parameter in weights.items():
        assert torch.equal(fresh[name], parameter)
        assert torch.equal(other.weights[name], mean.weights[name])
        kept, found = optimizer.state[parameter], again.state[fresh[name]]
        assert found.keys() == kept.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(found[key], value) for key, value in kept.items())
    # and goes on with the same step
    for names in (weights, fresh):
        for parameter in names.values():
            parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    again.step()
    assert all(torch.equal(fresh[name], parameter) for name, parameter in weights.items())


def test_an_optimiser_that_has_made_no_step_has_no_state(
    weights: dict[str, torch.nn.Parameter], tmp_path: Path
) -> None:
    save_state(tmp_path / "s", Progress(), weights, torch.optim.AdamW(weights.values()))
    fresh, again = resumed(weights)
    load_state(tmp_path / "s", fresh, again)
    assert not again.state


def test_without_an_optimiser_random_numbers_are_left_alone(
    weights: dict[str, torch.nn.Parameter], tmp_path: Path
) -> None:
    save_state(tmp_path / "s", Progress(), weights, stepped(weights))
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    load_state(tmp_path / "s", resumed(weights)[0])
    assert torch.equal(torch.rand(2), expected)


def test_weights_of_another_model_are_named(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    save_state(tmp_path / "s", Progress(), weights)
    for other, odd in (({**weights, "c": weights["b"]}, "c"), ({"a": weights["a"]}, "b")):
        with pytest.raises(AdapterError, match=rf"saved by another model or method \({odd} is only on one side\)"):
            load_state(tmp_path / "s", other)
    turned = {**weights, "a": torch.nn.Parameter(torch.ones(3, 2))}
    with pytest.raises(AdapterError, match=r"a has shape \[2, 3\], the model needs \[3, 2\]; resume with"):
        load_state(tmp_path / "s", turned)


def test_a_mean_of_other_weights_is_refused(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    mean = RunningMean.of(0.5, weights)
    mean.weights["b"] = torch.ones(2)
    save_state(tmp_path / "s", Progress(), weights, mean=mean)
    with pytest.raises(AdapterError, match="holds no running mean of b; resume with the configuration"):
        load_state(tmp_path / "s", weights, mean=RunningMean.of(0.5, weights))
    save_state(tmp_path / "s", Progress(), weights)
    with pytest.raises(AdapterError, match="holds no running mean of a;"):
        load_state(tmp_path / "s", weights, mean=RunningMean.of(0.5, weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_what_is_not_what_was_saved_is_damage(
    dtype: torch.dtype, weights: dict[str, torch.nn.Parameter], tmp_path: Path
) -> None:
    """Each tensor counts, whatever its type, and the progress does."""
    extra = torch.arange(4).to(dtype)
    named = {**weights, "c": torch.nn.Parameter(extra, requires_grad=False), "d": torch.nn.Parameter(torch.ones(()))}
    path = tmp_path / "s"
    save_state(path, Progress(step=3), named)
    data = path.read_bytes()
    load_state(path, named)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    swapped = {**found, "model.c": found["model.c"].flip(0)}
    other_shape = {**found, "model.a": found["model.a"].reshape(3, 2)}
    for tensors in (swapped, other_shape, {**found, "model.e": torch.ones(1)}):
        save_file(tensors, str(path), metadata)
        with pytest.raises(AdapterError, match=r"s is damaged \(it is not what was saved\); start a new run"):
            load_state(path, named)
    path.write_bytes(data.replace(b'\\"step\\": 3', b'\\"step\\": 4'))
    assert path.read_bytes() != data
    with pytest.raises(AdapterError, match="it is not what was saved"):
        load_state(path, named)


def test_a_state_without_a_digest_is_read_and_told(
    weights: dict[str, torch.nn.Parameter], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(tmp_path / "s", Progress(step=3), weights)
    load_state(tmp_path / "s", weights)
    assert capsys.readouterr().err == ""
    change(tmp_path / "s")
    assert load_state(tmp_path / "s", weights).step == 3
    assert "made without a digest" in " ".join(capsys.readouterr().err.split())


def test_another_schema_and_files_of_others_are_refused(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(AdapterError, match="s is missing: nothing was saved there yet; start a new run"):
        load_state(path, weights)
    for metadata, told in (({"schema_version": "2"}, "2"), (None, "None")):
        save_file({"a": torch.ones(1)}, str(path), metadata)
        with pytest.raises(AdapterError, match=rf"schema version {told}, this lora_sam reads 1; use the version"):
            read_progress(path)
    save_file({"a": torch.ones(1)}, str(path), {"schema_version": "1"})
    with pytest.raises(AdapterError, match=r"s is damaged \('progress'\); start a new run"):
        read_progress(path)


def test_the_best_weights_are_none_to_go_on_from(weights: dict[str, torch.nn.Parameter], tmp_path: Path) -> None:
    save_state(tmp_path / "s", Progress(step=3), weights)
    fresh, again = resumed(weights)
    with pytest.raises(AdapterError, match="s holds weights only; resume from checkpoints/last"):
        load_state(tmp_path / "s", fresh, again)


def test_the_state_of_the_optimiser_goes_where_its_weights_are_but_for_its_steps(
    weights: dict[str, torch.nn.Parameter], tmp_path: Path
) -> None:
    """Optimisers keep the number of steps on the CPU, whatever device they are on."""
    save_state(tmp_path / "s", Progress(), weights, stepped(weights))
    elsewhere = {name: torch.nn.Parameter(torch.empty_like(value, device="meta")) for name, value in weights.items()}
    optimizer = torch.optim.AdamW(elsewhere.values())
    load_state(tmp_path / "s", elsewhere, optimizer)
    for parameter in elsewhere.values():
        found = {key: value.device.type for key, value in optimizer.state[parameter].items()}
        assert found == {"step": "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}
