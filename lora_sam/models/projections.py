"""Split the fused `qkv` of SAM's ViT into `q`, `k`, `v` and fuse them again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn

from lora_sam.models.attention.split import SplitAttention

# ViT lays the rows of `qkv` out as contiguous thirds. (TinyViT interleaves them per head: not this function's case.)
_PROJECTIONS = ("q", "k", "v")


def split_projections(sam: Sam) -> Sam:
    """Replace every `Attention` of the image encoder by `SplitAttention`, in place; weights are slices of the old."""
    for block in sam.image_encoder.blocks:
        fused = block.attn
        assert isinstance(fused, Attention), f"expected segment_anything's Attention, found {type(fused).__name__}"
        dim = fused.proj.in_features
        split = SplitAttention(
            dim,
            fused.num_heads,
            bias=fused.qkv.bias is not None,
            use_rel_pos=fused.use_rel_pos,
            input_size=_input_size(fused),
        )
        split.load_state_dict(split_state_dict(fused.state_dict()))
        block.attn = split.to(fused.proj.weight.device, fused.proj.weight.dtype)
    return sam


def fuse_projections(sam: Sam) -> Sam:
    """The inverse of `split_projections`, in place: afterwards the keys are those of `segment_anything`."""
    for block in sam.image_encoder.blocks:
        split = block.attn
        assert isinstance(split, SplitAttention), f"expected SplitAttention, found {type(split).__name__}"
        fused = Attention(
            split.proj.in_features,
            split.num_heads,
            qkv_bias=split.q.bias is not None,
            use_rel_pos=split.use_rel_pos,
            input_size=_input_size(split),
        )
        fused.load_state_dict(fuse_state_dict(split.state_dict()))
        block.attn = fused.to(split.proj.weight.device, split.proj.weight.dtype)
    return sam


def split_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys `…qkv.weight|bias` [3C, …] become `…q|k|v.weight|bias` [C, …]; all others stay."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, found, kind = _rpartition(key, "qkv.")
        if found:
            for name, rows in zip(_PROJECTIONS, value.chunk(3), strict=True):
                split[f"{prefix}{name}.{kind}"] = rows.clone()
        else:
            split[key] = value
    return split


def fuse_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_state_dict` for the attention of the image encoder (keys that end in `attn.q.*`, `q.*`)."""
    fused: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, found, kind = _rpartition(key, "q.")
        if found and f"{prefix}k.{kind}" in state:
            fused[f"{prefix}qkv.{kind}"] = torch.cat([state[f"{prefix}{name}.{kind}"] for name in _PROJECTIONS])
        elif not _is_part_of_fused(key, state):
            fused[key] = value
    return fused


def _is_part_of_fused(key: str, state: Mapping[str, Tensor]) -> bool:
    for name in ("k.", "v."):
        prefix, found, kind = _rpartition(key, name)
        if found and f"{prefix}q.{kind}" in state:
            return True
    return False


def _rpartition(key: str, module: str) -> tuple[str, bool, str]:
    """('blocks.0.attn.', True, 'weight') for ('blocks.0.attn.q.weight', 'q.'); found only as a whole module name."""
    prefix, found, kind = key.rpartition(module)
    whole_name = bool(found) and (not prefix or prefix.endswith(".")) and "." not in kind
    return prefix, whole_name, kind


def _input_size(attention: nn.Module) -> tuple[int, int]:
    if not attention.use_rel_pos:
        return (1, 1)
    height, width = (attention.get_parameter(name).shape[0] for name in ("rel_pos_h", "rel_pos_w"))
    return (height + 1) // 2, (width + 1) // 2
