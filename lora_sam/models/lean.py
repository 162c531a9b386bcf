"""Parts of a transformer block that keep their input alone for the backward pass, and make the rest again.

What is made again is made in pieces that fit a processor's caches, so that little of it is there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lora_sam.models.held_linear import HeldLinear

PIECE = 2**20
"""Numbers of the largest tensor of a piece, about; on an accelerator, which wants large ones, 16 times as many."""

_ROWS = 1024  # of a piece of an MLP at least: with fewer a matrix product is slower


def plus_mlp(x: Tensor, norm: nn.Module, mlp: nn.Module) -> Tensor:
    """x + mlp(norm(x)), [..., C] to the same; where all of it is frozen, x alone is kept.

    Args:
        x: [..., C].
        norm: LayerNorm of the channels.
        mlp: With a method `linears` it is known to be the second of them of GELU of the first; what a method has put
            around it has none.
    """
    if hasattr(type(mlp), "linears") and x.requires_grad and may_remake() and not mlp._forward_hooks:
        lin1, lin2 = cast("Any", mlp).linears()
        if all(_is_frozen(layer) for layer in (norm, lin1, lin2)):
            return cast("Tensor", _FrozenMLP.apply(x, norm, lin1, lin2))
    y: Tensor = x + mlp(norm(x))
    return y


def by_bands(part: Callable[[Tensor], Tensor], tokens: Tensor, window: int) -> Tensor:
    """`part` of tokens, band by band, of each of which the input alone is kept (Chen et al., 2016).

    Args:
        part: Tokens [B, h, W, C] to tokens [B, h', W', C'] in which no window sees another.
        tokens: [B, H, W, C].
        window: Side of a window.
    """
    if not may_remake():
        return part(tokens)
    rows = max(1, _piece(tokens) // (window * tokens[:, 0].numel()))
    bands = [remade(part, band) for band in tokens.split(rows * window, dim=1)]
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)


def remade(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`part` of `x`, of which `x` alone is kept."""
    return checkpoint(part, x, use_reentrant=False) if may_remake() else part(x)


def may_remake() -> bool:
    """Whether there is a backward pass, and eager; what is compiled decides for itself what is made again."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _is_frozen(layer: nn.Module) -> bool:
    """Whether a layer is as the model has it, with nothing around it, and does not train."""
    plain = type(layer) in (nn.Linear, HeldLinear, nn.LayerNorm) and not (
        layer._forward_hooks or layer._forward_pre_hooks
    )
    return plain and not any(each.requires_grad for each in layer.parameters())


class _FrozenMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.LayerNorm, lin1: nn.Linear, lin2: nn.Linear) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layers, ctx.dtype = (norm, lin1, lin2), _autocast_to(x)
        rows = x.flatten(0, -2)
        out = torch.empty_like(rows)
        dtype = ctx.dtype or x.dtype  # weights may be held in bf16
        weights = [_cast(each, dtype) for each in (lin1.weight, lin1.bias, lin2.weight, lin2.bias)]
        for piece in _pieces(rows, lin1.out_features):
            hidden = F.gelu(F.linear(norm(rows[piece]), *weights[:2]))
            torch.add(rows[piece], F.linear(hidden, *weights[2:]), out=out[piece])
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        norm, lin1, lin2 = ctx.layers
        rows, above = x.flatten(0, -2), gradients[0].flatten(0, -2)
        below = torch.empty_like(rows)
        dtype = ctx.dtype or x.dtype
        weight, bias, last = (_cast(each, dtype) for each in (lin1.weight, lin1.bias, lin2.weight))
        for piece in _pieces(rows, lin1.out_features):
            given = rows[piece].detach().requires_grad_()
            with torch.enable_grad(), torch.autocast(x.device.type, ctx.dtype, enabled=ctx.dtype is not None):
                hidden = F.gelu(F.linear(norm(given), weight, bias))
            (through,) = torch.autograd.grad(hidden, given, above[piece].to(last.dtype) @ last)
            torch.add(above[piece], through, out=below[piece])
        return below.view(x.shape), None, None, None


def _autocast_to(x: Tensor) -> torch.dtype | None:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _cast(weight: Tensor | None, dtype: torch.dtype) -> Any:
    return weight if weight is None else weight.to(dtype)


def _piece(x: Tensor) -> int:
    return PIECE if x.device.type == "cpu" else 16 * PIECE


def _pieces(rows: Tensor, hidden: int) -> Iterator[slice]:
    step = max(_ROWS, _piece(rows) // hidden)
    return (slice(start, start + step) for start in range(0, len(rows), step))
