"""The image encoder of SAM 3 with the pyramid of its tracker, with the names of its weights in `transformers`.

A plain ViT whose attention turns queries and keys by their place (rotary positions; Su et al., "RoFormer", 2021; Heo et
al., "Rotary Position Embedding for Vision Transformer", 2024) and a simple pyramid (Li et al., "ViTDet", 2022); Carion
et al., "SAM 3: Segment Anything with Concepts", 2025. Computed is what the published weights were trained with; written
anew here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.models.lean import plus_mlp
from lora_sam.models.sam2_decoder import Kept
from lora_sam.models.sam2_encoder import joined, partitioned

EPSILON = 1e-5
"""Of the norms of the ViT, as in Meta's package; `transformers` has 1e-6 unless its configuration says otherwise."""

_BASE = 10000.0  # of the angles of rotary positions


class PatchEmbeddings(nn.Module):
    """Images [B, 3, S, S] to tokens [B, S/P, S/P, C]."""

    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, channels, patch_size, patch_size, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        tokens: Tensor = self.projection(images).permute(0, 2, 3, 1)
        return tokens


class Embeddings(nn.Module):
    """Patches, and a table of positions that is repeated where the image has more of them.

    Args:
        channels: C.
        patch_size: Pixels of a patch along a side.
        side: Side of the table.
    """

    def __init__(self, channels: int, patch_size: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.patch_embeddings = PatchEmbeddings(channels, patch_size)
        self.position_embeddings = nn.Parameter(torch.zeros(1, side * side, channels))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] to tokens [B, S/P, S/P, C]."""
        tokens: Tensor = self.patch_embeddings(images)
        grid = int(tokens.shape[1])
        times = -(-grid // self.side)
        table = self.position_embeddings.unflatten(1, (self.side, self.side)).tile(1, times, times, 1)
        placed: Tensor = tokens + table[:, :grid, :grid]
        return placed


class RotaryAttention(nn.Module):
    """Attention of all tokens that come in together, with projections of their own."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens [B, h, w, C] to the same; `turns` are those of their places, see `turns_of`."""
        q, k, v = (
            part.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        seen = F.scaled_dot_product_attention(turned(q, turns), turned(k, turns), v)
        attended: Tensor = self.o_proj(seen.transpose(1, 2).flatten(2).unflatten(1, x.shape[1:3]))
        return attended


class MLP(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y

    def linears(self) -> tuple[nn.Module, nn.Module]:
        """Both layers, see `lora_sam.models.lean.plus_mlp`."""
        return self.fc1, self.fc2


class Layer(nn.Module):
    """A block: attention and MLP, [B, side, side, C] to the same.

    Args:
        channels: C.
        heads: Attention heads.
        hidden: Channels inside the MLP.
        window: Side of a window in tokens; 0 for all of them.
        turns: Those of the places in a window, or in the image.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, channels: int, heads: int, hidden: int, window: int, turns: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.window = window
        self.layer_norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attention = RotaryAttention(channels, heads)
        self.layer_norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = MLP(channels, hidden)
        for name, values in zip(("cosines", "sines"), turns, strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        x: Tensor = self.layer_norm1(tokens)
        x = self.attention(partitioned(x, self.window) if self.window else x, (self.cosines, self.sines))
        if self.window:
            x = joined(x, tokens.shape[1], tokens.shape[2])
        return plus_mlp(tokens + x, self.layer_norm2, self.mlp)


class Backbone(nn.Module):
    """The ViT.

    Args:
        grid: Tokens along a side of the image.
        patch_size: Pixels of a token along a side.
        channels: Channels of a token.
        heads: Attention heads.
        hidden: Channels inside an MLP.
        depth: Blocks.
        global_attention: Blocks that attend to the whole image.
        window: Side of a window of the others, in tokens; positions in the whole image are scaled to it.
        table: Side of the table of positions.
    """

    def __init__(
        self,
        grid: int,
        patch_size: int,
        channels: int,
        heads: int,
        hidden: int,
        depth: int,
        global_attention: Collection[int],
        window: int,
        table: int,
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(channels, patch_size, table)
        self.layer_norm = nn.LayerNorm(channels, eps=EPSILON)
        within, across = turns_of(window, 1.0, channels // heads), turns_of(grid, window / grid, channels // heads)
        self.layers = nn.ModuleList(
            Layer(channels, heads, hidden, 0, across)
            if number in global_attention
            else Layer(channels, heads, hidden, window, within)
            for number in range(depth)
        )


class PyramidLevel(nn.Module):
    """A map of the pyramid, [B, C, h, w] to [B, D, s h, s w]: enlarged by s = 4, 2 or 1, then two convolutions."""

    def __init__(self, inside: int, outside: int, scale: int) -> None:
        super().__init__()
        enlarging: list[nn.Module] = []
        if scale == 4:
            enlarging += [nn.ConvTranspose2d(inside, inside // 2, 2, 2), nn.GELU()]
            enlarging += [nn.ConvTranspose2d(inside // 2, inside // 4, 2, 2)]
        elif scale == 2:
            enlarging += [nn.ConvTranspose2d(inside, inside // 2, 2, 2)]
        self.scale_layers = nn.Sequential(*enlarging)
        self.proj1 = nn.Conv2d(inside // scale, outside, 1)
        self.proj2 = nn.Conv2d(outside, outside, 3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        mapped: Tensor = self.proj2(self.proj1(self.scale_layers(tokens)))
        return mapped


class Neck(nn.Module):
    """The three maps that the decoder gets, finest first, and the weights of one that nothing looks at."""

    def __init__(self, channels: int, outside: int) -> None:
        super().__init__()
        levels = [PyramidLevel(channels, outside, scale) for scale in (4, 2, 1)]
        self.fpn_layers = nn.ModuleList([*levels, Kept(PyramidLevel(channels, outside, 1))])


class Sam3Encoder(nn.Module):
    """Images [B, 3, S, S] to embeddings [B, 4D, S/P, S/P]: three maps in one, as `Sam2Encoder` packs them.

    `no_mem_embed` is added to the map that the decoder's attention sees, as Meta's image predictor does.

    Args:
        image_size: Side S.
        patch_size: P.
        backbone: The ViT.
        channels: Channels of its tokens.
        out_chans: D.
    """

    def __init__(self, image_size: int, patch_size: int, backbone: Backbone, channels: int, out_chans: int) -> None:
        super().__init__()
        self.img_size, self.patch_size, self.out_chans = image_size, patch_size, out_chans
        self.backbone = backbone
        self.neck = Neck(channels, out_chans)
        self.conv_s0 = nn.Conv2d(out_chans, out_chans // 8, 1)
        self.conv_s1 = nn.Conv2d(out_chans, out_chans // 4, 1)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, out_chans))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        tokens = self.enter(images)
        for layer in self.backbone.layers:
            tokens = layer(tokens)
        return self.leave(tokens)

    def enter(self, images: Tensor) -> Tensor:
        """What the first block gets, [B, S/P, S/P, C]."""
        return cast("Tensor", self.backbone.layer_norm(self.backbone.embeddings(images)))

    def leave(self, tokens: Tensor) -> Tensor:
        """The embedding of what the last block returned."""
        found = tokens.permute(0, 3, 1, 2)
        finest, finer, coarse, _ = self.neck.fpn_layers
        embedding = coarse(found) + self.no_mem_embed.reshape(1, -1, 1, 1)
        maps = [F.pixel_unshuffle(self.conv_s1(finer(found)), 2), F.pixel_unshuffle(self.conv_s0(finest(found)), 4)]
        return torch.cat([embedding, *maps], dim=1)


def turns_of(side: int, scale: float, channels: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which queries and keys are turned, float32 [side * side, channels] each.

    Two neighbouring channels are a plane. The first half of the planes turns with x, the other half with y.

    Args:
        side: Tokens along a side of what attends together.
        scale: What a token further is, in tokens of a window.
        channels: Of a head, a multiple of 4.
    """
    half = channels // 2
    frequencies = _BASE ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)
    angles = (torch.arange(side, dtype=torch.float32) * scale)[:, None] * frequencies
    across, down = angles[None].expand(side, -1, -1), angles[:, None].expand(-1, side, -1)
    each = torch.cat([across, down], dim=2).flatten(0, 1).repeat_interleave(2, dim=1)
    return each.cos(), each.sin()


def turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys [B, heads, N, c] turned by their places; computed in fp32, as upstream."""
    cosines, sines = turns
    exact = x.float()
    first, second = exact.unflatten(3, (-1, 2)).unbind(4)
    sideways = torch.stack([-second, first], dim=4).flatten(3)
    return (exact * cosines + sideways * sines).to(x.dtype)
