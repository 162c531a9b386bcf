"""Choosing how to attend: what is measured, remembered, and made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_sam.models.attention import choice as attention_choice
from lora_sam.models.attention.choice import Extent, choose_attention, memory_path, set_attention
from lora_sam.models.attention.split import SplitAttention

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lora_sam" / "attention.json"


@pytest.fixture
def encoder(tiny_sam: Callable[[], Any]) -> Any:
    """One block with windows of 3 x 3 of 4 x 4 tokens, one with global attention."""
    return tiny_sam().image_encoder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """Every measurement asked for (kernel, side, gradients); channels win with gradients, tiles without."""
    asked: list[tuple[str, int, bool]] = []
    speed = {"mask": 2.0, "channels": 3.0, "tiled": 1.0}

    def milliseconds(kernel: str, extent: Extent, device: Any, dtype: Any, gradients: bool) -> float:
        asked.append((kernel, extent.side, gradients))
        return 1 / speed[kernel] if gradients else speed[kernel]

    monkeypatch.setattr(attention_choice, "_milliseconds", milliseconds)
    monkeypatch.setattr(attention_choice, "WORTHWHILE", 0)
    return asked


def kernels(encoder: Any) -> set[tuple[Any, Any]]:
    return {
        (module.with_gradients, module.without_gradients)
        for module in encoder.modules()
        if isinstance(module, SplitAttention)
    }


def test_setting_reaches_every_block_and_changes_rounding_only(encoder: Any) -> None:
    image = torch.randn(1, 3, 64, 64)
    encoder.requires_grad_(True)
    before = encoder(image).detach()
    assert kernels(encoder) == {(None, None)}
    names = set(encoder.state_dict())
    set_attention(encoder, "channels", "tiled")
    assert kernels(encoder) == {("channels", "tiled")}
    assert set(encoder.state_dict()) == names
    torch.testing.assert_close(encoder(image).detach(), before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), before, rtol=1e-4, atol=1e-5)


def test_the_fastest_is_chosen_and_remembered(encoder: Any, calls: list[Any], cache: Path) -> None:
    choice = choose_attention(encoder, 64, CPU, "fp32", "auto")
    assert (choice["training"], choice["inference"]) == ("channels", "tiled")
    # one global block; four windows of nine tokens, as large as the measurement itself
    assert choice["measured_ms"]["inference"] == pytest.approx({"mask": 4.0, "channels": 6.0, "tiled": 2.0})
    assert choice["measured_ms"]["training"] == pytest.approx({"channels": 2 / 3, "tiled": 2.0})
    assert len(calls) == len(set(calls)) == 2 * (3 + 2)
    assert memory_path() == cache
    assert choose_attention(encoder, 64, CPU, "fp32", "auto") == choice
    assert len(calls) == 10
    choose_attention(encoder, 64, CPU, "bf16", "auto")
    assert len(calls) == 20
    assert choose_attention(encoder, 64, CPU, "fp32", "auto") == choice
    assert len(calls) == 20


def test_the_usual_kernel_stays_where_another_gains_little(
    encoder: Any, monkeypatch: pytest.MonkeyPatch, calls: list[Any]
) -> None:
    times = {"mask": 1.0, "channels": 0.97, "tiled": 1.0}
    monkeypatch.setattr(attention_choice, "_milliseconds", lambda kernel, *_: times[kernel])
    choice = choose_attention(encoder, 64, CPU, "fp32", "auto")
    assert (choice["training"], choice["inference"]) == ("tiled", "mask")


@pytest.mark.parametrize("wanted", ["tiled", "channels"])
def test_what_the_user_wants_is_not_measured(encoder: Any, calls: list[Any], wanted: Any) -> None:
    choice = choose_attention(encoder, 64, CPU, "fp32", wanted)
    assert choice["training"] == wanted
    assert choice["inference"] == "tiled"
    assert not any(gradients for _, _, gradients in calls)


@pytest.mark.parametrize("wanted", ["auto", "tiled", "channels"])
def test_small_encoders_are_not_measured(encoder: Any, cache: Path, wanted: Any) -> None:
    choice = choose_attention(encoder, 64, CPU, "fp32", wanted)
    usual = "tiled" if wanted == "auto" else wanted
    assert choice == {"training": usual, "inference": "mask", "measured_ms": {}}
    assert choose_attention(encoder, 64, torch.device("meta"), "fp32", "auto")["training"] == "channels"
    assert not cache.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\x00",
        b'{"schema_version": 2, "milliseconds": {}}',
        b'{"schema_version": 1, "milliseconds": 3}',
        "strings",
        "missing",
        "negative",
    ],
)
def test_a_damaged_file_is_measured_again(encoder: Any, calls: list[Any], cache: Path, content: bytes | str) -> None:
    choice = choose_attention(encoder, 64, CPU, "fp32", "auto")
    good = cache.read_text()
    if isinstance(content, str):
        values = json.loads(good)
        changes: dict[str, Any] = {"strings": {"mask": "1"}, "missing": {"mask": 1.0}, "negative": {"mask": -1.0}}
        values["milliseconds"] = dict.fromkeys(values["milliseconds"], changes[content])
        content = json.dumps(values).encode()
    cache.write_bytes(content)
    assert choose_attention(encoder, 64, CPU, "fp32", "auto") == choice
    assert len(calls) == 20
    assert cache.read_text() == good


def test_a_directory_that_cannot_be_written_is_no_error(encoder: Any, calls: list[Any], cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the directory should be")
    for count in (10, 20):
        assert choose_attention(encoder, 64, CPU, "fp32", "auto")["training"] == "channels"
        assert len(calls) == count


def test_measurements_are_small_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Extent(1, 64, 12, 64).reduced() == Extent(1, 32, 4, 64)
    assert Extent(25, 14, 12, 64).reduced() == Extent(9, 14, 12, 64)
    assert Extent(4, 3, 2, 16).reduced() == Extent(4, 3, 2, 16)
    assert Extent(1, 128, 16, 80).reduced().logits <= 2**22
    assert Extent(1, 64, 12, 64).logits == 12 * 4096**2


@pytest.mark.parametrize("gradients", [True, False])
def test_a_measurement_runs_the_kernel_itself(monkeypatch: pytest.MonkeyPatch, gradients: bool) -> None:
    runs: list[tuple[str, bool]] = []
    original = attention_choice.attend

    def attend(kernel: Any, *values: Any, scale: float) -> torch.Tensor:
        out = original(kernel, *values, scale=scale)
        runs.append((kernel, out.requires_grad))
        return out

    monkeypatch.setattr(attention_choice, "attend", attend)
    for kernel in attention_choice.TRAINING if gradients else attention_choice.INFERENCE:
        runs.clear()
        assert attention_choice._milliseconds(kernel, Extent(1, 4, 2, 8), CPU, torch.float32, gradients) > 0
        assert 2 <= len(runs) <= 6
        assert set(runs) == {(kernel, gradients)}


def test_a_real_measurement_of_a_small_encoder(encoder: Any, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(attention_choice, "WORTHWHILE", 0)
    choice = choose_attention(encoder, 64, CPU, "bf16", "auto")
    assert choice["training"] in attention_choice.TRAINING
    assert choice["inference"] in attention_choice.INFERENCE
    questions = json.loads(cache.read_text())["milliseconds"]
    assert len(questions) == 4
    assert all("bfloat16" in question and torch.__version__ in question for question in questions)
