"""Mask decoder of SAM-HQ: that of the first SAM, and what makes its masks finer.

Ke et al., "Segment Anything in High Quality", 2023, section 3.2: one more output token, whose mask is made of features
of the decoder, of the image embedding and of an early block of the image encoder. Names are those of the published
weights.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from lora_sam.models import building
from lora_sam.models.packed_decoder import PackedMaskDecoder


class HQMaskDecoder(PackedMaskDecoder):
    """The first SAM's mask decoder, whose every mask has the logits of the high-quality one added to its own.

    Image embeddings are what the encoders of `lora_sam.models.sam_hq_encoder` make: D channels of the embedding, and
    behind them those of the early block.

    Args:
        dim: D, channels of the image embedding.
        mlp_dim: Hidden channels of the transformer.
        early: Channels of the early block.
    """

    further_outputs = ("hf_token", "hf_mlp")
    """The token of the high-quality mask and what makes its weights, for methods that train output tokens."""

    def __init__(self, dim: int, mlp_dim: int, early: int) -> None:
        super().__init__(dim, mlp_dim)
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim // 8, 3)
        self.compress_vit_feat = _enlarging(early, dim, dim // 8)
        self.embedding_encoder = _enlarging(dim, dim // 4, dim // 8)
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, 3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, 3, padding=1),
        )

    def output_tokens(self) -> Tensor:
        """Those of IoU, masks and the high-quality mask, [6, D]."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight, self.hf_token.weight])

    def finer(self, embedding: Tensor, behind: Tensor) -> Tensor:
        """What all prompts of an image share of the fused features, [B, D/8, 4h, 4w]: once for an image."""
        return cast("Tensor", self.embedding_encoder(embedding) + self.compress_vit_feat(behind))

    def refined(self, upscaled: Tensor, queries: Tensor, fine: Tensor) -> Tensor:
        """Logits [N, 1, 4h, 4w] that are added to those of every mask.

        Args:
            upscaled: Pixels after the attention, enlarged, [N, D/8, 4h, 4w].
            queries: Output tokens and prompts after the attention, [N, T, D].
            fine: What `finer` made, first axis 1 or N.
        """
        features = self.embedding_maskfeature(upscaled) + fine
        weights = self.hf_mlp(queries[:, 1 + len(self.mask_tokens.weight)]).unsqueeze(1)
        return cast("Tensor", (weights @ features.flatten(2)).unflatten(2, features.shape[-2:]))


def _enlarging(inside: int, between: int, outside: int) -> nn.Sequential:
    """[B, inside, h, w] to [B, outside, 4h, 4w]."""
    return nn.Sequential(
        nn.ConvTranspose2d(inside, between, 2, 2),
        LayerNorm2d(between),
        nn.GELU(),
        nn.ConvTranspose2d(between, outside, 2, 2),
    )


def prompted(encoder: Any, image_size: int, prompt_embed_dim: int, decoder_mlp_dim: int) -> Sam:
    """A SAM-HQ around an image encoder."""
    early = encoder.early_channels
    return building.prompted(
        encoder,
        image_size,
        prompt_embed_dim,
        decoder_mlp_dim,
        mask_decoder=lambda dim, mlp_dim: HQMaskDecoder(dim, mlp_dim, early),
    )
