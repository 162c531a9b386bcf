"""SAM's image encoder in two stages: what comes before the first block that trains, and the rest."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT

_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Stage:
    """A place in the image encoder.

    Attributes:
        block: The stage ends before this block; the number of blocks for the neck; None for the end of the encoder.
    """

    block: int | None

    @property
    def name(self) -> str:
        """`embedding`, or `tokens-` and the number of the block whose input it is."""
        return "embedding" if self.block is None else f"tokens-{self.block}"

    def shape(self, encoder: ImageEncoderViT) -> tuple[int, ...]:
        """Shape of what comes out for one image: [C, S/16, S/16], or tokens [S/16, S/16, C]."""
        side = encoder.img_size // encoder.patch_embed.proj.stride[0]
        if self.block is None:
            return int(encoder.neck[0].out_channels), side, side
        return side, side, int(encoder.patch_embed.proj.out_channels)

    def of(self, encoder: ImageEncoderViT, images: Tensor) -> Tensor:
        """What comes out of the stage.

        Args:
            encoder: SAM's image encoder.
            images: [B, 3, S, S], pre-processed.

        Returns:
            [B, ...], see `shape`.
        """
        if self.block is None:
            embedding: Tensor = encoder(images)
            return embedding
        tokens = encoder.patch_embed(images)
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for block in encoder.blocks[: self.block]:
            tokens = block(tokens)
        return tokens  # type: ignore[no-any-return]

    def rest(self, encoder: ImageEncoderViT, values: Tensor, checkpointed: Collection[int] = ()) -> Tensor:
        """The image embeddings [B, C, S/16, S/16] from what came out of the stage, [B, ...].

        Args:
            encoder: SAM's image encoder.
            values: What `of` returned.
            checkpointed: Blocks whose activations are made again for the backward pass instead of kept (Chen et al.,
                2016).
        """
        if self.block is None:
            return values
        # in memory as the encoder has them behind its convolution, channel by channel: so sums round as they do there
        tokens = values.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        for number, block in enumerate(encoder.blocks[self.block :], self.block):
            if number in checkpointed and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        embedding: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
        return embedding


def frozen_stage(encoder: ImageEncoderViT) -> Stage | None:
    """The stage that nothing trained comes into; None where that is not even one block."""
    first: int | None = None
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad and "lora_" not in name:  # a loaded adapter is frozen, but not the base's
            continue
        match = _BLOCK.match(name)
        if match is None and not name.startswith("neck."):
            return None
        block = int(match[1]) if match else len(encoder.blocks)
        first = block if first is None else min(first, block)
    return None if first == 0 else Stage(first)


def encode(encoder: ImageEncoderViT, images: Tensor, checkpointed: Collection[int] = ()) -> Tensor:
    """Image embeddings [B, C, S/16, S/16] of images [B, 3, S, S]; see `Stage.rest` for `checkpointed`."""
    if not checkpointed:
        embeddings: Tensor = encoder(images)
        return embeddings
    start = Stage(0)
    return start.rest(encoder, start.of(encoder, images), checkpointed)
