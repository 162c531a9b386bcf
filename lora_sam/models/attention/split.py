"""Multi-head attention of SAM's ViT with separate projections and relative positions, on fused kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.models.attention.tiled import tiled_attention
from lora_sam.models.kernels import InferenceKernel, TrainingKernel

MASK_BYTES = 2**28
"""Largest bias that is made at once where it is a mask: of a ViT-B at 1024 all would be 805 MB."""

_OF_FLAT_TUNERS = ("oft_R", "gralora_A")


class SplitAttention(nn.Module):
    """SAM's image-encoder attention with `q`, `k`, `v` and `proj` as Linears of their own.

    Computes what `segment_anything.modeling.image_encoder.Attention` computes, without its
    (heads x tokens x tokens) matrices while training:

    - `tiled`: tile by tile (`tiled_attention`); on CPUs unless chosen otherwise;
    - `channels`: with the bias as channels; elsewhere unless chosen otherwise. The decomposed relative position bias of
      query i and key j, `q_i . R_h[y_i - y_j] + q_i . R_w[x_i - x_j]`, is a dot product itself: with
      `q' = [s*q, rh, rw]` and `k' = [k, onehot(y), onehot(x)]` it is part of `q' . k'`, so
      `scaled_dot_product_attention` needs no mask and keeps its memory-efficient kernel, gradients included. (A mask
      that needs gradients sends it to the quadratic path.)

    Without gradients the bias is a plain `mask` unless chosen otherwise, made for a few heads at a time. Which of them
    is fastest depends on the machine: `lora_sam.models.attention.choice` measures.

    Relative positions: Li et al., "MViTv2", equation 4, decomposed as in ViTDet.

    Attributes:
        with_gradients: How to attend where gradients are needed; None for the device's usual way.
        without_gradients: How to attend where they are not; None for the mask.
        only_in: The arithmetic that `without_gradients` was chosen for, in any other it is the mask; None for all.
    """

    with_gradients: TrainingKernel | None = None
    without_gradients: InferenceKernel | None = None
    only_in: torch.dtype | None = None

    def __init__(self, dim: int, num_heads: int, *, bias: bool, use_rel_pos: bool, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias=bias)
        self.k = nn.Linear(dim, dim, bias=bias)
        self.v = nn.Linear(dim, dim, bias=bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * input_size[0] - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * input_size[1] - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, H, W, C] to tokens [B, H, W, C]; B counts windows where the block is windowed."""
        batch, height, width, dim = x.shape
        q, k, v = (
            _projected(projection, x).view(batch, height * width, self.num_heads, -1).transpose(1, 2)
            for projection in (self.q, self.k, self.v)
        )
        if not self.use_rel_pos:
            out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            rh, rw = self._relative_positions(q, height, width)
            out = attend(self._kernel(q), q, k, v, rh, rw, scale=self.scale)
        return _projected(self.proj, out.transpose(1, 2).reshape(batch, height, width, dim))

    def _kernel(self, q: Tensor) -> InferenceKernel:
        if torch.is_grad_enabled() and q.requires_grad:
            return self.with_gradients or ("tiled" if q.device.type == "cpu" else "channels")
        # a traced loop over tiles would be exported as it is unrolled
        chosen = self.only_in in (None, q.dtype) and not _is_traced()
        return (self.without_gradients if chosen else None) or "mask"

    def _relative_positions(self, q: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Bias of every query towards each key row [B, heads, N, H] and each key column [B, heads, N, W]."""
        batch, heads, _, channels = q.shape
        grid = q.view(batch, heads, height, width, channels)
        table_h = get_rel_pos(height, height, self.rel_pos_h).to(q.dtype)
        table_w = get_rel_pos(width, width, self.rel_pos_w).to(q.dtype)
        rh = torch.einsum("bnhwc,hkc->bnhwk", grid, table_h)
        rw = torch.einsum("bnhwc,wkc->bnhwk", grid, table_w)
        return rh.flatten(2, 3), rw.flatten(2, 3)


def _projected(projection: nn.Module, x: Tensor) -> Tensor:
    """A projection of tokens [B, H, W, C]; tuners of PEFT that would take these for an image get [B, H W, C]."""
    if not any(hasattr(projection, weights) for weights in _OF_FLAT_TUNERS):
        return projection(x)  # type: ignore[no-any-return]
    return projection(x.flatten(1, 2)).view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def attend(kernel: InferenceKernel, q: Tensor, k: Tensor, v: Tensor, rh: Tensor, rw: Tensor, *, scale: float) -> Tensor:
    """softmax(scale q k' + rh + rw) v by the named kernel; `q` not scaled yet, else as `tiled_attention`."""
    if kernel == "mask":
        return attend_with_mask(q, k, v, rh, rw, scale=scale)
    return KERNELS[kernel](q * scale, k, v, rh, rw)


def attend_with_extra_channels(scaled_q: Tensor, k: Tensor, v: Tensor, rh: Tensor, rw: Tensor) -> Tensor:
    """softmax(q k' + rh + rw) v on a fused kernel; arguments as `tiled_attention`."""
    batch, heads, tokens, channels = k.shape
    height, width = rh.shape[-1], rw.shape[-1]
    rows = torch.arange(height, device=k.device).repeat_interleave(width)
    columns = torch.arange(width, device=k.device).repeat(height)
    one_hot = torch.cat([F.one_hot(rows, height), F.one_hot(columns, width)], dim=-1).to(k.dtype)
    # the kernels want one head dimension, a multiple of 8 on GPUs, for queries, keys and values
    padding = -(channels + height + width) % 8
    q_extra = torch.cat([scaled_q, rh.to(k.dtype), rw.to(k.dtype)], dim=-1)
    k_extra = torch.cat([k, one_hot.expand(batch, heads, tokens, height + width)], dim=-1)
    out = F.scaled_dot_product_attention(
        F.pad(q_extra, (0, padding)),
        F.pad(k_extra, (0, padding)),
        F.pad(v, (0, height + width + padding)),
        scale=1.0,
    )
    return out[..., :channels]


def attend_with_mask(q: Tensor, k: Tensor, v: Tensor, rh: Tensor, rw: Tensor, *, scale: float) -> Tensor:
    """softmax(scale q k' + rh + rw) v with a bias of at most `MASK_BYTES` at a time; `q` not scaled yet."""
    if _is_traced():  # an exported model would keep every part
        return _with_bias(q, k, v, rh, rw, scale=scale)
    heads = max(1, MASK_BYTES // (k.shape[2] ** 2 * q.element_size()))
    if heads >= q.shape[0] * q.shape[1]:
        return _with_bias(q, k, v, rh, rw, scale=scale)
    parts = zip(*(tensor.flatten(0, 1).split(heads) for tensor in (q, k, v, rh, rw)), strict=True)
    each = [_with_bias(*(tensor.unsqueeze(0) for tensor in part), scale=scale)[0] for part in parts]
    return torch.cat(each).view_as(q)


def _with_bias(q: Tensor, k: Tensor, v: Tensor, rh: Tensor, rw: Tensor, *, scale: float) -> Tensor:
    bias = (rh.unsqueeze(-1) + rw.unsqueeze(-2)).flatten(-2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=scale)


def _is_traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


KERNELS: dict[str, Callable[..., Tensor]] = {"tiled": tiled_attention, "channels": attend_with_extra_channels}
"""Kernels without a mask; arguments as `tiled_attention`."""
