"""Choosing device and precision, and that bf16 is really computed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_sam.core.errors import ConfigError
from lora_sam.models import precision_choice
from lora_sam.models.device import autocast, has_fast_bf16, pick_device, pick_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Makes this machine one with or without accelerators."""

    def have(*, cuda: bool = False, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


@pytest.mark.parametrize(
    ("has", "chosen"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest(machine, has: dict[str, bool], chosen: str) -> None:
    machine(**has)
    assert pick_device("auto") == torch.device(chosen)
    assert pick_device(chosen) == torch.device(chosen)
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize(
    ("has", "name", "available"),
    [
        ({}, "cuda", "auto, cpu"),
        ({}, "mps", "auto, cpu"),
        ({"mps": True}, "cuda", "auto, mps, cpu"),
        ({"cuda": True}, "cuda:7", "auto, cuda, cpu"),
        ({}, "", "auto, cpu"),
    ],
)
def test_a_device_that_is_not_there(machine, has: dict[str, bool], name: str, available: str) -> None:
    machine(**has)
    with pytest.raises(ConfigError) as caught:
        pick_device(name)
    assert str(caught.value) == f"trainer.device = {name}: not available here; available: {available}"


def test_precision_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_sam.models.device.has_fast_bf16", lambda device: pytest.fail("was not asked"))
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Gives the processor instructions, and says how long a block takes in each precision; notes what was measured."""
    measured: list[dict[str, float]] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def have(*, avx512: bool = True, amx: bool = False, fp32: float = 1.0, bf16: float = 1.0) -> list[dict[str, float]]:
        # by their names: torch keeps these to itself, and may drop them
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        times = {"fp32": fp32, "bf16": bf16}
        monkeypatch.setattr(precision_choice, "milliseconds", lambda: measured.append(times) or times)
        return measured

    return have


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        ({"bf16": 0.9}, "bf16"),
        ({"bf16": 0.92}, "fp32"),  # no clear gain
        ({"bf16": 1.7}, "fp32"),
        ({"amx": True, "avx512": False, "bf16": 0.5}, "bf16"),
        ({"amx": True, "bf16": 1.2}, "fp32"),
    ],
)
def test_automatic_precision_on_a_cpu_is_the_faster_one(instructions, has: dict[str, Any], chosen: str) -> None:
    measured = instructions(**has)
    assert pick_precision("auto", CPU) == chosen
    assert len(measured) == 1


def test_a_cpu_without_instructions_for_bf16_is_not_measured(instructions, tmp_path: Path) -> None:
    measured = instructions(avx512=False, bf16=0.1)
    assert pick_precision("auto", CPU) == "fp32"
    assert not measured
    assert not list(tmp_path.iterdir())


def test_the_choice_is_remembered_whatever_the_machine_does_later(instructions) -> None:
    measured = instructions(bf16=0.5)
    assert pick_precision("auto", CPU) == "bf16"
    instructions(bf16=2.0)
    assert pick_precision("auto", CPU) == "bf16"
    assert len(measured) == 1
    instructions(amx=True, bf16=2.0)  # another processor, though its name is the same
    assert pick_precision("auto", CPU) == "fp32"
    instructions(bf16=2.0)
    precision_choice.memory_path().write_text("{")
    assert pick_precision("auto", CPU) == "fp32"
    assert len(measured) == 3


def test_a_cache_directory_that_cannot_be_written_is_no_error(instructions, tmp_path: Path) -> None:
    measured = instructions(bf16=0.5)
    (tmp_path / "lora_sam").write_text("a file where the directory should be")
    assert [pick_precision("auto", CPU) for _ in range(2)] == ["bf16", "bf16"]
    assert len(measured) == 2


def test_a_measurement_takes_both_and_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad():  # as a caller may
        times = precision_choice.milliseconds()
    assert times.keys() == {"fp32", "bf16"}
    assert all(0 < each < 1e5 for each in times.values())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_torch_that_does_not_tell_is_taken_to_have_no_fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in precision_choice.PROBES:
        monkeypatch.delattr(torch.cpu, name)
    assert has_fast_bf16(CPU) is False


@pytest.mark.parametrize("supported", [True, False])
def test_automatic_precision_on_cuda_leaves_emulation_out(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or supported)
    assert pick_precision("auto", CUDA) == ("bf16" if supported else "fp32")
    assert asked == [{"including_emulation": False}]


def test_other_devices_compute_in_fp32() -> None:
    assert pick_precision("auto", torch.device("mps")) == "fp32"


def test_autocast_computes_in_bf16_and_leaves_the_weights() -> None:
    torch.manual_seed(0)
    layer, values = torch.nn.Linear(64, 8), torch.randn(4, 64)
    exact = layer(values)
    with autocast(CPU, "bf16"):
        rounded = layer(values)
    assert rounded.dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
    by_hand = torch.nn.functional.linear(values.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16())
    assert (rounded.float() - by_hand.float()).abs().max() <= 2**-7  # one step of bf16 at the size of the sums
    assert 1e-4 < float((rounded - exact).detach().abs().max()) < 0.05
    rounded.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_fp32_changes_nothing() -> None:
    torch.manual_seed(0)
    layer, values = torch.nn.Linear(64, 8), torch.randn(4, 64)
    with autocast(CPU, "fp32"):
        result = layer(values)
    assert torch.equal(result, layer(values))
    assert not torch.is_autocast_enabled("cpu")
