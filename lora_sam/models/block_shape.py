"""The shape of a transformer block, which its cost follows from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockShape:
    """The shape of a transformer block, as far as time and memory depend on it.

    Attributes:
        side: Tokens along a side of the image.
        channels: Channels of a token.
        heads: Attention heads.
        window: Side of what a token attends to, in tokens.
        hidden: Channels inside the MLP.
        relative: Whether positions are computed from the queries (Li et al., MViTv2) and not looked up.
        convolutions: Maps of the size of the tokens that convolutions beside attention and MLP keep.
        then: Side and channels of what the next block gets.
        lean_mlp: Whether a frozen MLP keeps nothing but its input; see `lora_sam.models.lean`.
        lean_attention: Whether attention keeps nothing but its input.
        narrow: Whether tokens are in the arithmetic of the step, and not fp32.
    """

    side: int
    channels: int
    heads: int
    window: int
    hidden: int
    relative: bool
    convolutions: int
    then: tuple[int, int]
    lean_mlp: bool
    lean_attention: bool
    narrow: bool

    @property
    def tokens(self) -> int:
        """Of an image."""
        return self.side**2

    @property
    def stepping(self) -> int:
        """Numbers that the step to the next stage keeps of an image: three convolutions, each normalised."""
        side, channels = self.then
        return 0 if self.then == (self.side, self.channels) else channels * (3 * self.tokens + 4 * side**2)

    @property
    def attending(self) -> int:
        """Tokens of an image that attend: windows are filled up with zeros."""
        return (-(-self.side // self.window) * self.window) ** 2
