"""The class of each mask as one more output of the exported decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lora_sam.predictors.class_head import ClassHead


class ClassOutput(nn.Module):
    """`lora_sam.predictors.class_head.ClassHead` as a traceable module: the same features, the same weights.

    Args:
        head: What was fitted.
        image_size: Side S of the input frame that an embedding covers.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, head: ClassHead, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.register_buffer("weight", torch.from_numpy(head.weight.copy()))
        self.register_buffer("bias", torch.from_numpy(head.bias.copy()))

    def forward(self, image_embeddings: Tensor, logits: Tensor, size: Tensor, extent: Tensor) -> Tensor:
        """How likely each mask is of each class.

        Args:
            image_embeddings: [1, D, h, w].
            logits: Of the masks at the original size, [B, M, H, W].
            size: (H, W), int64 [2].
            extent: Pixels of the input frame that the image covers, int64 [2].

        Returns:
            [B, M, C], each row adds up to 1.
        """
        rows, columns = image_embeddings.shape[2:]
        down = self._overlaps(size[0], extent[0], int(rows))
        across = self._overlaps(size[1], extent[1], int(columns))
        # [B, M, h, w]: pixels of the input frame that a mask covers in each cell
        covered = torch.matmul(torch.matmul(down, (logits > 0).to(torch.float32)), across.transpose(0, 1))
        area = covered.sum(dim=(2, 3)).unsqueeze(2)
        # nothing is reshaped here: a trace would keep M, and a decoder may be cut down to one mask afterwards
        seen = torch.einsum("bmhw,dhw->bmd", covered, image_embeddings[0]) / area.clamp(min=1e-6)
        # an empty mask has zeros alone
        features = torch.cat([seen, area.clamp(min=1e-6).log() * (area > 0)], dim=2)
        return torch.softmax(torch.matmul(features, self.weight.transpose(0, 1)) + self.bias, dim=2)

    def _overlaps(self, length: Tensor, extent: Tensor, cells: int) -> Tensor:
        """Pixels of the input frame that each of `length` pixels of an axis shares with each cell, [cells, length]."""
        pixels = torch.arange(length + 1).to(torch.float32) * (extent / length)  # type: ignore[call-overload]
        edges = torch.arange(cells + 1).to(torch.float32) * (self.image_size / cells)
        ends = torch.minimum(pixels[None, 1:], edges[1:, None])
        starts = torch.maximum(pixels[None, :-1], edges[:-1, None])
        return (ends - starts).clamp(min=0)
