"""Split the fused `qkv` of an image encoder into `q`, `k`, `v` and fuse them again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn

from lora_sam.core.errors import AdapterError
from lora_sam.models.attention.split import SplitAttention
from lora_sam.models.family import family_of
from lora_sam.models.inserted import describe

_PROJECTIONS = ("q", "k", "v")
# A table of positions for each head, which only TinyViT has, says that the rows of `qkv` are laid out head by head.
_BY_HEAD = "attention_biases"


def split_projections(sam: Sam) -> Sam:
    """Give every attention of the image encoder `q`, `k`, `v` for its `qkv`, in place; weights are rows of the old."""
    family_of(sam.image_encoder).split(sam.image_encoder)
    return sam


def fuse_projections(sam: Sam) -> Sam:
    """The inverse of `split_projections`, in place: afterwards the keys are those of the upstream package.

    Raises:
        AdapterError: the model has layers that are no part of SAM, which a fused model would lose.
    """
    check_plain(sam)
    family_of(sam.image_encoder).fuse(sam.image_encoder)
    return sam


def check_plain(sam: nn.Module) -> None:
    """Raise `AdapterError` where a model has layers of a method, which no other program's SAM has."""
    if (there := describe(sam)) is not None:
        raise AdapterError(
            f"method {there.kind} does not fold into the weights of SAM: its layers stay in the model, which only "
            "lora_sam and its exported parts have; for another program train with a method that folds, like method=lora"
        )


def split_attention(fused: nn.Module) -> SplitAttention:
    """The attention of a plain ViT with `q`, `k`, `v` for `qkv`."""
    assert isinstance(fused, Attention), f"expected segment_anything's Attention, found {type(fused).__name__}"
    split = SplitAttention(
        fused.proj.in_features,
        fused.num_heads,
        bias=fused.qkv.bias is not None,
        use_rel_pos=fused.use_rel_pos,
        input_size=_input_size(fused),
    )
    split.load_state_dict(split_state_dict(fused.state_dict()))
    return split.to(fused.proj.weight.device, fused.proj.weight.dtype)


def fused_attention(split: nn.Module) -> nn.Module:
    """The inverse of `split_attention`."""
    assert isinstance(split, SplitAttention), f"expected SplitAttention, found {type(split).__name__}"
    fused: nn.Module = Attention(
        split.proj.in_features,
        split.num_heads,
        qkv_bias=split.q.bias is not None,
        use_rel_pos=split.use_rel_pos,
        input_size=_input_size(split),
    )
    fused.load_state_dict(fuse_state_dict(split.state_dict()))
    return fused.to(split.proj.weight.device, split.proj.weight.dtype)


def split_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys `…qkv.weight|bias` [3C, …] become `…q|k|v.weight|bias` [C, …]; all others stay.

    Rows are contiguous thirds, or thirds of the rows of each head where positions are a table for each head (TinyViT).
    """
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, found, kind = _rpartition(key, "qkv.")
        if found:
            rows = value.unflatten(0, (_heads(state, prefix), 3, -1))
            for index, name in enumerate(_PROJECTIONS):
                split[f"{prefix}{name}.{kind}"] = rows[:, index].flatten(0, 1).clone()
        else:
            split[key] = value
    return split


def fuse_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_state_dict` for the attention of the image encoder (keys that end in `attn.q.*`, `q.*`)."""
    fused: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, found, kind = _rpartition(key, "q.")
        if found and f"{prefix}k.{kind}" in state:
            heads = _heads(state, prefix)
            rows = [state[f"{prefix}{name}.{kind}"].unflatten(0, (heads, -1)) for name in _PROJECTIONS]
            fused[f"{prefix}qkv.{kind}"] = torch.cat(rows, dim=1).flatten(0, 1)
        elif not _is_part_of_fused(key, state):
            fused[key] = value
    return fused


def _heads(state: Mapping[str, Tensor], prefix: str) -> int:
    """Into how many groups the rows of an attention's `qkv` are laid out before q, k and v."""
    table = state.get(f"{prefix}{_BY_HEAD}")
    return 1 if table is None else len(table)


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
