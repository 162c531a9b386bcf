"""Prompt encoder and mask decoder of SAM 2 for images: those of the first SAM, and what was added to them.

Ravi et al., "SAM 2", 2024, appendix D.1. Names are those of the first SAM's modules; `lora_sam.models.sam2_layouts`
has the published ones.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.models.building import PATCH_SIZE
from lora_sam.models.shared_decoding import masks_of_pixels


class Sam2PromptEncoder(PromptEncoder):  # type: ignore[misc]
    """The first SAM's prompt encoder, which adds a point of padding beside boxes too."""

    pads_boxes = True

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        corners = super()._embed_boxes(boxes)
        return torch.cat([corners, self.not_a_point_embed.weight.expand(len(corners), 1, -1)], dim=1)


class Kept(nn.Module):
    """Weights that a checkpoint has and nothing here computes with, under their names: kept, never trained.

    Args:
        module: Has them.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, parameter in module.named_parameters(recurse=False):
            self.register_buffer(name, parameter.detach())
        for name, child in module.named_children():
            self.add_module(name, Kept(child))


class Sam2MaskDecoder(MaskDecoder):  # type: ignore[misc]
    """The first SAM's mask decoder with a token more, two finer maps of the image, and an IoU between 0 and 1.

    Image embeddings are what `Sam2Encoder` makes, three maps in one. The token asks whether the object is there at all,
    which is for videos: it takes part in the attention, its answer is not computed.
    """

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=mlp_dim, num_heads=8),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=dim,
        )
        self.iou_prediction_head.sigmoid_output = True
        self.obj_score_token = nn.Embedding(1, dim)
        self.pred_obj_score_head = Kept(MLP(dim, dim, 1, 3))

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks [N, 4, 4h, 4w] and predicted IoU [N, 4] of one image; see `MaskDecoder`."""
        count = len(sparse_prompt_embeddings)
        coarse, fine = image_embeddings.split([self.transformer_dim, 3 * self.transformer_dim], dim=1)
        tokens = torch.cat([self.output_tokens().expand(count, -1, -1), sparse_prompt_embeddings], dim=1)
        source = coarse.expand(count, -1, -1, -1) + dense_prompt_embeddings
        positions = image_pe.expand(count, -1, -1, -1)
        return masks_of_pixels(self, source, positions, tokens, self.finer(coarse, fine))

    def finer(self, embedding: Tensor, fine: Tensor) -> Tensor:
        """The finer maps that `enlarged` takes: they come as they are."""
        del embedding
        return fine

    def output_tokens(self) -> Tensor:
        """Those of IoU, masks and object, [6, D]: in this order, which attention does not know."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight, self.obj_score_token.weight])

    def enlarged(self, source: Tensor, fine: Tensor) -> Tensor:
        """[N, D, h, w] to [N, D/8, 4h, 4w], with the finer maps of `Sam2Encoder`, [1 or N, 3D, h, w]."""
        first, norm, activation, second, last_activation = self.output_upscaling
        finer, finest = fine.split([self.transformer_dim, 2 * self.transformer_dim], dim=1)
        x = activation(norm(first(source) + F.pixel_shuffle(finer, 2)))
        return cast("Tensor", last_activation(second(x) + F.pixel_shuffle(finest, 4)))


def prompted(
    encoder: Any, image_size: int, prompt_embed_dim: int, decoder_mlp_dim: int, grid: int | None = None
) -> Sam:
    """A SAM 2 for images around an image encoder, whose embeddings are S/16 wide, or `grid`."""
    grid = grid or image_size // PATCH_SIZE
    return Sam(
        image_encoder=encoder,
        prompt_encoder=Sam2PromptEncoder(
            embed_dim=prompt_embed_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=Sam2MaskDecoder(prompt_embed_dim, decoder_mlp_dim),
    )
