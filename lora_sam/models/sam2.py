"""SAM 2 for images (sam2_tiny, sam2_small, sam2_base_plus, sam2_large, sam2_random): architecture and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.core.scores import Scores
from lora_sam.models.base_model import BaseModel
from lora_sam.models.block_shape import BlockShape
from lora_sam.models.building import build, check_weights, differences, draw_positions
from lora_sam.models.options import WeightOptions, check_encoder

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

SCORES = Scores(predicted_iou=0.8, stability=0.95, stability_offset=1.0)
"""Of Meta's weights, the defaults of `SAM2AutomaticMaskGenerator`."""

_Blocks = Annotated[int, Field(ge=1, le=64)]
_Window = Annotated[int, Field(ge=1, le=256)]
_POOLED = 32  # pixels of a token of the last stage, along a side


@dataclass(frozen=True, kw_only=True)
class Sam2(WeightOptions):
    """Architecture and weights of a SAM 2 or SAM 2.1, for images (Ravi et al., 2024, appendix D.1).

    Images are squeezed into the square input, as `SAM2ImagePredictor` and `Sam2Processor` do, not padded. A single mask
    is that of the first token, as in training; the packages take the best of three instead where it looks unstable.

    Attributes:
        variant: Name of the architecture; all but `sam2_random` have a published checkpoint.
        image_size: Side of the square input in pixels, a multiple of 32; positions are interpolated, so weights fit
            any.
        embed_dim: Channels of the first of four stages; each further one has twice as many.
        num_heads: Attention heads of the first stage; each further one has twice as many.
        stages: Blocks of the four stages.
        global_attention: Indices of the blocks that attend to the whole image; the others attend within windows.
        window_sizes: Side of a window in tokens, of the four stages; the first block of a stage has that of the stage
            before.
        background_size: Side of the table of positions that is enlarged to the image.
        checkpoint: Path of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file with the weights of such a model, as
            the package `sam2` or `transformers` names them, with or without the part for videos; null takes the
            published file from the cache directory, downloading it once.
    """

    variant: Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9_]+$")]
    image_size: Annotated[int, Field(ge=64, le=4096, multiple_of=_POOLED)]
    embed_dim: Annotated[int, Field(ge=8, le=512)]
    num_heads: Annotated[int, Field(ge=1, le=16)]
    stages: tuple[_Blocks, _Blocks, _Blocks, _Blocks]
    global_attention: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=64)]
    window_sizes: tuple[_Window, _Window, _Window, _Window]
    background_size: Annotated[int, Field(ge=1, le=256)]
    checkpoint: str | None

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        check_encoder(self.embed_dim, self.num_heads, self.global_attention, self.depth)
        if (self.image_size // 4) % self.window_sizes[0]:
            raise ConfigError(
                f"model.image_size = {self.image_size}: a quarter of it must be a multiple of "
                f"model.window_sizes[0] = {self.window_sizes[0]}, in which positions repeat"
            )
        odd = [window for window in self.window_sizes[:3] if window % 2]
        if odd:
            raise ConfigError(
                f"model.window_sizes = {list(self.window_sizes)}: {odd[0]} must be even, as windows of all stages but "
                "the last are pooled"
            )
        check_weights(self)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.stages)

    @property
    def frame(self) -> Frame:
        """See `SamModel`."""
        return Frame(self.image_size, square=True)

    @property
    def stem(self) -> tuple[int, int]:
        """See `SamModel`: one convolution, whose result is what the first block gets."""
        return 0, 0

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """See `SamModel`."""
        return (21.6, 0.6)  # finer maps are fp32, and so is what they are added to

    def architecture(self) -> dict[str, Any]:
        """See `SamModel`."""
        names = ("variant", "image_size", "embed_dim", "num_heads", "stages", "global_attention", "window_sizes")
        fields = (*names, "background_size", "prompt_embed_dim", "decoder_mlp_dim")
        return {"family": "sam2", **{name: getattr(self, name) for name in fields}}

    def block_shape(self, block: int) -> BlockShape:
        """See `SamModel`; the MLP of a pooled block sees a quarter of the tokens, with twice the channels."""
        firsts = tuple(accumulate(self.stages[:-1]))
        stage, pool = sum(first <= block for first in firsts), block in firsts
        before = stage - pool
        side, dim = self.image_size // (4 << before), self.embed_dim << before
        window = side if block in self.global_attention else self.window_sizes[before]
        hidden = dim * 2 if pool else 4 * dim
        then = (side // 2, 2 * dim) if pool else (side, dim)
        # what pools queries begins in the arithmetic of the step, as nothing of fp32 is added there
        narrow, lean = stage > 0, block not in self.global_attention
        return BlockShape(side, dim, self.num_heads << stage, window, hidden, False, 0, then, True, lean, narrow)

    def build(self) -> BaseModel:
        """See `lora_sam.models.building.build`."""
        return build(self, family="sam2", draw=self._random, fill=self._filled, scores=SCORES)

    def _filled(self, state: Mapping[str, Tensor], path: Path) -> Sam:
        sam = self.empty()
        first = differences(state, sam.state_dict(), path)
        if first is not None:
            from lora_sam.models.sam2_layouts import whichever

            raise CheckpointError(f"{path}: a SAM 2, but not model={self.variant}: {first}; {whichever(state)}")
        sam.load_state_dict(state, strict=True)
        return sam

    def _random(self) -> Sam:
        from torch import nn

        sam = self.empty()
        draw_positions(sam, ("pos_embed", "pos_embed_window", "no_mem_embed"), self.prompt_frequency)
        for name, buffer in sam.named_buffers():
            if "pred_obj_score_head" in name:  # not zeros, so that tests see it kept
                nn.init.normal_(buffer, std=0.02)
        return sam

    def empty(self) -> Sam:
        """The modules of this architecture, projections fused, weights as torch draws them."""
        from lora_sam.models.sam2_decoder import prompted
        from lora_sam.models.sam2_encoder import Sam2Encoder, Trunk

        trunk = Trunk(
            self.embed_dim,
            self.num_heads,
            self.stages,
            self.global_attention,
            self.window_sizes,
            self.background_size,
        )
        channels = [self.embed_dim << stage for stage in range(4)]
        encoder = Sam2Encoder(self.image_size, trunk, channels, self.prompt_embed_dim)
        return prompted(encoder, self.image_size, self.prompt_embed_dim, self.decoder_mlp_dim)
