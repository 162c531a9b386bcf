"""Prompt encoder and mask decoder of SAM 2 for images: those of the first SAM, and what was added to them.

Ravi et al., "SAM 2", 2024, appendix D.1. Names are those of the first SAM's modules; `lora_sam.models.sam2_layouts`
has the published ones.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from segment_anything.modeling import PromptEncoder, Sam
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.models import building
from lora_sam.models.packed_decoder import PackedMaskDecoder


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


class Sam2MaskDecoder(PackedMaskDecoder):
    """The first SAM's mask decoder with a token more, two finer maps of the image, and an IoU between 0 and 1.

    Image embeddings are what `Sam2Encoder` makes, three maps in one. The token asks whether the object is there at all,
    which is for videos: it takes part in the attention, its answer is not computed.
    """

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__(dim, mlp_dim)
        self.iou_prediction_head.sigmoid_output = True
        self.obj_score_token = nn.Embedding(1, dim)
        self.pred_obj_score_head = Kept(MLP(dim, dim, 1, 3))

    def finer(self, embedding: Tensor, behind: Tensor) -> Tensor:
        """The finer maps that `enlarged` takes: they come as they are."""
        del embedding
        return behind

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
    return building.prompted(
        encoder,
        image_size,
        prompt_embed_dim,
        decoder_mlp_dim,
        grid=grid,
        prompt_encoder=Sam2PromptEncoder,
        mask_decoder=Sam2MaskDecoder,
    )
