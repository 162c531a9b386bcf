"""The family of SAMs with a rotary ViT and a pyramid: SAM 3 with clicks and boxes on images (Carion et al., 2025)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor, nn

from lora_sam.models.family import Block, Linear
from lora_sam.models.sam3 import GREY
from lora_sam.models.sam3_encoder import Sam3Encoder
from lora_sam.models.sam3_layouts import tracker_state
from lora_sam.models.squeezed import cannot_of_squeezed

_BLOCK = re.compile(r"backbone\.layers\.(\d+)\.")
_AFTER = ("neck.", "conv_s0.", "conv_s1.", "no_mem_embed")
_LINEAR = re.compile(r"image_encoder\.backbone\.layers\.\d+\.(?:attention|mlp)\.(\w+)\.")
_LINEARS: Mapping[str, Linear] = MappingProxyType(
    {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "proj", "fc1": "lin1", "fc2": "lin2"}
)
_TARGETS = {
    "q": "attention.q_proj",
    "k": "attention.k_proj",
    "v": "attention.v_proj",
    "proj": "attention.o_proj",
    "mlp": "mlp.fc[12]",
}


class Sam3Family:
    """See `lora_sam.models.family.Family`. Queries, keys and values have projections of their own."""

    name = "sam3"
    transformers: str | None = "lora_sam.models.sam3_transformers"
    square = True
    colours = (GREY, GREY)
    cannot = cannot_of_squeezed("SAM 3", "turns keys by their places, and prompt tokens have none")

    def owns(self, encoder: nn.Module) -> bool:
        """See `Family`."""
        return isinstance(encoder, Sam3Encoder)

    def enter(self, encoder: Any, images: Tensor) -> Tensor:
        """See `Family`."""
        return cast("Tensor", encoder.enter(images))

    def blocks(self, encoder: Any) -> Sequence[Block]:
        """See `Family`."""
        return tuple(encoder.backbone.layers)

    def leave(self, encoder: Any, tokens: Tensor) -> Tensor:
        """See `Family`."""
        return cast("Tensor", encoder.leave(tokens))

    def as_kept(self, tokens: Tensor) -> Tensor:
        """See `Family`: they are one tensor."""
        return tokens

    def as_made(self, encoder: nn.Module, block: int, kept: Tensor) -> Tensor:
        """See `Family`."""
        del encoder, block
        return kept

    def shape(self, encoder: Any, block: int | None) -> tuple[int, ...]:
        """See `Family`."""
        grid = int(encoder.img_size) // int(encoder.patch_size)
        if block is None:
            return 4 * int(encoder.out_chans), grid, grid
        return grid, grid, int(encoder.backbone.layer_norm.weight.shape[0])

    def block_of(self, encoder: Any, parameter: str) -> int | None:
        """See `Family`."""
        match = _BLOCK.match(parameter)
        if match is not None:
            return int(match[1])
        return len(encoder.backbone.layers) if parameter.startswith(_AFTER) else None

    def linear_of(self, parameter: str) -> Linear | None:
        """See `Family`."""
        match = _LINEAR.search(parameter)
        return _LINEARS.get(match[1]) if match else None

    def target_pattern(self, encoder: nn.Module, blocks: Iterable[int], targets: Iterable[str]) -> str:
        """See `Family`."""
        numbers = "|".join(map(str, blocks))
        linears = "|".join(_TARGETS[target].replace(".", r"\.") for target in targets)
        return rf"image_encoder\.backbone\.layers\.({numbers})\.({linears})"

    def modules(self, encoder: Any) -> Mapping[str, nn.Module]:
        """See `Family`."""
        return {f"image_encoder.backbone.layers.{index}": layer for index, layer in enumerate(encoder.backbone.layers)}

    def split(self, encoder: nn.Module) -> None:
        """See `Family`: they are apart already."""

    def fuse(self, encoder: nn.Module) -> None:
        """See `Family`: they stay apart, as `transformers` has them."""

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Family`: those of `transformers.Sam3TrackerModel`."""
        return tracker_state(state)
