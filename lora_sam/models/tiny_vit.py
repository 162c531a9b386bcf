"""SAM with a TinyViT as image encoder, which is MobileSAM (tiny_vit, tiny_vit_random): architecture and weights."""

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
from lora_sam.models.building import (
    KEPT_BY_DECODING,
    PATCH_SIZE,
    build,
    check_weights,
    differences,
    draw_positions,
    prompted,
)
from lora_sam.models.options import WeightOptions

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

_Channels = Annotated[int, Field(ge=8, le=2048, multiple_of=2)]


@dataclass(frozen=True, kw_only=True)
class TinyViTSam(WeightOptions):
    """Architecture and weights of a SAM whose image encoder is a TinyViT (Zhang et al., 2023: MobileSAM).

    Attributes:
        variant: Name of the architecture; `tiny_vit` has a published checkpoint.
        image_size: Side of the square input in pixels, a multiple of 16; positions are those of windows, so weights fit
            any.
        embed_dims: Channels of the four stages: one of convolutions, three with attention.
        depths: Blocks of the four stages.
        num_heads: Attention heads of a block, of the three stages with attention.
        window_sizes: Side of a window in tokens, of the three stages with attention.
        num_classes: Classes of the classifier in the published file; it is kept and not used.
        checkpoint: Path of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file with the weights of such a SAM under
            the names of `mobile_sam.pt`; null takes the published file from the cache directory, downloading it once.
    """

    variant: Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9_]+$")]
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=PATCH_SIZE)]
    embed_dims: tuple[_Channels, _Channels, _Channels, _Channels]
    depths: tuple[
        Annotated[int, Field(ge=1, le=64)],
        Annotated[int, Field(ge=1, le=64)],
        Annotated[int, Field(ge=1, le=64)],
        Annotated[int, Field(ge=1, le=64)],
    ]
    num_heads: tuple[
        Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]
    ]
    window_sizes: tuple[
        Annotated[int, Field(ge=1, le=256)], Annotated[int, Field(ge=1, le=256)], Annotated[int, Field(ge=1, le=256)]
    ]
    num_classes: Annotated[int, Field(ge=1, le=100_000)]
    checkpoint: str | None

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        for stage, (channels, heads) in enumerate(zip(self.embed_dims[1:], self.num_heads, strict=True)):
            if channels % heads:
                raise ConfigError(
                    f"model.embed_dims = {list(self.embed_dims)}: {channels} must be a multiple of "
                    f"model.num_heads[{stage}] = {heads}"
                )
        check_weights(self)

    @property
    def depth(self) -> int:
        """Blocks with attention, of all stages."""
        return sum(self.depths[1:])

    @property
    def global_attention(self) -> tuple[int, ...]:
        """None: every block attends within windows."""
        return ()

    @property
    def frame(self) -> Frame:
        """See `SamModel`."""
        return Frame(self.image_size, square=False)

    @property
    def stem(self) -> tuple[int, int]:
        """See `SamModel`: before and after each convolution, normalisation and activation of the first stage."""
        half, quarter, dim = (self.image_size // 2) ** 2, (self.image_size // 4) ** 2, self.embed_dims[0]
        inside = 4 * dim * quarter
        patches = 3 * self.image_size**2 + 3 * half * dim // 2 + 2 * quarter * dim
        merging = 3 * self.embed_dims[1] * quarter + 4 * self.embed_dims[1] * quarter // 4
        kept = patches + self.depths[0] * (6 * inside + 4 * quarter * dim) + merging
        return 3 * inside, kept

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """See `SamModel`."""
        return KEPT_BY_DECODING

    def architecture(self) -> dict[str, Any]:
        """See `SamModel`."""
        names = ("variant", "image_size", "embed_dims", "depths", "num_heads", "window_sizes", "num_classes")
        fields = (*names, "prompt_embed_dim", "decoder_mlp_dim")
        return {"family": "tiny_vit", **{name: getattr(self, name) for name in fields}}

    def block_shape(self, block: int) -> BlockShape:
        """See `SamModel`."""
        stages = [stage for stage in range(3) for _ in range(self.depths[stage + 1])]
        sides = (self.image_size // 8, self.image_size // 16, self.image_size // 16)
        stage, after = stages[block], stages[min(block + 1, len(stages) - 1)]
        dims = self.embed_dims[1:]
        return BlockShape(
            sides[stage],
            dims[stage],
            self.num_heads[stage],
            self.window_sizes[stage],
            4 * dims[stage],
            False,
            3,  # before the depthwise one, before its normalisation, and windows put together again
            (sides[after], dims[after]),
            lean_mlp=False,
            lean_attention=False,
            narrow=False,
        )

    def build(self) -> BaseModel:
        """See `lora_sam.models.building.build`."""
        return build(self, family="tiny_vit", draw=self._random, fill=self._filled)

    def _filled(self, state: Mapping[str, Tensor], path: Path) -> Sam:
        sam = self.empty()
        first = differences(state, sam.state_dict(), path)
        if first is not None:
            raise CheckpointError(
                f"{path}: a SAM with a TinyViT, but not model={self.variant}: {first}; give weights of MobileSAM, or "
                "set what differs under model="
            )
        sam.load_state_dict(state, strict=True)
        return sam

    def _random(self) -> Sam:
        import torch

        sam = self.empty()
        # positions and statistics as if they were learned: at zeros and ones nothing would tell whether they count
        draw_positions(sam, ("attention_biases",), self.prompt_frequency)
        for name, buffer in sam.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
        return sam

    def empty(self) -> Sam:
        """The modules of this architecture with the keys of `mobile_sam`, weights as torch draws them."""
        from lora_sam.models.tiny_vit_encoder import TinyViTEncoder

        encoder = TinyViTEncoder(**self.encoder_arguments())
        return prompted(encoder, self.image_size, self.prompt_embed_dim, self.decoder_mlp_dim)

    def encoder_arguments(self) -> dict[str, Any]:
        """Those of `TinyViTEncoder`."""
        names = ("embed_dims", "depths", "num_heads", "window_sizes", "num_classes")
        beside = {"img_size": self.image_size, "out_chans": self.prompt_embed_dim}
        return {**beside, **{name: getattr(self, name) for name in names}}
