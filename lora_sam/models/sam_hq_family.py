"""The families of SAM-HQ, with a plain ViT and with a TinyViT (Ke et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from lora_sam.models.family import Block, Tokens
from lora_sam.models.sam_hq_encoder import HQTinyViTEncoder, HQViTEncoder, packed
from lora_sam.models.tiny_vit_family import TinyViTFamily
from lora_sam.models.vit_family import ViTFamily


class _EarlyFeatures:
    """What both have beside the family of their image encoder: from the early block on its tokens go along."""

    def enter(self, encoder: nn.Module, images: Tensor) -> Tokens:
        """See `Family`."""
        return (super().enter(encoder, images),)  # type: ignore[misc]

    def blocks(self, encoder: Any) -> Sequence[Block]:
        """See `Family`."""
        plain: Sequence[Block] = super().blocks(encoder)  # type: ignore[misc]
        return [partial(_step, block, number == encoder.early_block) for number, block in enumerate(plain)]

    def leave(self, encoder: nn.Module, tokens: tuple[Tensor, ...]) -> Tensor:
        """See `Family`."""
        last, early = tokens
        return packed(super().leave(encoder, last), early)  # type: ignore[misc]

    def as_kept(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """See `Family`: both in one, channels behind each other."""
        return torch.cat(tokens, dim=3)

    def as_made(self, encoder: Any, block: int, kept: Tensor) -> Tokens:
        """See `Family`."""
        early = encoder.early_channels if block > encoder.early_block else 0
        plain, *beside = kept.split([kept.shape[3] - early, early] if early else kept.shape[3], dim=3)
        return (super().as_made(encoder, block, plain), *beside)  # type: ignore[misc]

    def shape(self, encoder: Any, block: int | None) -> tuple[int, ...]:
        """See `Family`."""
        first, second, third = super().shape(encoder, block)  # type: ignore[misc]
        if block is None:
            return first + encoder.early_channels, second, third
        return first, second, third + (encoder.early_channels if block > encoder.early_block else 0)


def _step(block: Block, early: bool, tokens: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    made = block(tokens[0])
    return (made, made) if early else (made, *tokens[1:])


class HQViTFamily(_EarlyFeatures, ViTFamily):  # type: ignore[misc]  # its tokens are tuples
    """See `lora_sam.models.family.Family`: as `ViTFamily`, with early features in the embedding."""

    name = "sam_hq"
    transformers: str | None = None
    cannot: Mapping[str, str] = MappingProxyType(
        {"transformers": "SamHQModel of transformers makes masks of an image that its attention has not changed"}
    )

    def owns(self, encoder: nn.Module) -> bool:
        """See `Family`."""
        return isinstance(encoder, HQViTEncoder)


class HQTinyViTFamily(_EarlyFeatures, TinyViTFamily):  # type: ignore[misc]  # its tokens are tuples
    """See `lora_sam.models.family.Family`: as `TinyViTFamily`, with early features in the embedding."""

    name = "sam_hq_tiny"
    cannot: Mapping[str, str] = MappingProxyType(
        {"transformers": "Hugging Face's transformers has no SAM-HQ with a TinyViT"}
    )

    def owns(self, encoder: nn.Module) -> bool:
        """See `Family`."""
        return isinstance(encoder, HQTinyViTEncoder)
