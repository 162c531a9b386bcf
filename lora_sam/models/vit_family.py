"""The family of SAMs with a plain ViT: vit_b, vit_l, vit_h, and smaller ones (Kirillov et al., 2023)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from lora_sam.core.frame import PIXEL_MEAN, PIXEL_STD
from lora_sam.models.family import Block, Linear
from lora_sam.models.projections import fused_attention, split_attention

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_LINEAR = re.compile(r"image_encoder\.blocks\.\d+\.(?:attn|mlp)\.(\w+)\.")
_TARGETS = {"q": "attn.q", "k": "attn.k", "v": "attn.v", "proj": "attn.proj", "mlp": "mlp.lin[12]"}


class ViTFamily:
    """See `lora_sam.models.family.Family`. Rows of `qkv` are contiguous thirds."""

    name = "vit"
    transformers: str | None = "lora_sam.models.vit_transformers"
    square = False
    colours = (PIXEL_MEAN, PIXEL_STD)
    cannot: Mapping[str, str] = MappingProxyType({})

    def owns(self, encoder: nn.Module) -> bool:
        """See `Family`."""
        return isinstance(encoder, ImageEncoderViT)

    def enter(self, encoder: Any, images: Tensor) -> Tensor:
        """See `Family`."""
        tokens: Tensor = encoder.patch_embed(images)
        return tokens if encoder.pos_embed is None else tokens + encoder.pos_embed

    def blocks(self, encoder: Any) -> Sequence[Block]:
        """See `Family`."""
        return tuple(encoder.blocks)

    def leave(self, encoder: Any, tokens: Tensor) -> Tensor:
        """See `Family`."""
        return cast("Tensor", encoder.neck(tokens.permute(0, 3, 1, 2)))

    def as_kept(self, tokens: Tensor) -> Tensor:
        """See `Family`: they are one tensor."""
        return tokens

    def as_made(self, encoder: nn.Module, block: int, kept: Tensor) -> Tensor:
        """See `Family`: as they come from a convolution, channel by channel."""
        return kept.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    def shape(self, encoder: Any, block: int | None) -> tuple[int, ...]:
        """See `Family`."""
        side = encoder.img_size // encoder.patch_embed.proj.stride[0]
        if block is None:
            return int(encoder.neck[0].out_channels), side, side
        return side, side, int(encoder.patch_embed.proj.out_channels)

    def block_of(self, encoder: Any, parameter: str) -> int | None:
        """See `Family`."""
        match = _BLOCK.match(parameter)
        if match is not None:
            return int(match[1])
        return len(encoder.blocks) if parameter.startswith("neck.") else None

    def linear_of(self, parameter: str) -> Linear | None:
        """See `Family`."""
        match = _LINEAR.search(parameter)
        return cast("Linear", match[1]) if match else None

    def target_pattern(self, encoder: nn.Module, blocks: Iterable[int], targets: Iterable[str]) -> str:
        """See `Family`."""
        numbers = "|".join(map(str, blocks))
        linears = "|".join(_TARGETS[target].replace(".", r"\.") for target in targets)
        return rf"image_encoder\.blocks\.({numbers})\.({linears})"

    def modules(self, encoder: Any) -> Mapping[str, nn.Module]:
        """See `Family`."""
        return {f"image_encoder.blocks.{index}": block for index, block in enumerate(encoder.blocks)}

    def split(self, encoder: Any) -> None:
        """See `Family`."""
        for block in encoder.blocks:
            block.attn = split_attention(block.attn)

    def fuse(self, encoder: Any) -> None:
        """See `Family`."""
        for block in encoder.blocks:
            block.attn = fused_attention(block.attn)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Family`: they have them."""
        return dict(state)
