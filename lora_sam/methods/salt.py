"""SALT: the largest singular values are scaled and shifted, the rest gets a low rank (Elsayed et al., 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class Salt(OfBlocks):
    """Singular values of Linears of the image encoder, and a low rank beside them; saved as LoRA, folds like it.

    Attributes:
        top: How many singular values are scaled and shifted.
        rank: Rank of what is added to the rest. The adapter is LoRA of rank `top` + `rank`.
        targets: Which Linears of a block: any of q, k, v, proj (attention) and mlp (both layers).
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    top: Annotated[int, Field(ge=1, le=2048)]
    rank: Annotated[int, Field(ge=1, le=2048)]
    targets: Annotated[tuple[Literal["q", "k", "v", "proj", "mlp"], ...], Field(min_length=1)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`salt`."""
        return "salt"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from lora_sam.methods.layers import insert_layers
        from lora_sam.methods.places import linears

        options = {"top": self.top, "width": self.rank}
        places = linears(sam.image_encoder, self.blocks, self.targets)
        return insert_layers(sam, self.name, options, places, train_decoder=self.decoder == "train")
