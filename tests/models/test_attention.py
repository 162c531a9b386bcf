"""Both ways of attending without a bias matrix: values and all five gradients against the written-out formula."""

from __future__ import annotations

import pytest
import torch

from lora_sam.models.attention import attend_with_extra_channels
from lora_sam.models.tiled_attention import tiled_attention

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
