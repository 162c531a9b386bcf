"""Which blocks of the image encoder a method is about: `all`, `first:n`, `last:n`, or a list of indices."""

from __future__ import annotations

import re

from lora_sam.core.errors import ConfigError

_RANGE = re.compile(r"(first|last):([1-9]\d*)")
Blocks = str | tuple[int, ...]


def check_blocks(blocks: Blocks) -> None:
    """Raise `ConfigError` if `blocks` is not one of its forms."""
    if isinstance(blocks, str) and blocks != "all" and not _RANGE.fullmatch(blocks):
        raise ConfigError(
            f"method.blocks = {blocks}: must be all, first:n, last:n, or a list of block indices like [3,4,5]"
        )
    if not isinstance(blocks, str) and not blocks:
        raise ConfigError("method.blocks = []: name at least one block, or use method=decoder")


def block_indices(blocks: Blocks, depth: int) -> tuple[int, ...]:
    """Indices of the named blocks of an image encoder with `depth` blocks.

    Raises:
        ConfigError: `blocks` names blocks that are not there.
    """
    check_blocks(blocks)
    if blocks == "all":
        return tuple(range(depth))
    if isinstance(blocks, str):
        match = _RANGE.fullmatch(blocks)
        assert match is not None
        count = int(match[2])
        if count > depth:
            raise ConfigError(f"method.blocks = {blocks}: the image encoder has only {depth} blocks")
        return tuple(range(count)) if match[1] == "first" else tuple(range(depth - count, depth))
    outside = [block for block in blocks if block >= depth]
    if outside:
        raise ConfigError(f"method.blocks = {list(blocks)}: the image encoder's blocks are numbered 0 to {depth - 1}")
    return tuple(sorted(set(blocks)))


class OfBlocks:
    """A method that is about some blocks of the image encoder."""

    blocks: Blocks

    def check(self) -> None:
        """Raise `ConfigError` if `blocks` is not one of its forms."""
        check_blocks(self.blocks)

    def check_depth(self, depth: int) -> None:
        """Raise `ConfigError` where `blocks` names blocks that an encoder of `depth` blocks does not have."""
        block_indices(self.blocks, depth)
