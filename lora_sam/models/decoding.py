"""Run SAM's prompt encoder and mask decoder for the prompts of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn

from lora_sam.models.shared_decoding import can_share, masks_of_pixels, masks_of_tokens, prepared

if TYPE_CHECKING:
    from segment_anything.modeling import PromptEncoder, Sam

# the matrix of frequencies that positions were made of, its version, and they
_Positions = tuple[Tensor, int, Tensor]
_POSITIONS: WeakKeyDictionary[nn.Module, _Positions] = WeakKeyDictionary()

PIXELS_AT_ONCE = 3 * 64 * 64
"""Pixels of an embedding that go through the decoder together on a CPU, over its prompts.

What is made of more leaves the caches, with fewer the overhead of every operation counts: three prompts of an image of
1024 px, 12 of one of 512 (1.3 times as fast there as two at once), 48 of one of 256 (twice as fast).
"""

COMPILED: WeakKeyDictionary[nn.Module, Callable[..., tuple[Tensor, Tensor]]] = WeakKeyDictionary()
"""What stands for `masks_of_tokens` in the models of `lora_sam.models.compiling`."""


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
        image_embedding: [1, C, S/16, S/16], as the image encoder makes it.
        boxes: XYXY in the S frame, [N, 4], or None.
        points: (x, y) in the S frame, [N, K, 2], or None.
        labels: [N, K], 1 foreground, 0 background, -1 padding.
        multimask: Return the 3 masks for ambiguous prompts instead of the single one.

    Returns:
        Low-resolution logits [N, M, S/4, S/4] and predicted IoU [N, M], M = 3 if `multimask` else 1.
    """
    wanted = slice(1, None) if multimask else slice(0, 1)
    return decode_all_masks(sam, image_embedding, boxes=boxes, points=points, labels=labels, masks=wanted)


def decode_all_masks(
    sam: Sam,
    image_embeddings: Tensor,
    *,
    boxes: Tensor | None,
    points: Tensor | None,
    labels: Tensor | None,
    mask_inputs: Tensor | None = None,
    images: Tensor | None = None,
    masks: slice = slice(None),  # a slice never changes
) -> tuple[Tensor, Tensor]:
    """All masks of N prompts on one or several images.

    The same results as `MaskDecoder.predict_masks`, which takes the prompts of one image only.

    Args:
        sam: The model; only its prompt encoder and mask decoder run.
        image_embeddings: [B, C, S/16, S/16].
        boxes: XYXY in the S frame, [N, 4], or None.
        points: (x, y) in the S frame, [N, K, 2], or None.
        labels: [N, K], 1 foreground, 0 background, -1 padding.
        mask_inputs: Logits of an earlier prediction, [N, S/4, S/4], or None.
        images: Which of the B images each prompt is for, int64 [N]; None where B is 1.
        masks: Which of the four masks to return; the work for the others is saved.

    Returns:
        Low-resolution logits [N, M, S/4, S/4] and predicted IoU [N, M]; M is 4 for all masks: first the single mask,
        then the three for ambiguous prompts.
    """
    encoder = sam.prompt_encoder
    rough = None if mask_inputs is None else mask_inputs.unsqueeze(1)
    # in bf16 a coordinate would be known to 2 of 1024 pixels only
    with torch.autocast(image_embeddings.device.type, enabled=False):
        sparse, dense = encoder(points=None if points is None else (points, labels), boxes=boxes, masks=rough)
    image_embeddings, fine = maps_of(sam, image_embeddings)
    if rough is None:  # the same for all prompts, so added before the embedding is repeated
        image_embeddings = image_embeddings + encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    tokens = _with_output_tokens(sam, sparse)
    if can_share(sam.mask_decoder, tokens):
        grid = image_embeddings.permute(0, 2, 3, 1).contiguous()
        added = None if rough is None else dense.permute(0, 2, 3, 1)
        logits, iou = _in_chunks(sam, grid, fine, tokens, images, added, masks)
    else:
        source = image_embeddings.expand(len(sparse), -1, -1, -1) if images is None else image_embeddings[images]
        if fine is not None and images is not None:
            fine = fine[images]
        logits, iou = masks_from_embeddings(sam, source if rough is None else source + dense, sparse, fine)
        logits, iou = logits[:, masks], iou[:, masks]
    return logits.float(), iou.float()


def maps_of(sam: Sam, image_embeddings: Tensor) -> tuple[Tensor, Tensor | None]:
    """An image embedding [B, C, h, w] as what the decoder attends to [B, D, h, w], and finer maps, first axis B.

    What these are says `finer` of the decoder. The first SAM has none: None.
    """
    dim = sam.mask_decoder.transformer_dim
    if image_embeddings.shape[1] == dim:
        return image_embeddings, None
    coarse = image_embeddings[:, :dim]
    return coarse, sam.mask_decoder.finer(coarse, image_embeddings[:, dim:])


def _in_chunks(
    sam: Sam,
    grid: Tensor,
    fine: Tensor | None,
    tokens: Tensor,
    images: Tensor | None,
    added: Tensor | None,
    masks: slice,
) -> tuple[Tensor, Tensor]:
    """Masks of tokens [N, T, C] on images [B, H, W, C], plus what is added to the image of each prompt."""
    finer = None if fine is None else prepared(sam.mask_decoder, fine)
    compute: Callable[..., tuple[Tensor, Tensor]] = COMPILED.get(sam, masks_of_tokens)
    positions = _positions(sam.prompt_encoder)
    at_once = max(1, PIXELS_AT_ONCE // (grid.shape[1] * grid.shape[2])) if grid.device.type == "cpu" else len(tokens)
    parts: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(tokens), at_once):
        rows = slice(first, first + at_once)
        pixels = grid if images is None else grid.index_select(0, images[rows])
        if added is not None:
            pixels = pixels + added[rows]
        own = finer
        if finer is not None and images is not None:
            own = tuple(maps.index_select(0, images[rows]) for maps in finer)
        parts.append(compute(sam.mask_decoder, pixels, positions, tokens[rows], masks, own))
    if len(parts) == 1:
        return parts[0]
    return torch.cat([logits for logits, _ in parts]), torch.cat([iou for _, iou in parts])


def masks_from_embeddings(
    sam: Sam, source: Tensor, sparse: Tensor, fine: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Masks from what the encoders made; every size is read off a tensor, so that tracing keeps N and K open.

    Args:
        sam: The model; only its mask decoder runs.
        source: Image embedding plus embedding of the mask prompt, for every prompt [N, C, S/16, S/16].
        sparse: Embeddings of points and boxes [N, K, C].
        fine: Finer maps, see `maps_of`, first axis 1 or N; None where the model has none.

    Returns:
        Low-resolution logits [N, 4, S/4, S/4] and predicted IoU [N, 4].
    """
    positions = sam.prompt_encoder.get_dense_pe().expand(sparse.shape[0], -1, -1, -1)
    return masks_of_pixels(sam.mask_decoder, source, positions, _with_output_tokens(sam, sparse), fine)


def _with_output_tokens(sam: Sam, sparse: Tensor) -> Tensor:
    """The decoder's own tokens, for predicted IoU and masks first, before those of the prompts [N, K, C]."""
    decoder = sam.mask_decoder
    if hasattr(decoder, "output_tokens"):  # SAM 2 and SAM-HQ have one more
        outputs = decoder.output_tokens()
    else:
        outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    return torch.cat([outputs.expand(sparse.shape[0], -1, -1), sparse], dim=1)


def _positions(encoder: PromptEncoder) -> Tensor:
    """Positions of the pixels of an embedding [H, W, C]; made once per model, unless they change at every call."""
    layer = encoder.pe_layer
    matrix: Tensor = layer.positional_encoding_gaussian_matrix
    if type(layer) is not PositionEmbeddingRandom or matrix.is_inference():
        return _made_positions(encoder)
    kept = _POSITIONS.get(encoder)
    if kept is None or kept[0] is not matrix or kept[1] != matrix._version:
        with torch.inference_mode(mode=False), torch.no_grad():  # also to be used where gradients are needed
            kept = (matrix, matrix._version, _made_positions(encoder))
        _POSITIONS[encoder] = kept
    return kept[2]


def _made_positions(encoder: PromptEncoder) -> Tensor:
    device = encoder.pe_layer.positional_encoding_gaussian_matrix.device
    with torch.autocast(device.type, enabled=False):
        positions: Tensor = encoder.get_dense_pe()[0].permute(1, 2, 0).contiguous()
    return positions


def device_of(sam: Sam) -> torch.device:
    """Where the model's weights are."""
    device: torch.device = next(sam.parameters()).device
    return device
