"""Benchmarks of SAM 2.1: the peer computes what ours computes, and the ratios are those of the sides."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.questions import sam2_encode, sam2_step
from benchmarks.record import BenchmarkError


def test_the_peer_is_our_model_with_stock_lora(option: Callable[..., Any]) -> None:
    from benchmarks.hf_sam import hf_embedding, hf_masks, hf_model, with_lora
    from benchmarks.sides.lora_step import example
    from lora_sam.models.decoding import decode_masks

    model = option("model/sam2_random")
    sam, one = model.build().sam, example(model.image_size)
    peer = hf_model(model, sam)
    assert one.boxes is not None
    assert one.image is not None
    image = one.image.unsqueeze(0)
    with torch.no_grad():
        embedding = sam.image_encoder(image)
        logits, _ = decode_masks(sam, embedding, boxes=one.boxes, points=None, labels=None)
        assert embedding.std() > 0.1  # a constant would be easy to agree on
        torch.testing.assert_close(hf_embedding(peer, image), embedding, atol=1e-5, rtol=0)
        adapted = with_lora(peer, rank=8, alpha=8)
        torch.testing.assert_close(hf_masks(adapted, one.image, one.boxes)[0], logits[:, 0], atol=1e-5, rtol=0)
    ours = option("method/lora", rank=8, decoder="frozen").apply(sam).count()[0]
    theirs = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert 0 < abs(theirs / ours - 1) < sam2_step.PARAMETERS
    ranks = {layer.r["default"] for layer in adapted.modules() if hasattr(layer, "lora_A")}
    assert ranks == {7, 8}


def _run(loss: float = 3.0, *, seconds: float = 2.0, peak: int = 2 << 30, **changes: Any) -> dict[str, Any]:
    values = {
        "precision": "fp32", "trainable_parameters": 1000, "losses": [loss], "seconds": [seconds],
        "cpu_seconds": [seconds], "before": 1 << 30, "peak": peak,
    }  # fmt: skip
    return values | changes


def _sides(ours: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    half = _run(3.01, seconds=1.0, peak=1 << 30, precision="bf16")
    others = {name: [half if "bf16" in name or "default" in name else _run()] for name in sam2_step._SIDES}
    return {**others, "ours, fp32": [ours]}


def test_ratios_of_a_step_are_ours_to_the_peer() -> None:
    sides = _sides(_run(seconds=1.5, peak=1 << 30, trainable_parameters=996))
    assert sam2_step.check_sides(sides)["trainable parameters"].startswith("ours 996, the peer 1,000")
    found = {one.id: (one.value, one.ok) for one in sam2_step.figures(sides)}
    assert found["time_fp32"] == (0.75, True)
    assert found["memory_fp32"] == (0.5, True)
    assert found["time_auto"] == (0.5, None)
    assert found["time_bf16"] == (1.0, None)
    assert found["memory_checkpointed"] == (1.0, None)
    assert {f"seconds_{key}" for key, *_ in sam2_step._SIDES.values()} <= found.keys()
    missed = {one.id: one.ok for one in sam2_step.figures(_sides(_run(seconds=2.5, peak=2 << 30)))}
    assert (missed["time_fp32"], missed["memory_fp32"]) == (False, False)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (_run(3.002), "ours, fp32 begins with loss 3.002000, the peer with 3.000000: not the same step"),
        (_run(trainable_parameters=1011), "ours, fp32 trains 1011 parameters, the peer 1000"),
    ],
)
def test_steps_that_differ_are_not_compared(ours: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=re.escape(message)):
        sam2_step.check_sides(_sides(ours))


def test_bases_that_differ_are_not_compared() -> None:
    sam2_step.check_bases({"embedding": 0.0, "logits": 1e-4})
    with pytest.raises(BenchmarkError, match="the two bases do not compute the same"):
        sam2_step.check_bases({"embedding": 0.0, "logits": 1e-2})


def test_ratios_of_encoding_are_the_peer_to_ours() -> None:
    def runs(seconds: float) -> list[dict[str, Any]]:
        return [{"seconds": [seconds, 2 * seconds]}, {"seconds": [seconds]}]

    measured = {"peer": runs(10.0), "torch": runs(5.0), **{name: runs(2.0) for name in sam2_encode.SPEED_UPS}}
    measured["int8_bf16"] = runs(1.25)
    made = {"export": {"bytes": 100, "peak_bytes": 2_000_000_000}, "quantize": {"bytes": 52}}
    found = {one.id: (one.value, one.ok) for one in sam2_encode.figures(measured, made)}
    assert found["int8_bf16_speed_up"] == (8.0, False)
    assert found["torch_speed_up"] == (2.0, None)
    assert (found["int8_size"], found["export_memory"]) == ((0.52, None), (2.0, None))
