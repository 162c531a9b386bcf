"""The family of SAMs with Hiera and a feature pyramid: SAM 2 and SAM 2.1 for images (Ravi et al., 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.core.frame import PIXEL_MEAN, PIXEL_STD
from lora_sam.models.family import Block, Linear, Tokens
from lora_sam.models.projections import fuse_state_dict, split_state_dict
from lora_sam.models.sam2_encoder import MultiScaleAttention, Sam2Encoder
from lora_sam.models.sam2_layouts import package_state
from lora_sam.models.squeezed import cannot_of_squeezed

_BLOCK = re.compile(r"trunk\.blocks\.(\d+)\.")
_LINEAR = re.compile(r"image_encoder\.trunk\.blocks\.\d+\.(?:attn|mlp\.layers)\.(\w+)\.")
_LINEARS: Mapping[str, Linear] = MappingProxyType(
    {"q": "q", "k": "k", "v": "v", "proj": "proj", "0": "lin1", "1": "lin2"}
)
_TARGETS = {"q": "attn.q", "k": "attn.k", "v": "attn.v", "proj": "attn.proj", "mlp": "mlp.layers.[01]"}


class Sam2Family:
    """See `lora_sam.models.family.Family`. Rows of `qkv` are contiguous thirds; blocks are those of all stages."""

    name = "sam2"
    transformers: str | None = "lora_sam.models.sam2_transformers"
    square = True
    colours = (PIXEL_MEAN, PIXEL_STD)
    cannot = cannot_of_squeezed("SAM 2", "pools its queries, so that prompt tokens have no place in them")

    def owns(self, encoder: nn.Module) -> bool:
        """See `Family`."""
        return isinstance(encoder, Sam2Encoder)

    def enter(self, encoder: Any, images: Tensor) -> Tokens:
        """See `Family`."""
        return cast("Tokens", encoder.enter(images))

    def blocks(self, encoder: Any) -> Sequence[Block]:
        """See `Family`."""
        return [partial(encoder.step, number) for number in range(len(encoder.trunk.blocks))]

    def leave(self, encoder: Any, tokens: Tokens) -> Tensor:
        """See `Family`."""
        return cast("Tensor", encoder.leave(tokens))

    def as_kept(self, tokens: Tokens) -> Tensor:
        """See `Family`: tokens and maps in one, what belongs to one token in its channels."""
        plain, *maps = tokens
        side = plain.shape[1]
        spread = [F.pixel_unshuffle(found, found.shape[-1] // side).permute(0, 2, 3, 1) for found in maps]
        return torch.cat([plain, *spread], dim=3)

    def as_made(self, encoder: Any, block: int, kept: Tensor) -> Tokens:
        """See `Family`."""
        side = kept.shape[1]
        sizes = [(channels * (wide // side) ** 2, wide // side) for channels, wide in encoder.maps_before(block)]
        plain, *spread = kept.split([kept.shape[3] - sum(size for size, _ in sizes), *(size for size, _ in sizes)], 3)
        maps = [
            F.pixel_shuffle(found.permute(0, 3, 1, 2), factor) for found, (_, factor) in zip(spread, sizes, strict=True)
        ]
        return (plain.contiguous(), *maps)

    def shape(self, encoder: Any, block: int | None) -> tuple[int, ...]:
        """See `Family`."""
        if block is None:
            return 4 * int(encoder.out_chans), encoder.img_size // 16, encoder.img_size // 16
        trunk = encoder.trunk
        stage = trunk.stage_of(block) - (block in trunk.firsts)
        side = encoder.img_size // (4 << stage)
        maps = sum(channels * (wide // side) ** 2 for channels, wide in encoder.maps_before(block))
        return side, side, (int(trunk.pos_embed.shape[1]) << stage) + maps

    def block_of(self, encoder: Any, parameter: str) -> int | None:
        """See `Family`; what a stage adds to the pyramid is part of the block that follows it."""
        match = _BLOCK.match(parameter)
        if match is not None:
            return int(match[1])
        depth, firsts = len(encoder.trunk.blocks), encoder.trunk.firsts
        if parameter.startswith("neck.convs."):
            return cast("int", (*firsts, depth)[3 - int(parameter.split(".")[2])])
        beside = {"conv_s0": firsts[0], "conv_s1": firsts[1], "no_mem_embed": depth}
        return beside.get(parameter.partition(".")[0])

    def linear_of(self, parameter: str) -> Linear | None:
        """See `Family`."""
        match = _LINEAR.search(parameter)
        return _LINEARS.get(match[1]) if match else None

    def target_pattern(self, encoder: nn.Module, blocks: Iterable[int], targets: Iterable[str]) -> str:
        """See `Family`."""
        numbers = "|".join(map(str, blocks))
        linears = "|".join(_TARGETS[target].replace(".", r"\.") for target in targets)
        return rf"image_encoder\.trunk\.blocks\.({numbers})\.({linears})"

    def modules(self, encoder: Any) -> Mapping[str, nn.Module]:
        """See `Family`."""
        return {f"image_encoder.trunk.blocks.{index}": block for index, block in enumerate(encoder.trunk.blocks)}

    def split(self, encoder: Any) -> None:
        """See `Family`."""
        self._replace(encoder, split=True)

    def fuse(self, encoder: Any) -> None:
        """See `Family`."""
        self._replace(encoder, split=False)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Family`: those of the package `sam2`."""
        return package_state(state)

    def _replace(self, encoder: Any, *, split: bool) -> None:
        change = split_state_dict if split else fuse_state_dict
        for block in encoder.trunk.blocks:
            old: MultiScaleAttention = block.attn
            weight = old.proj.weight
            inside = (old.qkv if split else old.q).in_features
            new = MultiScaleAttention(inside, old.proj.out_features, old.num_heads, pool=old.pool, split=split)
            new.load_state_dict(change(old.state_dict()))
            block.attn = new.to(weight.device, weight.dtype)
