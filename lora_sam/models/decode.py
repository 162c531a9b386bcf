"""Run SAM's prompt encoder and mask decoder for the prompts of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def decode_masks(
    sam: Sam,
    image_embedding: Tensor,
    *,
    boxes: Tensor | None,
    points: Tensor | None,
    labels: Tensor | None,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """Masks of N prompts on one image: the single one, or the three for ambiguous prompts.

    Args:
        sam: The model; only its prompt encoder and mask decoder run.
        image_embedding: [1, C, S/16, S/16].
        boxes: XYXY in the S frame, [N, 4], or None.
        points: (x, y) in the S frame, [N, K, 2], or None.
        labels: [N, K], 1 foreground, 0 background, -1 padding.
        multimask: Return the 3 masks for ambiguous prompts instead of the single one.

    Returns:
        Low-resolution logits [N, M, S/4, S/4] and predicted IoU [N, M], M = 3 if `multimask` else 1.
    """
    logits, iou = decode_all_masks(sam, image_embedding, boxes=boxes, points=points, labels=labels)
    wanted = slice(1, None) if multimask else slice(0, 1)
    return logits[:, wanted], iou[:, wanted]


def decode_all_masks(
    sam: Sam, image_embedding: Tensor, *, boxes: Tensor | None, points: Tensor | None, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All masks of N prompts on one image; arguments as in `decode_masks`.

    Returns:
        Low-resolution logits [N, 4, S/4, S/4] and predicted IoU [N, 4]: first the single mask, then the three for
        ambiguous prompts.
    """
    prompt_points = None if points is None else (points, labels)
    sparse, dense = sam.prompt_encoder(points=prompt_points, boxes=boxes, masks=None)
    logits, iou = sam.mask_decoder.predict_masks(
        image_embeddings=image_embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    return logits.float(), iou.float()


def device_of(sam: Sam) -> torch.device:
    """Where the model's weights are."""
    device: torch.device = next(sam.parameters()).device
    return device
