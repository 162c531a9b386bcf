"""All ways of attending: values and gradients against the written-out formula, and what they keep."""

from __future__ import annotations

import pytest
import torch

from lora_sam.models.attention import split as attention
from lora_sam.models.attention.split import SplitAttention, attend, attend_with_extra_channels
from lora_sam.models.attention.tiled import tiled_attention

ATTENTION = {"tiles": tiled_attention, "channels": attend_with_extra_channels}
# batch, heads, rows, columns: a window; several windows that do not fill a tile; a global block of several tiles
SHAPES = [(1, 2, 3, 3), (5, 3, 4, 6), (1, 2, 18, 20)]


def inputs(batch, heads, height, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    tokens = height * width
    sizes = [(tokens, 8), (tokens, 8), (tokens, 8), (tokens, height), (tokens, width)]
    return [torch.randn(batch, heads, *size, generator=generator).to(dtype).requires_grad_(True) for size in sizes]


def reference(q, k, v, rh, rw):
    bias = (rh.unsqueeze(-1) + rw.unsqueeze(-2)).flatten(-2)
    return torch.softmax(q @ k.transpose(-2, -1) + bias, dim=-1) @ v


def gradients(function, tensors):
    out = function(*tensors)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return out.detach(), torch.autograd.grad((out * weights).sum(), tensors)


@pytest.mark.parametrize("attend", ATTENTION.values(), ids=ATTENTION)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_in_fp32(attend, shape):
    expected, expected_gradients = gradients(reference, inputs(*shape))
    out, found = gradients(attend, inputs(*shape))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for gradient, wanted in zip(found, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attend", ATTENTION.values(), ids=ATTENTION)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_is_as_close_as_bf16_can_be(attend, shape):
    narrow = inputs(*shape, dtype=torch.bfloat16)
    wide = [tensor.detach().float().requires_grad_(True) for tensor in narrow]
    expected, expected_gradients = gradients(reference, wide)
    out, found = gradients(attend, narrow)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.01 * expected.norm()
    for gradient, wanted in zip(found, expected_gradients, strict=True):
        assert (gradient.float() - wanted).norm() < 0.03 * wanted.norm()


def test_tiles_pass_gradcheck():
    tensors = [tensor.detach().double().requires_grad_(True) for tensor in inputs(1, 1, 2, 3)]

    def double(*values):
        return tiled_attention(*values)

    # softmax and sums run in fp32 by design, so numerical differences need a wide step
    assert torch.autograd.gradcheck(double, tensors, eps=1e-2, atol=1e-2, rtol=1e-2)


def block(side=8, **kernels):
    """A block of global attention with weights that are not zero."""
    torch.manual_seed(0)
    layer = SplitAttention(24, 3, bias=True, use_rel_pos=True, input_size=(side, side))
    for name in ("rel_pos_h", "rel_pos_w"):
        torch.nn.init.normal_(getattr(layer, name))
    for name, kernel in kernels.items():
        setattr(layer, name, kernel)
    return layer


@pytest.mark.parametrize("kernel", ["mask", "channels", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree_without_gradients(kernel, dtype):
    q, k, v, rh, rw = (tensor.detach() for tensor in inputs(2, 3, 6, 7, dtype=dtype))
    wanted = reference(*(tensor.float() for tensor in (q * 0.3, k, v, rh, rw)))
    out = attend(kernel, q, k, v, rh, rw, scale=0.3)
    assert out.dtype == dtype
    assert (out.float() - wanted).norm() < (1e-5 if dtype == torch.float32 else 0.02) * wanted.norm()


def test_a_mask_of_a_few_heads_at_a_time_gives_the_same_bits(monkeypatch):
    q, k, v, rh, rw = (tensor.detach() for tensor in inputs(2, 5, 8, 9))
    whole = attend("mask", q, k, v, rh, rw, scale=0.3)
    sizes = []
    original = attention._with_bias

    def record(q, *others, scale):
        sizes.append(q.shape[1])
        return original(q, *others, scale=scale)

    monkeypatch.setattr(attention, "_with_bias", record)
    monkeypatch.setattr(attention, "MASK_BYTES", 3 * 72 * 72 * 4)
    assert torch.equal(attend("mask", q, k, v, rh, rw, scale=0.3), whole)
    assert sizes == [3, 3, 3, 1]
    monkeypatch.setattr(attention, "MASK_BYTES", 1)
    assert torch.equal(attend("mask", q, k, v, rh, rw, scale=0.3), whole)
    assert sizes[4:] == [1] * 10


@pytest.mark.parametrize(
    ("kernels", "training", "inference"),
    [
        ({}, "tiled", "mask"),
        ({"with_gradients": "channels", "without_gradients": "channels"}, "channels", "channels"),
        ({"with_gradients": "tiled", "without_gradients": "tiled"}, "tiled", "tiled"),
    ],
)
def test_the_chosen_kernel_runs(monkeypatch, kernels, training, inference):
    seen = []
    original = attention.attend

    def record(kernel, *values, scale):
        seen.append(kernel)
        return original(kernel, *values, scale=scale)

    monkeypatch.setattr(attention, "attend", record)
    layer, x = block(**kernels), torch.randn(1, 8, 8, 24)
    layer(x)
    with torch.no_grad():
        layer(x)
    layer.requires_grad_(False)(x)
    assert seen == [training, inference, inference]
    with torch.no_grad():
        torch.jit.trace(layer, x, check_trace=False)
    assert set(seen[3:]) == {"mask"}  # whatever was chosen


def grad_fns(tensor):
    """Names of the functions of the graph that made `tensor`."""
    names, stack = set(), [tensor.grad_fn]
    while stack:
        function = stack.pop()
        if function is not None:
            names.add(function.name())
            stack.extend(parent for parent, _ in function.next_functions)
    return names


def test_channels_take_the_fused_kernel_of_the_cpu_with_gradients_and_a_mask_does_not():
    tensors = inputs(1, 2, 18, 20)
    fused = "ScaledDotProductFlashAttentionForCpuBackward0"
    assert fused in grad_fns(attend("channels", *tensors, scale=0.3))
    # the reason for the other kernels: a bias with gradients silently takes the quadratic path
    assert fused not in grad_fns(attend("mask", *tensors, scale=0.3))


@pytest.mark.parametrize("kernel", ["tiled", "channels"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_quadratic_in_the_tokens_is_kept_for_the_backward_pass(kernel, precision):
    side, heads = 16, 3
    layer = block(side, with_gradients=kernel)
    x = torch.randn(1, side, side, 24, requires_grad=True)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        out = layer(x)
    assert len(sizes) > 5
    assert max(sizes) < heads * side**4 / 2
    out.float().sum().backward()
    assert x.grad.abs().max() > 0


def test_the_check_of_what_is_kept_finds_a_quadratic_path():
    sizes = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t)
    with hooks:
        attend("mask", *inputs(1, 3, 16, 16), scale=0.3)
    assert max(sizes) >= 3 * 16**4
