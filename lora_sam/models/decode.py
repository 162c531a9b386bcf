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
    sam: Sam,
    image_embeddings: Tensor,
    *,
    boxes: Tensor | None,
    points: Tensor | None,
    labels: Tensor | None,
    mask_inputs: Tensor | None = None,
    images: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """All masks of N prompts on one or several images.

    The same computation as `MaskDecoder.predict_masks`, which takes the prompts of one image only.

    Args:
        sam: The model; only its prompt encoder and mask decoder run.
        image_embeddings: [B, C, S/16, S/16].
        boxes: XYXY in the S frame, [N, 4], or None.
        points: (x, y) in the S frame, [N, K, 2], or None.
        labels: [N, K], 1 foreground, 0 background, -1 padding.
        mask_inputs: Logits of an earlier prediction, [N, S/4, S/4], or None.
        images: Which of the B images each prompt is for, int64 [N]; None where B is 1.

    Returns:
        Low-resolution logits [N, 4, S/4, S/4] and predicted IoU [N, 4]: first the single mask, then the three for
        ambiguous prompts.
    """
    encoder = sam.prompt_encoder
    masks = None if mask_inputs is None else mask_inputs.unsqueeze(1)
    sparse, dense = encoder(points=None if points is None else (points, labels), boxes=boxes, masks=masks)
    if masks is None:  # the same for all prompts, so added before the embedding is repeated
        image_embeddings = image_embeddings + encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    source = image_embeddings.expand(len(sparse), -1, -1, -1) if images is None else image_embeddings[images]
    if masks is not None:
        source = source + dense
    logits, iou = masks_from_embeddings(sam, source, sparse)
    return logits.float(), iou.float()


def masks_from_embeddings(sam: Sam, source: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """Masks from what the encoders made; every size is read off a tensor, so that tracing keeps N and K open.

    Args:
        sam: The model; only its mask decoder runs.
        source: Image embedding plus embedding of the mask prompt, for every prompt [N, C, S/16, S/16].
        sparse: Embeddings of points and boxes [N, K, C].

    Returns:
        Low-resolution logits [N, 4, S/4, S/4] and predicted IoU [N, 4].
    """
    decoder = sam.mask_decoder
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([outputs.expand(sparse.shape[0], -1, -1), sparse], dim=1)
    positions = sam.prompt_encoder.get_dense_pe().expand(sparse.shape[0], -1, -1, -1)
    queries, keys = decoder.transformer(source, positions, tokens)
    upscaled = decoder.output_upscaling(keys.transpose(1, 2).reshape(source.shape))
    weights = torch.stack(
        [mlp(queries[:, 1 + index]) for index, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
    return logits, decoder.iou_prediction_head(queries[:, 0])


def device_of(sam: Sam) -> torch.device:
    """Where the model's weights are."""
    device: torch.device = next(sam.parameters()).device
    return device
