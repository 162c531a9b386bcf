"""Exact attention with decomposed relative positions, one tile of queries at a time: memory linear in the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Logits held at once: 128 rows of 4096 keys fit into a core's cache, as do 13 windows of 14 x 14 tokens.
_LOGITS = 128 * 4096


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, rh: Tensor, rw: Tensor) -> Tensor:
    """softmax(q k' + rh + rw) v, where neither logits nor probabilities are ever kept.

    The forward pass keeps its inputs only; the backward pass computes the probabilities of a tile again, as
    FlashAttention does (Dao et al., 2022, algorithm 4). Products run in the type of `q`; softmax and the sums over
    tiles in fp32. On CPUs this is faster than both a materialised bias and one that rides in additional channels.

    Args:
        q: Queries, already scaled, [B, heads, N, c].
        k: Keys [B, heads, N, c].
        v: Values [B, heads, N, c].
        rh: Bias of each query towards each row of keys, [B, heads, N, h].
        rw: Bias of each query towards each column of keys, [B, heads, N, w]; h * w = N.

    Returns:
        [B, heads, N, c].
    """
    rows = max(1, _LOGITS // k.shape[2])
    out: Tensor = _TiledAttention.apply(q, k, v, rh, rw, rows)
    return out


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, rh: Tensor, rw: Tensor, rows: int) -> Tensor:
        shape = q.shape
        q, k, v, rh, rw = (tensor.to(q.dtype).flatten(0, 1).contiguous() for tensor in (q, k, v, rh, rw))
        out = torch.empty_like(v)
        for b, r in _tiles(len(q), q.shape[1], rows):
            out[b, r] = torch.bmm(_probabilities(q[b, r], k[b], rh[b, r], rw[b, r]).to(v.dtype), v[b])
        ctx.save_for_backward(q, k, v, rh, rw)
        ctx.rows, ctx.leading = rows, shape[:2]
        return out.view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, rh, rw = ctx.saved_tensors
        gradient = gradients[0].to(q.dtype).reshape(q.shape).contiguous()
        dq, drh, drw = torch.empty_like(q), torch.empty_like(rh), torch.empty_like(rw)
        dk, dv = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (k, v))
        for b, r in _tiles(len(q), q.shape[1], ctx.rows):
            p = _probabilities(q[b, r], k[b], rh[b, r], rw[b, r])
            g = gradient[b, r]
            _add_product(dv[b], p.to(g.dtype).transpose(1, 2), g)
            dp = torch.bmm(g, v[b].transpose(1, 2)).float()
            ds = p * (dp - (dp * p).sum(-1, keepdim=True))  # through the softmax
            narrow = ds.to(q.dtype)
            dq[b, r] = torch.bmm(narrow, k[b])
            _add_product(dk[b], narrow.transpose(1, 2), q[b, r])
            grid = ds.view(*ds.shape[:2], rh.shape[-1], rw.shape[-1])
            drh[b, r], drw[b, r] = grid.sum(3), grid.sum(2)
        return *(tensor.to(q.dtype).unflatten(0, ctx.leading) for tensor in (dq, dk, dv, drh, drw)), None


def _probabilities(q: Tensor, k: Tensor, rh: Tensor, rw: Tensor) -> Tensor:
    """Softmax of the logits of some rows, fp32."""
    logits = (rh.float().unsqueeze(-1) + rw.float().unsqueeze(-2)).flatten(-2)
    _add_product(logits, q, k.transpose(1, 2))
    return torch.softmax(logits, -1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, with `total` in fp32."""
    if a.dtype == total.dtype:
        total.baddbmm_(a, b)
    else:
        total += torch.bmm(a, b)


def _tiles(batch: int, tokens: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Slices of (heads of all images, rows) that cover everything once: several whole heads, or rows of one."""
    if rows >= tokens:
        for b in range(0, batch, rows // tokens):
            yield slice(b, b + rows // tokens), slice(None)
        return
    for b in range(batch):
        for r in range(0, tokens, rows):
            yield slice(b, b + 1), slice(r, r + rows)
