"""SAM's mask decoder with the work of its attention on the few tokens instead of the many pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder
    from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock

MOST_TOKENS = 16
"""Tokens of a prompt, output tokens included, up to which moving the projections saves products."""


def can_share(decoder: MaskDecoder, tokens: Tensor) -> bool:
    """Whether `masks_of_tokens` computes these tokens faster than the decoder itself, and the same.

    With many clicks the projections of the pixels are the smaller products; dropout in adapters is to draw for every
    pixel.
    """
    dropout = any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in decoder.modules())
    return len(tokens) > 0 and tokens.shape[1] <= MOST_TOKENS and not dropout


def prepared(decoder: MaskDecoder, fine: Tensor) -> tuple[Tensor, ...]:
    """The finer maps of images as `masks_of_tokens` uses them, first axis that of the images."""
    return (fine,) if hasattr(decoder, "refined") else by_pixel(fine)


def by_pixel(fine: Tensor) -> tuple[Tensor, Tensor]:
    """The finer maps of an image (`lora_sam.models.sam2_encoder.Sam2Encoder`) as `masks_of_tokens` adds them.

    Args:
        fine: Both in one, [B, 3C, H, W].

    Returns:
        [B, H * W, 4, C/4] and [B, H * W * 4, C/2]: of each pixel the 2 x 2 inside it, and of each of these its 2 x 2.
    """
    dim = fine.shape[1] // 3
    finer = fine[:, :dim].unflatten(1, (-1, 4)).permute(0, 3, 4, 2, 1)
    # channel, then rows and columns from coarse to fine, each as the two enlargements have them
    finest = fine[:, dim:].unflatten(1, (-1, 2, 2, 2, 2)).permute(0, 6, 7, 2, 4, 3, 5, 1)
    return finer.flatten(1, 2).contiguous(), finest.flatten(1, 4).flatten(2).contiguous()


def masks_of_tokens(
    decoder: MaskDecoder,
    pixels: Tensor,
    positions: Tensor,
    tokens: Tensor,
    masks: slice,
    fine: tuple[Tensor, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """What `MaskDecoder.predict_masks` computes, without projecting the pixels in its attention.

    A projection of thousands of pixels that only meets a handful of tokens is moved to these by associativity: with
    `k = W x`, `q . k = (W' q) . x`, and `P v = (P x) W` for the values. Each product with all pixels is then one of
    (tokens x heads) by C instead of C by C/2, nothing else of the pixels' size is stored for it, and prompts of one
    image share its pixels up to the first sum with what each wrote to them. The layers are affine, so results and
    gradients differ by rounding only.

    Args:
        decoder: The mask decoder; adapters in it are run.
        pixels: Image embedding plus embedding of the mask prompt, or of none, [1 or N, H, W, C].
        positions: Positions of the pixels, [H, W, C].
        tokens: Output tokens and embeddings of points and boxes, [N, T, C].
        masks: Which of the masks to compute.
        fine: What `prepared` makes of the finer maps of the images, first axis 1 or N; None without.

    Returns:
        Low-resolution logits [N, M, 4H, 4W], predicted IoU [N, M].
    """
    transformer = decoder.transformer
    queries, keys = tokens, pixels.flatten(1, 2)
    places = positions.flatten(0, 1)
    for layer in transformer.layers:
        queries, keys = _layer(layer, queries, keys, tokens, places)
    seen = _tokens_to_pixels(transformer.final_attn_token_to_image, queries + tokens, keys + places, keys)
    queries = transformer.norm_final_attn(queries + seen)
    # of all masks, so that those not asked for get gradients of zero, not none: an optimiser tells them apart
    weights = [mlp(queries[:, 1 + mask]) for mask, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    added = None if hasattr(decoder, "refined") else fine
    x = _enlarged(decoder, keys.unflatten(1, pixels.shape[1:3]), added)
    chosen = torch.stack(weights, dim=1)[:, masks]
    logits = _as_maps(torch.bmm(x, chosen.transpose(1, 2).to(x.dtype)), pixels.shape[1], pixels.shape[2])
    if added is not fine:
        assert fine is not None, "an embedding without the features of an early block"
        refined = cast("Any", decoder).refined
        logits = logits + refined(_as_maps(x, pixels.shape[1], pixels.shape[2]), queries, *fine)
    return logits, decoder.iou_prediction_head(queries[:, 0])[:, masks]


def masks_of_pixels(
    decoder: Any, source: Tensor, positions: Tensor, tokens: Tensor, fine: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `MaskDecoder.predict_masks` computes, in the way of the published packages, for decoders of every family.

    Args:
        decoder: The mask decoder. One with `enlarged` adds finer maps while it enlarges (SAM 2), one with `refined`
            adds logits to those of every mask (SAM-HQ).
        source: Image embedding plus embedding of the mask prompt, [N, C, H, W].
        positions: Positions of the pixels, [N, C, H, W].
        tokens: Output tokens and embeddings of points and boxes, [N, T, C].
        fine: Finer maps as the decoder wants them, first axis 1 or N; None without.

    Returns:
        Low-resolution logits [N, 4, 4H, 4W], predicted IoU [N, 4].
    """
    queries, keys = decoder.transformer(source, positions, tokens)
    pixels = keys.transpose(1, 2).reshape(source.shape)
    upscaled = decoder.enlarged(pixels, fine) if hasattr(decoder, "enlarged") else decoder.output_upscaling(pixels)
    weights = torch.stack([mlp(queries[:, 1 + mask]) for mask, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
    logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
    if hasattr(decoder, "refined"):
        logits = logits + decoder.refined(upscaled, queries, fine)
    return logits, decoder.iou_prediction_head(queries[:, 0])


def _layer(
    layer: TwoWayAttentionBlock, queries: Tensor, keys: Tensor, tokens: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """`TwoWayAttentionBlock.forward`; `keys` [N or 1, L, C] come back as [N, L, C]."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        q = queries + tokens
        queries = queries + layer.self_attn(q=q, k=q, v=queries)
    queries = layer.norm1(queries)
    placed = keys + positions
    attention = layer.cross_attn_token_to_image
    queries = layer.norm2(queries + _tokens_to_pixels(attention, queries + tokens, placed, keys))
    queries = layer.norm3(queries + layer.mlp(queries))
    keys = _pixels_to_tokens(layer.cross_attn_image_to_token, keys, placed, queries + tokens, queries)
    return queries, layer.norm4(keys)


def _tokens_to_pixels(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`Attention.forward` of T queries [N, T, C] to L keys and values [N or 1, L, C]."""
    heads, count = attention.num_heads, q.shape[1]
    matrix, offset = affine(attention.k_proj)
    projected = attention.q_proj(q) * (attention.internal_dim // heads) ** -0.5
    logits = _products(_moved(projected, matrix, heads), k, _offsets(projected, offset, heads))
    seen = _sums(torch.softmax(logits, dim=-1), v)  # [N, heads * T, C]
    matrix, offset = affine(attention.v_proj)
    by_head = seen.unflatten(1, (heads, count)).transpose(0, 1).flatten(1, 2)  # [heads, N * T, C]
    values = _exactly(by_head, matrix.unflatten(1, (heads, -1)).transpose(0, 1))
    values = values.unflatten(1, (-1, count)).permute(1, 2, 0, 3).flatten(2)
    return cast("Tensor", attention.out_proj(values + offset))


def _pixels_to_tokens(attention: Attention, residual: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`residual` plus `Attention.forward` of L queries [N or 1, L, C] to T keys and values [N, T, C]."""
    heads, count = attention.num_heads, k.shape[1]
    matrix, offset = affine(attention.q_proj)
    projected = attention.k_proj(k) * (attention.internal_dim // heads) ** -0.5
    logits = _products(_moved(projected, matrix, heads), q, _offsets(projected, offset, heads))
    shares = torch.softmax(logits.unflatten(1, (heads, count)), dim=2).flatten(1, 2)
    matrix, offset = affine(attention.out_proj)
    # the shares of a head add up to one, so each head may bring its part of the offset
    values = _moved(attention.v_proj(v), matrix.T, heads) + offset / heads
    if residual.dtype == values.dtype and not torch.is_autocast_enabled(residual.device.type):
        return torch.baddbmm(residual, shares.transpose(1, 2), values)
    return residual + torch.bmm(shares.transpose(1, 2), values)


def affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Matrix [in, out] and offset [out] of an affine layer, also of one that adapters have changed."""
    if type(layer) is nn.Linear and layer.bias is not None:
        return layer.weight.T, layer.bias
    # what is inside stays exact, so that an adapter that adds nothing changes no bit
    inner = layer.base_layer
    assert isinstance(inner, nn.Linear), f"expected an adapter around a Linear, found {type(inner).__name__}"
    unit = torch.eye(inner.in_features, device=inner.weight.device)
    with torch.autocast(unit.device.type, enabled=False):
        moved = layer(torch.zeros_like(unit[:1])) - inner(torch.zeros_like(unit[:1]))
        matrix = inner.weight.T + (layer(unit) - inner(unit) - moved)
    return matrix, inner.bias + moved[0]


def _moved(tokens: Tensor, matrix: Tensor, heads: int) -> Tensor:
    """Tokens [N, T, heads * c] times the part of `matrix` [C, heads * c] of each head: [N, heads * T, C]."""
    count = tokens.shape[1]
    by_head = tokens.unflatten(2, (heads, -1)).permute(2, 0, 1, 3).flatten(1, 2)
    moved = _exactly(by_head, matrix.unflatten(1, (heads, -1)).permute(1, 2, 0))
    return moved.view(heads, -1, count, moved.shape[2]).transpose(0, 1).flatten(1, 2)


def _exactly(a: Tensor, b: Tensor) -> Tensor:
    """Their product in the type of the weights `b`: rounding these to bf16 would lose what a small adapter adds."""
    with torch.autocast(a.device.type, enabled=False):
        return torch.bmm(a.to(b.dtype), b)


def _offsets(tokens: Tensor, offset: Tensor, heads: int) -> Tensor:
    """Products of tokens [N, T, heads * c] with the part of `offset` of each head: [N, heads * T, 1]."""
    products = (tokens * offset).view(*tokens.shape[:2], heads, -1).sum(-1)
    return products.transpose(1, 2).flatten(1).unsqueeze(2)


def _products(a: Tensor, pixels: Tensor, offsets: Tensor) -> Tensor:
    """a [N, R, C] times pixels [N or 1, L, C] plus offsets [N, R, 1]: [N, R, L]."""
    if len(pixels) == 1 < len(a):  # one product with the pixels that all prompts share
        return torch.addmm(offsets.flatten(0, 1).to(a.dtype), a.flatten(0, 1), pixels[0].T).view(*a.shape[:2], -1)
    return torch.baddbmm(offsets.to(a.dtype), a, pixels.transpose(1, 2))


def _sums(shares: Tensor, pixels: Tensor) -> Tensor:
    """shares [N, R, L] times pixels [N or 1, L, C]: [N, R, C]."""
    if len(pixels) == 1 < len(shares):
        return (shares.flatten(0, 1) @ pixels[0]).view(*shares.shape[:2], -1)
    return torch.bmm(shares, pixels)


def _enlarged(decoder: MaskDecoder, pixels: Tensor, fine: tuple[Tensor, ...] | None) -> Tensor:
    """Pixels [N, H, W, C] enlarged by `output_upscaling`, [N, H * W * 16, C / 8]: see `_as_maps` for their order."""
    first, norm, activation, second, last_activation = decoder.output_upscaling
    batch, height, width = pixels.shape[:3]
    # with strides as large as the kernel each pixel becomes 2 x 2 on its own: a product, channels kept last
    x = F.linear(pixels.flatten(0, 2), _as_matrix(first), first.bias.repeat(4)).unflatten(1, (4, -1))
    if fine is not None:
        x = (x.unflatten(0, (batch, -1)) + fine[0]).flatten(0, 1)
    x = activation(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)).flatten(0, 1)
    x = F.linear(x, _as_matrix(second), second.bias.repeat(4))
    if fine is not None:
        x = (x.unflatten(0, (batch, -1)) + fine[1]).flatten(0, 1)
    return cast("Tensor", last_activation(x).view(batch, 16 * height * width, -1))


def _as_maps(x: Tensor, height: int, width: int) -> Tensor:
    """[N, H * W * 16, M] as [N, M, 4H, 4W].

    Their order is that of the pixel's row and column, of the place within its 2 x 2, and within those 2 x 2.
    """
    maps = x.view(len(x), height, width, 2, 2, 2, 2, -1).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return maps.reshape(len(x), -1, 4 * height, 4 * width)


def _as_matrix(layer: nn.ConvTranspose2d) -> Tensor:
    """Weights [C, c, 2, 2] as [4 * c, C]."""
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
