"""Frozen weights held in bf16: half the bytes, the same bits under autocast, and fp32 again where it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lora_sam.core.errors import AdapterError
from lora_sam.methods.adapted import AdaptedSam
from lora_sam.models.device import autocast
from lora_sam.models.held import give_back, held_in, hold, linears_of
from lora_sam.models.held_linear import HeldLinear
from lora_sam.models.lean_vit import LeanBlock
from lora_sam.models.stages import encode
from tests.conftest import ROOT

CPU = torch.device("cpu")
FAMILIES = ("tiny_random", "sam2_random", "sam3_random")
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
REFUSED = {"pissa", "olora", "shira"}  # by `lora_sam.training.frozen`
OWN_WEIGHTS = {"dora", "hira"}  # compute with the weights in fp32 under autocast too


@pytest.fixture
def adapted(option: Callable[..., Any]) -> Callable[..., tuple[AdaptedSam, Any, dict[str, nn.Linear]]]:
    """A model with a method whose weights have moved; the option it was built by; the Linears of its base."""

    def make(method: str = "lora", model: str = "tiny_random", *, moved: float = 0.02, **changes: Any) -> Any:
        chosen = option(f"model/{model}")
        sam = chosen.build().sam
        linears = linears_of(sam.image_encoder)
        torch.manual_seed(0)
        found = option(f"method/{method}", **changes).apply(sam)
        found.train_mode()
        torch.manual_seed(1)
        for parameter in found.trainable().values():
            parameter.data.add_(torch.randn_like(parameter) * moved)
        return found, chosen, linears

    return make


def embedding_and_gradient(adapted: AdaptedSam, side: int, precision: Any, checkpointed: Any = ()) -> Any:
    torch.manual_seed(2)
    images = torch.randn(1, 3, side, side)
    with autocast(CPU, precision):
        out = encode(adapted.sam.image_encoder, images, checkpointed)
    trained = [one for name, one in adapted.trainable().items() if "image_encoder" in name]
    if not trained:
        return out.detach().float(), torch.zeros(1)
    slopes = torch.linspace(-1, 1, out.numel()).view(out.shape)
    found = torch.autograd.grad((out.float() * slopes).sum(), trained, allow_unused=True)
    return out.detach().float(), torch.cat([one.flatten() for one in found if one is not None])


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp_min(1e-9))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in REFUSED])
def test_every_method_computes_the_same_under_autocast_and_nearly_in_fp32(adapted, method):
    found, model, linears = adapted(method)
    encoder, side = found.sam.image_encoder, model.image_size
    before = {name: embedding_and_gradient(found, side, name) for name in ("fp32", "bf16")}
    held = hold(encoder, linears)
    assert held == held_in(found.sam) == (0 if method == "full" else 24576)
    for precision, (out, gradient) in before.items():
        now, slope = embedding_and_gradient(found, side, precision)
        if precision == "bf16" and method not in OWN_WEIGHTS:
            assert torch.equal(now, out)
            assert torch.equal(slope, gradient)
        else:
            assert far(now, out) < 0.02
            assert far(slope, gradient) < 0.02
        if precision == "fp32" and held:
            assert not torch.equal(now, out)
    give_back(encoder, linears, linears_of(model.build().sam.image_encoder))
    assert held_in(found.sam) == 0
    for precision, (out, gradient) in before.items():
        now, slope = embedding_and_gradient(found, side, precision)
        assert torch.equal(now, out)
        assert torch.equal(slope, gradient)


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_made_again_is_the_same_in_every_family(adapted, model, precision):
    found, chosen, linears = adapted("lora", model)
    hold(found.sam.image_encoder, linears)
    side, depth = chosen.image_size, chosen.depth
    once = embedding_and_gradient(found, side, precision)
    again = embedding_and_gradient(found, side, precision, frozenset(range(depth)))
    torch.testing.assert_close(again, once, rtol=1e-4, atol=1e-5)
    assert float(once[1].abs().max()) > 0


def test_frozen_linears_take_half_the_bytes_and_all_else_stays_fp32(adapted):
    found, _, linears = adapted("lora", bias="all")
    bytes_of = lambda: sum(one.nbytes for one in found.sam.parameters())  # noqa: E731
    before, weights = bytes_of(), sum(one.weight.nbytes for one in linears.values())
    trained = dict(found.trainable())
    hold(found.sam.image_encoder, linears)
    assert bytes_of() == before - weights // 2
    assert found.trainable().keys() == trained.keys()
    halves = {name for name, one in found.sam.named_parameters() if one.dtype != torch.float32}
    assert len(halves) == len(linears)
    assert all(name.endswith(("base_layer.weight", "proj.weight", "k.weight", "lin1.weight", "lin2.weight"))
               for name in halves)  # fmt: skip
    assert all(one.dtype == torch.float32 for one in found.trainable().values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_copy_of_a_weight_is_kept_for_the_backward_pass(adapted, precision):
    found, model, linears = adapted("lora")
    sizes = {one.weight.shape for one in linears.values()}
    owned = {one.data_ptr() for one in found.sam.parameters()}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    def copies() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(CPU, precision):
            encode(found.sam.image_encoder, torch.randn(1, 3, model.image_size, model.image_size))
        return sum(one.data_ptr() not in owned and (one.shape in sizes or one.shape[::-1] in sizes) for one in kept)

    before = copies()
    hold(found.sam.image_encoder, linears)
    owned |= {one.data_ptr() for one in found.sam.parameters()}
    assert copies() == 0
    assert (before > 0) == (precision == "bf16")
    assert any(isinstance(module, LeanBlock) for module in found.sam.modules())


def test_a_fresh_adapter_changes_nothing(adapted):
    found, model, linears = adapted("lora", moved=0.0)
    hold(found.sam.image_encoder, linears)
    with torch.no_grad():
        images = torch.randn(1, 3, model.image_size, model.image_size)
        tuned = encode(found.sam.image_encoder, images)
        with found.base():
            assert torch.equal(encode(found.sam.image_encoder, images), tuned)


def test_rounded_weights_are_not_merged_and_given_back_ones_merge_exactly(adapted):
    found, model, linears = adapted("lora")
    plain, _, _ = adapted("lora")
    hold(found.sam.image_encoder, linears)
    with pytest.raises(AdapterError, match=r"held in bf16 \(trainer\.frozen\)"):
        found.merge()
    give_back(found.sam.image_encoder, linears, linears_of(model.build().sam.image_encoder))
    merged, expected = found.merge().state_dict(), plain.merge().state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], value) for name, value in expected.items())


def test_other_weights_are_not_put_back(adapted, option):
    found, _, linears = adapted("lora")
    hold(found.sam.image_encoder, linears)
    other = option("model/tiny_random", weights_seed=1).build()
    with pytest.raises(AssertionError, match="not the weight that was held"):
        give_back(found.sam.image_encoder, linears, linears_of(other.sam.image_encoder))


def test_biases_of_held_layers_train(adapted):
    found, model, linears = adapted("bitfit")
    before = embedding_and_gradient(found, model.image_size, "fp32")[1]
    hold(found.sam.image_encoder, linears)
    layer = next(one for one in found.sam.modules() if isinstance(one, HeldLinear))
    assert layer.bias.dtype == torch.float32
    after = embedding_and_gradient(found, model.image_size, "fp32")[1]
    assert after.shape == before.shape
    assert far(after, before) < 0.02
