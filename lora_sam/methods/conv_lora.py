"""Conv-LoRA: experts of convolution in the bottleneck of LoRA (Zhong et al., 2024; AutoGluon has it for SAM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class ConvLoRA(OfBlocks):
    """W x + (alpha / rank) B (A x + experts(A x)) on Linears of the image encoder; does not fold into weights.

    A windowed block convolves within its windows. See `lora_sam.models.inserted_layers.ConvExperts` for the experts.

    Attributes:
        rank: Channels of the bottleneck.
        alpha: Scale of the update: alpha / rank.
        scales: How many times each expert enlarges the map before it convolves; an expert for each.
        targets: Which Linears of a block: any of q, k, v, proj (attention) and mlp (both layers).
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    rank: Annotated[int, Field(ge=1, le=4096)]
    alpha: Annotated[float, Field(gt=0, le=1e6)]
    scales: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=1, max_length=8)]
    targets: Annotated[tuple[Literal["q", "k", "v", "proj", "mlp"], ...], Field(min_length=1)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`conv_lora`."""
        return "conv_lora"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from lora_sam.methods.layers import insert_layers
        from lora_sam.methods.places import linears

        options = {"width": self.rank, "alpha": self.alpha, "scales": self.scales}
        places = linears(sam.image_encoder, self.blocks, self.targets)
        return insert_layers(sam, self.name, options, places, train_decoder=self.decoder == "train")
