"""Where in an image encoder a method works: full names of the modules, whatever the family calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from lora_sam.methods.blocks import block_indices
from lora_sam.models.family import family_of

if TYPE_CHECKING:
    from lora_sam.methods.blocks import Blocks


def linears(encoder: nn.Module, blocks: Blocks, targets: Iterable[str]) -> Iterator[str]:
    """Names of the Linears of some blocks; targets are any of q, k, v, proj and mlp. Raises as `block_indices`."""
    family = family_of(encoder)
    pattern = re.compile(
        family.target_pattern(encoder, block_indices(blocks, len(family.blocks(encoder))), tuple(targets))
    )
    for name, _ in encoder.named_modules(prefix="image_encoder"):
        if pattern.fullmatch(name):
            yield name


def norms(encoder: nn.Module, blocks: Blocks) -> Iterator[str]:
    """Names of the LayerNorms of some blocks. Raises as `block_indices`."""
    family = family_of(encoder)
    indices = block_indices(blocks, len(family.blocks(encoder)))
    for name, module in encoder.named_modules():
        if isinstance(module, nn.LayerNorm) and family.block_of(encoder, f"{name}.weight") in indices:
            yield f"image_encoder.{name}"


def parts(encoder: nn.Module, blocks: Blocks, part: str) -> Iterator[str]:
    """Names of `attn` or `mlp` of some blocks. Raises as `block_indices`."""
    found = (name.rpartition(f".{part}.")[0] for name in linears(encoder, blocks, ("proj", "mlp")))
    for block in dict.fromkeys(found):
        if block:
            yield f"{block}.{part}"


def last_of_each(encoder: nn.Module, blocks: Blocks) -> Iterator[str]:
    """Names of the Linears that attention and MLP of some blocks end with. Raises as `block_indices`."""
    family = family_of(encoder)
    for name in linears(encoder, blocks, ("proj", "mlp")):
        if family.linear_of(f"{name}.weight") in ("proj", "lin2"):
            yield name
