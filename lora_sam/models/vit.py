"""SAM with a plain ViT as image encoder (vit_b, vit_l, vit_h, nano, tiny_random): architecture and weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lora_sam.core.errors import CheckpointError
from lora_sam.core.frame import Frame
from lora_sam.models.base_model import BaseModel
from lora_sam.models.block_shape import BlockShape
from lora_sam.models.building import (
    KEPT_BY_DECODING,
    PATCH_SIZE,
    build,
    check_weights,
    differences,
    draw_positions,
    prompted,
)
from lora_sam.models.options import WeightOptions, check_encoder

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ViTSam(WeightOptions):
    """Architecture and weights of a SAM whose image encoder is a plain ViT (Kirillov et al., 2023, appendix A).

    Attributes:
        variant: Name of the architecture; `vit_b`, `vit_l` and `vit_h` have official checkpoints.
        image_size: Side of the square input in pixels, a multiple of 16; positions are interpolated where it differs
            from the checkpoint's.
        embed_dim: Channels of the ViT.
        depth: Number of its blocks.
        num_heads: Attention heads of a block.
        global_attention: Indices of the blocks that attend to the whole image; the others attend within windows.
        window_size: Side of a window in tokens.
        checkpoint: Path of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file with the weights of such a SAM, in
            any layout that `lora_sam.models.layouts.plain_state` knows; null takes the file that comes with the package
            (`nano`), or the official one of the variant from the cache directory, downloading it once.
    """

    variant: Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9_]+$")]
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=PATCH_SIZE)]
    embed_dim: Annotated[int, Field(ge=8, le=2048)]
    depth: Annotated[int, Field(ge=1, le=64)]
    num_heads: Annotated[int, Field(ge=1, le=64)]
    global_attention: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=64)]
    window_size: Annotated[int, Field(ge=1, le=256)]
    checkpoint: str | None

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        check_encoder(self.embed_dim, self.num_heads, self.global_attention, self.depth)
        check_weights(self)

    @property
    def frame(self) -> Frame:
        """See `SamModel`."""
        return Frame(self.image_size, square=False)

    @property
    def stem(self) -> tuple[int, int]:
        """See `SamModel`: one convolution, whose result is what the first block gets."""
        return 0, 0

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """See `SamModel`."""
        return KEPT_BY_DECODING

    def architecture(self) -> dict[str, Any]:
        """The fields that fix shapes, as saved beside an adapter."""
        names = ("variant", "image_size", "embed_dim", "depth", "num_heads", "global_attention", "window_size")
        return {name: getattr(self, name) for name in (*names, "prompt_embed_dim", "decoder_mlp_dim")}

    def block_shape(self, block: int) -> BlockShape:
        """See `SamModel`."""
        grid = self.image_size // PATCH_SIZE
        window = grid if block in self.global_attention or not self.window_size else self.window_size
        dim = self.embed_dim
        return BlockShape(grid, dim, self.num_heads, window, 4 * dim, True, 0, (grid, dim), False, False, False)

    def build(self) -> BaseModel:
        """See `lora_sam.models.building.build`."""
        return build(self, family="vit", draw=self._random, fill=self._filled)

    def _filled(self, state: dict[str, Tensor], path: Path) -> Sam:
        """The model with these weights."""
        sam = self.empty()
        state = resize_positions(state, self.image_size // PATCH_SIZE, global_attention=self.global_attention)
        self._check_fits(state, sam.state_dict(), path)
        sam.load_state_dict(state, strict=True)
        return sam

    def _check_fits(self, state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
        first = differences(state, wanted, path)
        if first is None:
            return
        patch = state.get("image_encoder.patch_embed.proj.weight")
        channels = None if patch is None else patch.shape[0]
        blocks = len({key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")})
        if (channels, blocks) != (self.embed_dim, self.depth):
            found = "another architecture" if channels is None else f"a ViT with {channels} channels"
            raise CheckpointError(
                f"{path}: wrong checkpoint for model={self.variant}: it holds {found} and {blocks} blocks, "
                f"{self.variant} has {self.embed_dim} and {self.depth} (first difference: {first}); "
                "choose the matching model= or another model.checkpoint"
            )
        raise CheckpointError(
            f"{path}: a ViT of the size of {self.variant}, but not the same model: {first}; give weights of the plain "
            f"SAM {self.variant}, or set what differs under model="
        )

    def _random(self) -> Sam:
        sam = self.empty()
        draw_positions(sam, ("pos_embed", "rel_pos_h", "rel_pos_w"), self.prompt_frequency)
        return sam

    def empty(self) -> Sam:
        """The modules of this architecture, with weights as torch draws them."""
        from segment_anything.modeling import ImageEncoderViT

        encoder = ImageEncoderViT(**self.encoder_arguments())
        return prompted(encoder, self.image_size, self.prompt_embed_dim, self.decoder_mlp_dim)

    def encoder_arguments(self) -> dict[str, Any]:
        """Those of `segment_anything.modeling.ImageEncoderViT`."""
        from functools import partial

        from torch import nn

        return {
            "img_size": self.image_size,
            "patch_size": PATCH_SIZE,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "mlp_ratio": 4,
            "norm_layer": partial(nn.LayerNorm, eps=1e-6),
            "qkv_bias": True,
            "use_rel_pos": True,
            "global_attn_indexes": self.global_attention,
            "window_size": self.window_size,
            "out_chans": self.prompt_embed_dim,
        }


def resize_positions(
    state: Mapping[str, Tensor], grid: int, *, global_attention: Collection[int], prefix: str = "image_encoder."
) -> dict[str, Tensor]:
    """A copy of a `Sam` state dict whose position parameters fit a `grid` x `grid` token map.

    The absolute embedding [1, G, G, C] is interpolated bicubically (as ViT and ViTDet do); the relative tables
    [2G-1, c] of the blocks with global attention linearly, which is what `get_rel_pos` of `segment_anything` does at
    run time. Windowed blocks do not depend on the input size. Nothing changes where the size fits already.
    """
    from torch.nn import functional as F

    resized = dict(state)
    key = f"{prefix}pos_embed"
    if key in state and state[key].ndim == 4 and state[key].shape[1] != grid:
        table = state[key].float().permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
        resized[key] = table.permute(0, 2, 3, 1).to(state[key].dtype)
    for block in global_attention:
        for axis in ("h", "w"):
            key = f"{prefix}blocks.{block}.attn.rel_pos_{axis}"
            if key in state and state[key].ndim == 2 and state[key].shape[0] != 2 * grid - 1:
                table = state[key].float().T.unsqueeze(0)
                table = F.interpolate(table, size=2 * grid - 1, mode="linear")
                resized[key] = table.squeeze(0).T.contiguous().to(state[key].dtype)
    return resized
