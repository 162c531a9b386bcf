"""Hiera with its feature pyramid as an image encoder of SAM: the architecture of SAM 2, with the names of its weights.

Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", 2023; Bolya et al., "Window
Attention is Bug Free: How to Pretrain and Finetune at High Resolution", 2023 (positions); Ravi et al., "SAM 2", 2024,
appendix D.1 (the pyramid, and that the decoder gets two finer maps). Computed is what the published weights were
trained with; written anew here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.models.lean import by_bands, plus_mlp, remade

State: TypeAlias = tuple[Tensor, ...]
"""What a block gets: tokens [B, side, side, C], then the maps [B, c, h, w] that earlier stages left for the pyramid."""

STRIDE = 4
"""Pixels of a token of the first stage, along a side; each further stage doubles it."""

EXPANSION = 4
"""Channels inside an MLP, by those outside."""


class PatchEmbed(nn.Module):
    """Images [B, 3, S, S] to tokens [B, S/4, S/4, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, STRIDE, 3)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        tokens: Tensor = self.proj(images).permute(0, 2, 3, 1)
        return tokens


class MultiScaleAttention(nn.Module):
    """Attention within a window, whose queries may be pooled 2 x 2; `qkv`, or `q`, `k`, `v` apart.

    Rows of `qkv` are contiguous thirds, of as many channels as come out.
    """

    def __init__(self, inside: int, outside: int, heads: int, *, pool: bool, split: bool = False) -> None:
        super().__init__()
        self.num_heads, self.pool = heads, pool
        if split:
            self.q, self.k, self.v = (nn.Linear(inside, outside) for _ in range(3))
        else:
            self.qkv = nn.Linear(inside, 3 * outside)
        self.proj = nn.Linear(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """Windows [B, h, w, C] to [B, h, w, C'], or [B, h/2, w/2, C'] with pooling."""
        q, k, v = (self.q(x), self.k(x), self.v(x)) if hasattr(self, "q") else self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = pooled(q)
        by_head = [part.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v)]
        seen = F.scaled_dot_product_attention(*by_head)
        attended: Tensor = self.proj(seen.transpose(1, 2).flatten(2).unflatten(1, q.shape[1:3]))
        return attended


class MLP(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(channels, EXPANSION * channels), nn.Linear(EXPANSION * channels, channels)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same."""
        y: Tensor = self.layers[1](F.gelu(self.layers[0](x)))
        return y

    def linears(self) -> tuple[nn.Module, nn.Module]:
        """Both layers, see `lora_sam.models.lean.plus_mlp`."""
        return self.layers[0], self.layers[1]


class MultiScaleBlock(nn.Module):
    """Attention and MLP, [B, side, side, C] to the same; the first block of a stage halves sides and widens channels.

    Args:
        inside: Channels that come in.
        outside: Channels that come out.
        heads: Attention heads.
        window: Side of a window in tokens that come in; 0 for all of them.
        pool: Whether queries are pooled 2 x 2.
    """

    def __init__(self, inside: int, outside: int, heads: int, window: int, *, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(inside, eps=1e-6)
        self.attn = MultiScaleAttention(inside, outside, heads, pool=pool)
        self.norm2 = nn.LayerNorm(outside, eps=1e-6)
        self.mlp = MLP(outside)
        if inside != outside:
            self.proj = nn.Linear(inside, outside)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        # within windows attention takes little time, so it is made again for the backward pass
        again = self.window > 0 and (tokens.requires_grad or any(each.requires_grad for each in self.parameters()))
        attended = by_bands(self._attended, tokens, self.window) if again else self._attended(tokens)
        return plus_mlp(attended, self.norm2, self.mlp)

    def _attended(self, tokens: Tensor) -> Tensor:
        """What the MLP gets, of all tokens or of whole rows of windows."""
        x: Tensor = self.norm1(tokens)
        shortcut = tokens
        if hasattr(self, "proj"):
            shortcut = pooled(self.proj(x)) if self.pool else self.proj(x)
        windowed = self.window > 0
        attended: Tensor = self.attn(partitioned(x, self.window) if windowed else x)
        if windowed:
            attended = joined(attended, shortcut.shape[1], shortcut.shape[2])
        return shortcut + attended


class Trunk(nn.Module):
    """Hiera: four stages, each but the first beginning with a pooled block.

    Args:
        embed_dim: Channels of the first stage; each further stage has twice as many.
        heads: Attention heads of the first stage; each further stage has twice as many.
        stages: Blocks of the four stages.
        global_attention: Blocks that attend to the whole image.
        windows: Side of a window of each stage, in tokens; a pooled block has that of the stage before.
        background: Side of the table of positions that is enlarged to the image; one more is repeated in each window.
    """

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        stages: Sequence[int],
        global_attention: Sequence[int],
        windows: Sequence[int],
        background: int,
    ) -> None:
        super().__init__()
        self.firsts = tuple(accumulate(stages[:-1]))
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, background, background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, embed_dim, windows[0], windows[0]))
        blocks = []
        for number in range(sum(stages)):
            stage, pool = self.stage_of(number), number in self.firsts
            outside, before = embed_dim << stage, stage - pool
            window = 0 if number in global_attention else windows[before]
            blocks.append(MultiScaleBlock(embed_dim << before, outside, heads << stage, window, pool=pool))
        self.blocks = nn.ModuleList(blocks)

    def stage_of(self, block: int) -> int:
        """Number of the stage that a block is part of."""
        return sum(first <= block for first in self.firsts)

    def enter(self, images: Tensor) -> Tensor:
        """What the first block gets, [B, S/4, S/4, C]."""
        tokens: Tensor = self.patch_embed(images)
        height, width = tokens.shape[1:3]
        window = self.pos_embed_window
        whole = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        positions = whole + window.tile(1, 1, height // window.shape[2], width // window.shape[3])
        # laid out as tokens that were kept: with several threads the pyramid computes in another order otherwise
        return (tokens + positions.permute(0, 2, 3, 1)).contiguous()


class Lateral(nn.Module):
    """From the tokens of a stage to the channels of the pyramid."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, h, w, C] to [B, D, h, w]."""
        mapped: Tensor = self.conv(tokens.permute(0, 3, 1, 2))
        return mapped


class Neck(nn.Module):
    """The pyramid's convolutions, that of the last stage first."""

    def __init__(self, channels: Sequence[int], outside: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([Lateral(inside, outside) for inside in reversed(channels)])

    def of_stage(self, stage: int) -> nn.Module:
        """The convolution of the tokens of a stage."""
        return self.convs[len(self.convs) - 1 - stage]


class Sam2Encoder(nn.Module):
    """Images [B, 3, S, S] to embeddings [B, 4D, S/16, S/16]: three maps in one, without loss.

    The first D channels are the map that the decoder's attention sees. D more are the map [D/4, S/8, S/8] and 2D the
    map [D/8, S/4, S/4] that it adds while it enlarges: what belongs to one place of the embedding lies in its channels
    (`torch.nn.functional.pixel_unshuffle`).

    `conv_s0` and `conv_s1`, which make the two finer maps, are the decoder's in the published weights. They run once
    for an image, so they are part of the encoder here: the decoder trains without them, and its input can be kept.

    Args:
        image_size: Side S.
        trunk: Hiera.
        channels: Channels of its stages.
        out_chans: D.
    """

    def __init__(self, image_size: int, trunk: Trunk, channels: Sequence[int], out_chans: int) -> None:
        super().__init__()
        self.img_size, self.out_chans = image_size, out_chans
        self.trunk = trunk
        self.neck = Neck(channels, out_chans)
        self.conv_s0 = nn.Conv2d(out_chans, out_chans // 8, 1)
        self.conv_s1 = nn.Conv2d(out_chans, out_chans // 4, 1)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, out_chans))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        state = self.enter(images)
        for number in range(len(self.trunk.blocks)):
            state = self.step(number, state)
        return self.leave(state)

    def enter(self, images: Tensor) -> State:
        """What the first block gets."""
        return (self.trunk.enter(images),)

    def step(self, number: int, state: State) -> State:
        """A block; before the first of a stage what the stage before has found goes to the pyramid."""
        tokens, *maps = state
        if number in self.trunk.firsts:
            # a convolution keeps its input, frozen or not, and these have more channels than the tokens
            maps.append(remade(partial(self.map_of, self.trunk.stage_of(number) - 1), tokens))
        return (self.trunk.blocks[number](tokens), *maps)

    def map_of(self, stage: int, tokens: Tensor) -> Tensor:
        """The map that a stage adds to the pyramid, with the channels that the decoder wants."""
        mapped: Tensor = self.neck.of_stage(stage)(tokens)
        return cast("Tensor", (self.conv_s0, self.conv_s1)[stage](mapped)) if stage < 2 else mapped

    def leave(self, state: State) -> Tensor:
        """The embedding of what the last block returned."""
        tokens, finest, finer, lateral = state
        coarse = self.map_of(3, tokens)
        embedding = lateral + F.interpolate(coarse.float(), scale_factor=2.0, mode="nearest").to(lateral.dtype)
        embedding = embedding + self.no_mem_embed.reshape(1, -1, 1, 1)
        return torch.cat([embedding, F.pixel_unshuffle(finer, 2), F.pixel_unshuffle(finest, 4)], dim=1)

    def maps_before(self, block: int) -> Iterator[tuple[int, int]]:
        """(Channels, side) of the maps beside the tokens that a block gets; of their number for what follows."""
        sizes = (self.out_chans // 8, 4), (self.out_chans // 4, 8), (self.out_chans, 16)
        last = self.trunk.stage_of(block) - (block in self.trunk.firsts)
        yield from ((channels, self.img_size // stride) for channels, stride in sizes[:last])


def pooled(tokens: Tensor) -> Tensor:
    """The largest of 2 x 2 tokens, [B, h, w, C] to [B, h/2, w/2, C]."""
    return F.max_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def partitioned(tokens: Tensor, window: int) -> Tensor:
    """Windows [B * n, window, window, C] of tokens [B, h, w, C], filled up with zeros below and to the right."""
    height, width = tokens.shape[1:3]
    filled = F.pad(tokens, (0, 0, 0, -width % window, 0, -height % window))
    parts: Tensor = filled.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return parts.flatten(0, 2)


def joined(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `partitioned`: tokens [B, height, width, C] without what was filled up."""
    side = windows.shape[1]
    rows, columns = -(-height // side), -(-width // side)
    parts: Tensor = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)[:, :height, :width]
