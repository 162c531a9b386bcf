"""SSF: features are scaled and shifted, channel by channel (Lian et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class ScaleAndShift(OfBlocks):
    """What Linears and LayerNorms of the image encoder give is scaled and shifted; folds into their weights.

    Attributes:
        targets: What of a block: any of q, k, v, proj (attention), mlp (both layers) and norm (the LayerNorms).
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    targets: Annotated[tuple[Literal["q", "k", "v", "proj", "mlp", "norm"], ...], Field(min_length=1)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`ssf`."""
        return "ssf"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from lora_sam.methods.layers import insert_layers
        from lora_sam.methods.places import linears, norms

        encoder, others = sam.image_encoder, [target for target in self.targets if target != "norm"]
        places = list(linears(encoder, self.blocks, others)) if others else []
        if "norm" in self.targets:
            places += norms(encoder, self.blocks)
        return insert_layers(sam, self.name, {}, places, train_decoder=self.decoder == "train")
