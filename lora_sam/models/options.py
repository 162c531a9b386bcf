"""The options that every family of SAM has: where its weights come from, and the sizes of prompts and mask decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError

KEPT_BY_NECK = (2.8, 3.0)
"""Of the first SAM's image encoder, see `lora_sam.models.family.SamModel`."""


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Weights of a SAM, and what all families are built with beside their image encoder.

    Attributes:
        prompt_embed_dim: Channels of image and prompt embeddings, a multiple of 8.
        decoder_mlp_dim: Hidden channels of the mask decoder's transformer.
        prompt_frequency: Standard deviation of the random spatial frequencies that encode positions in the prompt
            encoder (Tancik et al., 2020); only random weights are drawn with it, a checkpoint brings its own.
        weights: `pretrained`, or `random` (drawn with `weights_seed`; for tests and benchmarks).
        weights_seed: Seed of random weights.
        offline: Never download.
        url: Where weights are published, https; null where they are not. The end of it is the name of the file.
        size: Of that file in bytes.
        sha256: Of that file, 64 hexadecimal digits.
    """

    prompt_embed_dim: Annotated[int, Field(ge=32, le=2048, multiple_of=8)]
    decoder_mlp_dim: Annotated[int, Field(ge=1, le=16384)]
    prompt_frequency: Annotated[float, Field(gt=0, le=100)]
    weights: Literal["pretrained", "random"]
    weights_seed: Annotated[int, Field(ge=0, lt=2**63)]
    offline: bool
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+/[A-Za-z0-9_.-]+\.(pth|pt|safetensors)$")] | None
    size: Annotated[int, Field(ge=1)] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None

    @property
    def kept_by_neck(self) -> tuple[float, float]:
        """See `lora_sam.models.family.SamModel`."""
        return KEPT_BY_NECK


def check_encoder(embed_dim: int, num_heads: int, global_attention: tuple[int, ...], depth: int) -> None:
    """Raise `ConfigError` where heads do not share the channels, or a block with global attention is not there."""
    if embed_dim % num_heads:
        raise ConfigError(f"model.embed_dim = {embed_dim}: must be a multiple of model.num_heads = {num_heads}")
    if any(block >= depth for block in global_attention):
        raise ConfigError(f"model.global_attention = {list(global_attention)}: blocks are numbered 0 to {depth - 1}")
