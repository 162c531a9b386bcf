"""SAM 3 with clicks and boxes (sam3, sam3_random): architecture and weights of its tracker on images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.models.base_model import BaseModel
from lora_sam.models.block_shape import BlockShape
from lora_sam.models.building import build, check_weights, differences, draw_positions
from lora_sam.models.options import WeightOptions, check_encoder
from lora_sam.models.sam2 import SCORES
from lora_sam.models.terms import TERMS

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

GREY = (127.5, 127.5, 127.5)
"""Mean and standard deviation of the pixels, of `SAM2Transforms` in the package `sam3`."""


@dataclass(frozen=True, kw_only=True)
class Sam3(WeightOptions):
    """Architecture and weights of the tracker of SAM 3, for images with points, boxes and masks (Carion et al., 2025).

    Images are squeezed into the square input, as `SAM3InteractiveImagePredictor` and `Sam3TrackerProcessor` do. A
    single mask is that of the first token, as in training. Concepts in words need the detector, which is not here.

    Attributes:
        variant: Name of the architecture; `sam3` has published weights.
        image_size: Side of the square input in pixels, a multiple of `patch_size`; positions are repeated, so weights
            fit any.
        patch_size: Pixels of a token along a side.
        embed_dim: Channels of a token.
        mlp_dim: Channels inside an MLP.
        depth: Number of transformer blocks.
        num_heads: Attention heads.
        global_attention: Indices of the blocks that attend to the whole image; the others attend within windows.
        window_size: Side of a window in tokens, also the unit of the positions in the whole image.
        table_size: Side of the table of positions, in tokens.
        checkpoint: Path of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file with the weights of SAM 3, as the
            package `sam3` or `transformers` names them, with or without its detector; null takes the published file
            from the cache directory, downloading it once with the account that is logged in to huggingface.co.
    """

    variant: Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9_]+$")]
    image_size: Annotated[int, Field(ge=28, le=4096)]
    patch_size: Annotated[int, Field(ge=4, le=64)]
    embed_dim: Annotated[int, Field(ge=16, le=4096)]
    mlp_dim: Annotated[int, Field(ge=1, le=16384)]
    depth: Annotated[int, Field(ge=1, le=64)]
    num_heads: Annotated[int, Field(ge=1, le=64)]
    global_attention: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=64)]
    window_size: Annotated[int, Field(ge=1, le=256)]
    table_size: Annotated[int, Field(ge=1, le=256)]
    checkpoint: str | None

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        check_encoder(self.embed_dim, self.num_heads, self.global_attention, self.depth)
        if self.embed_dim // self.num_heads % 4:
            raise ConfigError(
                f"model.embed_dim = {self.embed_dim}: must be a multiple of 4 for each of model.num_heads = "
                f"{self.num_heads}, which turn in planes of x and y"
            )
        if self.image_size % self.patch_size:
            below = self.image_size // self.patch_size * self.patch_size
            raise ConfigError(
                f"model.image_size = {self.image_size}: must be a multiple of model.patch_size = {self.patch_size}, "
                f"e.g. {below or self.patch_size}"
            )
        check_weights(self)

    @property
    def frame(self) -> Frame:
        """See `SamModel`."""
        return Frame(self.image_size, True, self.patch_size, GREY, GREY)

    @property
    def stem(self) -> tuple[int, int]:
        """See `SamModel`: patches and what is added to them, then a norm."""
        numbers = self.frame.grid**2 * self.embed_dim
        return 3 * numbers, 2 * numbers

    @property
    def kept_by_neck(self) -> tuple[float, float]:
        """See `SamModel`: inputs of convolutions at one, two and four times the side, and tokens being enlarged."""
        return (0.0, 41 + 12 * self.embed_dim / self.prompt_embed_dim)

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """See `SamModel`."""
        return (21.6, 0.6)  # as of SAM 2, whose decoder it is

    def architecture(self) -> dict[str, Any]:
        """See `SamModel`."""
        names = ("variant", "image_size", "patch_size", "embed_dim", "mlp_dim", "depth", "num_heads", "window_size")
        fields = (*names, "global_attention", "table_size", "prompt_embed_dim", "decoder_mlp_dim")
        return {"family": "sam3", **{name: getattr(self, name) for name in fields}}

    def block_shape(self, block: int) -> BlockShape:
        """See `SamModel`."""
        grid, dim = self.frame.grid, self.embed_dim
        window = grid if block in self.global_attention else self.window_size
        return BlockShape(grid, dim, self.num_heads, window, self.mlp_dim, False, 0, (grid, dim), True, False, False)

    def build(self) -> BaseModel:
        """See `lora_sam.models.building.build`."""
        return build(self, family="sam3", draw=self._random, fill=self._filled, scores=SCORES, terms=TERMS["sam3"])

    def _filled(self, state: Mapping[str, Tensor], path: Path) -> Sam:
        sam = self.empty()
        first = differences(state, sam.state_dict(), path)
        if first is not None:
            raise CheckpointError(
                f"{path}: a SAM 3, but not model={self.variant}: {first}; choose model=sam3, and set what differs "
                "under model="
            )
        sam.load_state_dict(state, strict=True)
        return sam

    def _random(self) -> Sam:
        from torch import nn

        sam = self.empty()
        draw_positions(sam, ("position_embeddings", "no_mem_embed"), self.prompt_frequency)
        for name, buffer in sam.named_buffers():
            if "pred_obj_score_head" in name or "neck.fpn_layers.3" in name:  # not zeros, so that tests see it kept
                nn.init.normal_(buffer, std=0.02)
        for module in sam.image_encoder.neck.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):  # two or four in a row: maps are to keep their size
                nn.init.kaiming_uniform_(module.weight)
        return sam

    def empty(self) -> Sam:
        """The modules of this architecture, weights as torch draws them."""
        from lora_sam.models.sam2_decoder import prompted
        from lora_sam.models.sam3_encoder import Backbone, Sam3Encoder

        grid = self.frame.grid
        backbone = Backbone(
            grid,
            self.patch_size,
            self.embed_dim,
            self.num_heads,
            self.mlp_dim,
            self.depth,
            self.global_attention,
            self.window_size,
            self.table_size,
        )
        encoder = Sam3Encoder(self.image_size, self.patch_size, backbone, self.embed_dim, self.prompt_embed_dim)
        return prompted(encoder, self.image_size, self.prompt_embed_dim, self.decoder_mlp_dim, grid)
