"""SAM's image encoder in two stages: what comes before the first block that trains, and the rest."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_sam.models.family import family_of

_IN_BLOCKS = re.compile(r"(^|\.)(blocks|layers)\.\d")


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

    def shape(self, encoder: nn.Module) -> tuple[int, ...]:
        """Shape of what comes out for one image: the embedding [C, S/16, S/16], or tokens [side, side, C]."""
        return family_of(encoder).shape(encoder, self.block)

    def of(self, encoder: nn.Module, images: Tensor) -> Tensor:
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
        family = family_of(encoder)
        tokens = family.enter(encoder, images)
        for block in family.blocks(encoder)[: self.block]:
            tokens = block(tokens)
        return family.as_kept(tokens)

    def rest(self, encoder: nn.Module, values: Tensor, checkpointed: Collection[int] = ()) -> Tensor:
        """The image embeddings [B, C, S/16, S/16] from what came out of the stage, [B, ...].

        Args:
            encoder: SAM's image encoder.
            values: What `of` returned.
            checkpointed: Blocks whose activations are made again for the backward pass instead of kept (Chen et al.,
                2016).
        """
        if self.block is None:
            return values
        family = family_of(encoder)
        tokens = family.as_made(encoder, self.block, values)
        for number, block in enumerate(family.blocks(encoder)[self.block :], self.block):
            if number in checkpointed and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return family.leave(encoder, tokens)


def frozen_stage(encoder: nn.Module) -> Stage | None:
    """The stage that nothing trained comes into; None where that is not even one block."""
    family, first = family_of(encoder), None
    parameters = dict(encoder.named_parameters())
    # PEFT puts a layer that it adapts into `base_layer` of what takes its place
    adapted = tuple({f"{name.partition('base_layer.')[0]}" for name in parameters if "base_layer." in name})
    for name, parameter in parameters.items():
        of_adapter = (name.startswith(adapted) and "base_layer." not in name) or "modules_to_save." in name
        if not parameter.requires_grad and not of_adapter:  # a loaded adapter is frozen, but not the base's
            continue
        block = family.block_of(encoder, name)
        if block is None:
            return None
        first = block if first is None else min(first, block)
    return None if first == 0 else Stage(first)


def blocks_of(encoder: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """The block of each parameter of an image encoder, among names as in the model that PEFT has wrapped.

    What comes before the blocks has -1, what follows them their number.
    """
    family = family_of(encoder)
    depth, found = len(family.blocks(encoder)), {}
    for name in names:
        _, inside, parameter = name.partition("image_encoder.")
        if inside:
            parameter = parameter.removeprefix("modules_to_save.default.")
            block = family.block_of(encoder, parameter)
            # a neck may be counted to the blocks whose results it takes
            behind = block is not None and not _IN_BLOCKS.search(parameter)
            found[name] = depth if behind else -1 if block is None else block
    return found


def encode(encoder: nn.Module, images: Tensor, checkpointed: Collection[int] = ()) -> Tensor:
    """Image embeddings [B, C, S/16, S/16] of images [B, 3, S, S]; see `Stage.rest` for `checkpointed`."""
    if not checkpointed:
        embeddings: Tensor = encoder(images)
        return embeddings
    start = Stage(0)
    return start.rest(encoder, start.of(encoder, images), checkpointed)
