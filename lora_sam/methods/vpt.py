"""Deep visual prompt tuning: learned tokens that every block attends to (Jia et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class VisualPrompts(OfBlocks):
    """Prompt tokens in the attention of the image encoder, the same in each window; does not fold into weights.

    SAM's blocks attend within windows, and to places on a grid: prompts are keys and values there, have no place, and
    come in through a gate that is closed at the start. VPT-Shallow, whose prompts go through all blocks as tokens, does
    not fit windows. SAM 2, which pools its queries, and SAM 3, which turns its keys by their places, are refused. See
    `lora_sam.models.prompt_layers.PromptTokens`.

    Attributes:
        tokens: Prompts of a block.
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    tokens: Annotated[int, Field(ge=1, le=1024)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`vpt`."""
        return "vpt"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`.

        Raises:
            ConfigError: the family's attention has fewer queries than tokens.
        """
        from lora_sam.methods.layers import check_family, insert_layers
        from lora_sam.methods.places import parts

        check_family(sam, "prompt_tokens", self.name)
        places = parts(sam.image_encoder, self.blocks, "attn")
        return insert_layers(sam, self.name, {"tokens": self.tokens}, places, train_decoder=self.decoder == "train")
