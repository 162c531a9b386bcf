"""Image encoders of SAM-HQ: those of SAM and of MobileSAM, which also give what an early block has made.

Ke et al., "Segment Anything in High Quality", 2023, section 3.2 ("early-layer local features"): the first block with
global attention of a plain ViT, the first stage with attention of a TinyViT.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from lora_sam.models.tiny_vit_encoder import TinyViTEncoder


class HQViTEncoder(ImageEncoderViT):  # type: ignore[misc]
    """Images [B, 3, S, S] to [B, D + C, S/16, S/16]: the embedding, then the C channels of the early block."""

    @property
    def early_block(self) -> int:
        """The first that attends to the whole image."""
        return next(number for number, block in enumerate(self.blocks) if block.window_size == 0)

    @property
    def early_channels(self) -> int:
        """C."""
        return int(self.patch_embed.proj.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        tokens = self.patch_embed(x)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        early = tokens
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number == self.early_block:
                early = tokens
        return packed(self.neck(tokens.permute(0, 3, 1, 2)), early)


class HQTinyViTEncoder(TinyViTEncoder):
    """Images [B, 3, S, S] to [B, D + C, S/16, S/16]: the embedding, then the C channels that enter the second stage."""

    @property
    def early_block(self) -> int:
        """The last of the first stage with attention, after which the map has S/16 pixels along a side."""
        return len(self._layer(1).blocks) - 1

    @property
    def early_channels(self) -> int:
        """C."""
        block: Any = self._layer(2).blocks[0]
        return int(block.attn.proj.in_features)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        tokens = self.enter(images)
        early = tokens
        for number, _ in enumerate(self.places()):
            tokens = self.step(number, tokens)
            if number == self.early_block:
                early = tokens
        return packed(self.leave(tokens), early)


def packed(embedding: Tensor, early: Tensor) -> Tensor:
    """The embedding [B, D, h, w] and tokens [B, h, w, C] in one, [B, D + C, h, w]."""
    return torch.cat([embedding, early.permute(0, 3, 1, 2)], dim=1)
