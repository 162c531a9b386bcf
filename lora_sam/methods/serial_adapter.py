"""Bottleneck adapters behind attention and MLP of each block (Houlsby et al., 2019), as in Medical SAM Adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class SerialAdapter(OfBlocks):
    """y + up(GELU(down(y))) for what attention and MLP give in the image encoder; does not fold into weights.

    Behind attention this is the adapter of Medical SAM Adapter (Wu et al., 2023), whose MLP has one beside it instead.

    Attributes:
        width: Channels of the bottleneck.
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    width: Annotated[int, Field(ge=1, le=4096)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`serial_adapter`."""
        return "serial_adapter"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from lora_sam.methods.layers import insert_layers
        from lora_sam.methods.places import last_of_each

        places = last_of_each(sam.image_encoder, self.blocks)
        return insert_layers(sam, self.name, {"width": self.width}, places, train_decoder=self.decoder == "train")
