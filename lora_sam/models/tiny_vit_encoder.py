"""TinyViT as an image encoder of SAM: the architecture of MobileSAM, with the names of its published weights.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", 2022, section 3.1 and table 9: two
strided convolutions, a stage of MBConv blocks, three stages of attention within windows, each followed by a depthwise
convolution and an MLP. Zhang et al., "Faster Segment Anything", 2023 (MobileSAM): the last stage keeps its size, so
that the map is S/16, and SAM's neck follows. Computed is what their weights were trained with; written anew here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

ATTENTION_STAGES = 3
"""Stages with attention, behind the one of convolutions."""

EXPANSION = 4
"""Channels inside an MBConv block and inside an MLP, by those outside."""


class FrozenBatchNorm(nn.BatchNorm2d):
    """Normalises with the statistics that it was loaded with, whatever mode its model is in.

    A step of training sees one or two images: statistics of those would change the model, also where its weights are
    frozen.
    """

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stays in `eval()`."""
        del mode
        return super().train(False)


class ConvNorm(nn.Sequential):
    """A convolution without bias, then its normalisation."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", FrozenBatchNorm(outside))


class PatchEmbed(nn.Module):
    """Images [B, 3, S, S] to [B, C, S/4, S/4]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, channels // 2, 3, 2), nn.GELU(), ConvNorm(channels // 2, channels, 3, 2))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x: Tensor = self.seq(images)
        return x


class MBConv(nn.Module):
    """Inverted bottleneck: wider, depthwise, narrower, plus what came in; [B, C, H, W] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.conv1 = ConvNorm(channels, wide, 1)
        self.conv2 = ConvNorm(wide, wide, 3, groups=wide)
        self.conv3 = ConvNorm(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        inside = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(self.conv3(inside) + x)


class PatchMerging(nn.Module):
    """[B, C, H, W] to [B, C', H / stride, W / stride], from one stage to the next."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inside, outside, 1)
        self.conv2 = ConvNorm(outside, outside, 3, stride, groups=outside)
        self.conv3 = ConvNorm(outside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


class WindowAttention(nn.Module):
    """Attention within a window, with a learned bias for each head and distance; `qkv`, or `q`, `k`, `v` apart.

    Rows of `qkv` are laid out head by head: q, k and v of the first head, then those of the second.
    """

    distance: Tensor

    def __init__(self, channels: int, heads: int, window: int, *, split: bool = False) -> None:
        super().__init__()
        self.num_heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        if split:
            self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        else:
            self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        place = torch.arange(window**2)
        rows, columns = place // window, place % window
        distance = (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of windows [B, N, C] to the same."""
        batch, tokens, channels = x.shape
        x = self.norm(x)
        if hasattr(self, "qkv"):
            q, k, v = self.qkv(x).view(batch, tokens, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = (
                projection(x).view(batch, tokens, self.num_heads, -1).transpose(1, 2)
                for projection in (self.q, self.k, self.v)
            )
        # looked up at every call: a table that was kept would be that of other weights after loading or merging
        bias = self.attention_biases[:, self.distance].unsqueeze(0).to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, tokens, channels))
        return projected


class Mlp(nn.Module):
    """Normalisation and two layers, [..., C] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, EXPANSION * channels)
        self.fc2 = nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyViTBlock(nn.Module):
    """Attention within windows, a depthwise convolution, an MLP; tokens [B, H, W, C] to the same."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.mlp = Mlp(channels)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self._attended(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.contiguous()

    def _attended(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side = self.window
        # zeros that fill up the windows take part, as they did when the weights were trained
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side**2, channels)
        out = self.attn(windows).view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return out.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A stage: its blocks, and the step to the next stage where there is one."""

    blocks: nn.ModuleList

    def __init__(self, blocks: Sequence[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if downsample is not None:
            self.downsample = downsample


class Unused(nn.Module):
    """Weights that the published file has and nothing computes with: they are kept, and never train."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape))


class TinyViTEncoder(nn.Module):
    """Images [B, 3, S, S] to image embeddings [B, C, S/16, S/16].

    Args:
        img_size: Side S of the input in pixels, a multiple of 16.
        embed_dims: Channels of the four stages.
        depths: Their blocks.
        num_heads: Attention heads of the last three.
        window_sizes: Sides of the windows of the last three, in tokens.
        out_chans: Channels of the embedding.
        num_classes: Classes of the classifier that the weights were pre-trained with, which is kept and not used.
    """

    def __init__(
        self,
        *,
        img_size: int,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_sizes: Sequence[int],
        out_chans: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = PatchEmbed(embed_dims[0])
        # the last stage is as large as the one before
        steps = [
            PatchMerging(inside, outside, stride)
            for (inside, outside), stride in zip(pairwise(embed_dims), (2, 2, 1), strict=True)
        ]
        layers = [Layer([MBConv(embed_dims[0]) for _ in range(depths[0])], steps[0])]
        for stage in range(ATTENTION_STAGES):
            dim, heads, window = embed_dims[stage + 1], num_heads[stage], window_sizes[stage]
            blocks = [TinyViTBlock(dim, heads, window) for _ in range(depths[stage + 1])]
            layers.append(Layer(blocks, steps[stage + 1] if stage + 1 < ATTENTION_STAGES else None))
        self.layers = nn.ModuleList(layers)
        last = embed_dims[-1]
        self.norm_head = Unused(weight=(last,), bias=(last,))
        self.head = Unused(weight=(num_classes, last), bias=(num_classes,))
        self.neck = nn.Sequential(
            nn.Conv2d(last, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        tokens = self.enter(images)
        for index, _ in enumerate(self.places()):
            tokens = self.step(index, tokens)
        return self.leave(tokens)

    def enter(self, images: Tensor) -> Tensor:
        """What the first block with attention gets, [B, S/8, S/8, C]."""
        x = self.patch_embed(images)
        first = self._layer(0)
        for block in first.blocks:
            x = block(x)
        return _tokens(first.downsample(x))

    def step(self, index: int, tokens: Tensor) -> Tensor:
        """A block with attention, and the step to the next stage where it is the last of its own; [B, H, W, C]."""
        stage, block = list(self.places())[index]
        layer = self._layer(stage)
        tokens = layer.blocks[block](tokens)
        if block + 1 < len(layer.blocks) or not hasattr(layer, "downsample"):
            return tokens
        return _tokens(layer.downsample(tokens.permute(0, 3, 1, 2)))

    def leave(self, tokens: Tensor) -> Tensor:
        """The embedding [B, C, S/16, S/16] of what the last block returned."""
        embedding: Tensor = self.neck(tokens.permute(0, 3, 1, 2))
        return embedding

    def places(self) -> Iterator[tuple[int, int]]:
        """Stage, and number in it, of every block with attention in their order."""
        for stage in range(1, len(self.layers)):
            for block in range(len(self._layer(stage).blocks)):
                yield stage, block

    def _layer(self, stage: int) -> Layer:
        return cast("Layer", self.layers[stage])


def _tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] as [B, H, W, C], laid out like that."""
    return x.permute(0, 2, 3, 1).contiguous()
