"""The family of SAMs with a TinyViT: MobileSAM (Zhang et al., 2023)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor, nn

from lora_sam.core.frame import PIXEL_MEAN, PIXEL_STD
from lora_sam.models.family import Block, Linear
from lora_sam.models.projections import fuse_state_dict, split_state_dict
from lora_sam.models.tiny_vit_encoder import TinyViTEncoder, WindowAttention

_BLOCK = re.compile(r"layers\.([1-9]\d*)\.(?:blocks\.(\d+)|downsample)\.")
_LINEAR = re.compile(r"image_encoder\.layers\.\d+\.blocks\.\d+\.(?:attn|mlp)\.(\w+)\.")
_LINEARS: Mapping[str, Linear] = MappingProxyType(
    {"q": "q", "k": "k", "v": "v", "proj": "proj", "fc1": "lin1", "fc2": "lin2"}
)
# Linears only: the depthwise convolutions have a kernel for each channel and no rank to lower
_TARGETS = {"q": "attn.q", "k": "attn.k", "v": "attn.v", "proj": "attn.proj", "mlp": "mlp.fc[12]"}


class TinyViTFamily:
    """See `lora_sam.models.family.Family`. Rows of `qkv` are thirds of each head; blocks are those with attention."""

    name = "tiny_vit"
    transformers: str | None = None
    square = False
    colours = (PIXEL_MEAN, PIXEL_STD)
    cannot: Mapping[str, str] = MappingProxyType(
        {"transformers": "Hugging Face's transformers has no SAM with a TinyViT"}
    )

    def owns(self, encoder: nn.Module) -> bool:
        """See `Family`."""
        return isinstance(encoder, TinyViTEncoder)

    def enter(self, encoder: Any, images: Tensor) -> Tensor:
        """See `Family`."""
        return cast("Tensor", encoder.enter(images))

    def blocks(self, encoder: Any) -> Sequence[Block]:
        """See `Family`."""
        return [partial(encoder.step, index) for index, _ in enumerate(encoder.places())]

    def leave(self, encoder: Any, tokens: Tensor) -> Tensor:
        """See `Family`."""
        return cast("Tensor", encoder.leave(tokens))

    def as_kept(self, tokens: Tensor) -> Tensor:
        """See `Family`: they are one tensor."""
        return tokens

    def as_made(self, encoder: nn.Module, block: int, kept: Tensor) -> Tensor:
        """See `Family`: every block returns its tokens one after the other."""
        return kept.contiguous()

    def shape(self, encoder: Any, block: int | None) -> tuple[int, ...]:
        """See `Family`."""
        side = encoder.img_size // 16
        if block is None:
            return int(encoder.neck[0].out_channels), side, side
        places = list(encoder.places())
        stage = places[block][0] if block < len(places) else len(encoder.layers) - 1
        side *= 2 if stage == 1 else 1
        return side, side, int(encoder.layers[stage].blocks[0].attn.proj.in_features)

    def block_of(self, encoder: Any, parameter: str) -> int | None:
        """See `Family`; the step to the next stage is part of the last block before it."""
        places = list(encoder.places())
        match = _BLOCK.match(parameter)
        if match is None:
            return len(places) if parameter.startswith("neck.") else None
        stage = int(match[1])
        return places.index((stage, int(match[2]) if match[2] else len(encoder.layers[stage].blocks) - 1))

    def linear_of(self, parameter: str) -> Linear | None:
        """See `Family`."""
        match = _LINEAR.search(parameter)
        return _LINEARS.get(match[1]) if match else None

    def target_pattern(self, encoder: Any, blocks: Iterable[int], targets: Iterable[str]) -> str:
        """See `Family`."""
        places = list(encoder.places())
        names = "|".join(rf"{stage}\.blocks\.{block}" for stage, block in (places[number] for number in blocks))
        linears = "|".join(_TARGETS[target].replace(".", r"\.") for target in targets)
        return rf"image_encoder\.layers\.({names})\.({linears})"

    def modules(self, encoder: Any) -> Mapping[str, nn.Module]:
        """See `Family`."""
        return {
            f"image_encoder.layers.{stage}.blocks.{block}": encoder.layers[stage].blocks[block]
            for stage, block in encoder.places()
        }

    def split(self, encoder: Any) -> None:
        """See `Family`."""
        self._replace(encoder, split=True)

    def fuse(self, encoder: Any) -> None:
        """See `Family`."""
        self._replace(encoder, split=False)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Family`: they have them."""
        return dict(state)

    def _replace(self, encoder: Any, *, split: bool) -> None:
        change = split_state_dict if split else fuse_state_dict
        for stage, number in encoder.places():
            block = encoder.layers[stage].blocks[number]
            old: WindowAttention = block.attn
            weight = old.proj.weight
            new = WindowAttention(old.proj.in_features, old.num_heads, old.window, split=split)
            new.load_state_dict(change(old.state_dict()))
            block.attn = new.to(weight.device, weight.dtype)
