"""Weights that no model can compute with are refused before one is built of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def check_sound(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError` for the first tensor that cannot be a weight of SAM.

    That is one without memory of its own (meta), sparse or quantised; of another kind than fp16, bf16, fp32 or fp64;
    with a value that is NaN or infinite, also once it is fp32; and a `weight` that is zero throughout, which no
    training leaves behind. Biases and tables of positions may be zero.

    Args:
        state: Tensors by name, with the keys of `segment_anything`.
        path: The file they are from, for the message.
    """
    import torch

    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, tensor in state.items():
        if tensor.is_meta:
            fault, remedy = "has a shape and no values (a meta tensor)", "save the model with its values"
        elif tensor.is_quantized:
            fault, remedy = "is quantised", "save the weights as they were before"
        elif tensor.layout != torch.strided:
            fault, remedy = f"is sparse ({tensor.layout})", "save it with .to_dense()"
        elif tensor.dtype not in kinds:
            fault, remedy = f"is of type {tensor.dtype}", "weights are fp16, bf16, fp32 or fp64"
        elif not _finite(tensor):
            values = tensor.float()
            bad = int((~torch.isfinite(values)).sum())
            fault, remedy = f"has {bad} values that are NaN or infinite", "fetch or train these weights again"
        elif tensor.numel() and name.endswith(("weight", "gaussian_matrix")) and not bool(tensor.any()):
            fault, remedy = "is zero throughout", "fetch or train these weights again"
        else:
            continue
        # quoted: names in a file may hold anything
        raise CheckpointError(f"{path}: {name!r:.150} {fault}; {remedy}")


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite in fp32."""
    import torch

    values = tensor.float()
    # one pass without a mask of the same size: a sum is finite only if every value is
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())
