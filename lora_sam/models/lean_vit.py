"""Blocks of a plain ViT whose frozen MLP keeps its input alone, for models whose frozen weights are held in bf16."""

from __future__ import annotations

from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Block, window_partition, window_unpartition
from torch import Tensor, nn

from lora_sam.models.lean import plus_mlp


class LeanMLP(MLPBlock):  # type: ignore[misc]
    """The MLP of a ViT, whose layers `lora_sam.models.lean.plus_mlp` finds."""

    def linears(self) -> tuple[nn.Module, nn.Module]:
        """Both layers."""
        return self.lin1, self.lin2


class LeanBlock(Block):  # type: ignore[misc]
    """The block of `segment_anything` with its MLP made again for the backward pass, piece by piece."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to the same."""
        y, size = self.norm1(x), x.shape[1:3]
        if self.window_size:
            y, padded = window_partition(y, self.window_size)
        y = self.attn(y)
        if self.window_size:
            y = window_unpartition(y, self.window_size, padded, size)
        return plus_mlp(x + y, self.norm2, self.mlp)


def make_lean(encoder: nn.Module) -> None:
    """Let the blocks of a plain ViT be lean, in place; nothing in other encoders, and where a method has changed it."""
    for module in encoder.modules():
        if type(module) is Block and type(module.mlp) is MLPBlock and type(getattr(module.mlp, "act", None)) is nn.GELU:
            module.__class__, module.mlp.__class__ = LeanBlock, LeanMLP


def as_before(encoder: nn.Module) -> None:
    """The opposite of `make_lean`."""
    for module in encoder.modules():
        if type(module) is LeanBlock:
            module.__class__, module.mlp.__class__ = Block, MLPBlock
