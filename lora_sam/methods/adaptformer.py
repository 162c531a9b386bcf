"""AdaptFormer: a bottleneck beside the MLP of each block (Chen et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class AdaptFormer(OfBlocks):
    """MLP(x) + scale up(ReLU(down(x))) in the blocks of the image encoder; does not fold into weights.

    Attributes:
        width: Channels of the bottleneck.
        scale: Of what it adds.
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    width: Annotated[int, Field(ge=1, le=4096)]
    scale: Annotated[float, Field(gt=0, le=1e4)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`adaptformer`."""
        return "adaptformer"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from lora_sam.methods.layers import insert_layers
        from lora_sam.methods.places import parts

        options = {"width": self.width, "scale": self.scale}
        places = parts(sam.image_encoder, self.blocks, "mlp")
        return insert_layers(sam, self.name, options, places, train_decoder=self.decoder == "train")
