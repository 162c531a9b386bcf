"""The first SAM's mask decoder for families whose image embedding has finer maps behind what attention sees."""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from torch import Tensor

from lora_sam.models.shared_decoding import masks_of_pixels


class PackedMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """A mask decoder with more output tokens and finer maps of the image.

    Image embeddings are D channels that the decoder attends to, and behind them the channels that `finer` takes.

    Args:
        dim: D.
        mlp_dim: Hidden channels of the transformer.
    """

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=mlp_dim, num_heads=8),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=dim,
        )

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks [N, 4, 4h, 4w] and predicted IoU [N, 4] of one image; see `MaskDecoder`."""
        count = len(sparse_prompt_embeddings)
        embedding, behind = image_embeddings.tensor_split([self.transformer_dim], dim=1)
        tokens = torch.cat([self.output_tokens().expand(count, -1, -1), sparse_prompt_embeddings], dim=1)
        source = embedding.expand(count, -1, -1, -1) + dense_prompt_embeddings
        positions = image_pe.expand(count, -1, -1, -1)
        return masks_of_pixels(self, source, positions, tokens, self.finer(embedding, behind))

    def output_tokens(self) -> Tensor:
        """Tokens of IoU and masks, and those that a family adds, [T, D]."""
        raise NotImplementedError

    def finer(self, embedding: Tensor, behind: Tensor) -> Tensor:
        """What the decoder makes of an embedding [B, D, h, w] and the channels behind it, once for an image."""
        raise NotImplementedError
