"""Adapt a SAM checkpoint's position parameters to another input size."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor
from torch.nn import functional as F


def resize_positions(
    state: Mapping[str, Tensor], grid: int, *, global_attention: Collection[int], prefix: str = "image_encoder."
) -> dict[str, Tensor]:
    """A copy of a `Sam` state dict whose position parameters fit a `grid` x `grid` token map.

    The absolute embedding [1, G, G, C] is interpolated bicubically (as ViT and ViTDet do); the relative tables
    [2G-1, c] of the blocks with global attention linearly, which is what `get_rel_pos` of `segment_anything` does at
    run time. Windowed blocks do not depend on the input size. Nothing changes where the size fits already.
    """
    resized = dict(state)
    key = f"{prefix}pos_embed"
    if key in state and state[key].shape[1] != grid:
        table = state[key].float().permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
        resized[key] = table.permute(0, 2, 3, 1).to(state[key].dtype)
    for block in global_attention:
        for axis in ("h", "w"):
            key = f"{prefix}blocks.{block}.attn.rel_pos_{axis}"
            if key in state and state[key].shape[0] != 2 * grid - 1:
                table = state[key].float().T.unsqueeze(0)
                table = F.interpolate(table, size=2 * grid - 1, mode="linear")
                resized[key] = table.squeeze(0).T.contiguous().to(state[key].dtype)
    return resized
