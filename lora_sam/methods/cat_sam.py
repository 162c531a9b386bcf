"""CAT-SAM's prompt bridge: prompts of the encoder's blocks made of the decoder's tokens (Xiao et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class CatSam(OfBlocks):
    """Each block attends to prompts, made by a small network of the decoder's mask tokens; does not fold into weights.

    The tokens train through the masks and through the prompts: encoder and decoder are tuned on one another. CAT-SAM
    (CAT-SAM-T in the paper) makes prompts of a token that it adds to the decoder, as HQ-SAM does. Here they are made of
    SAM's own mask tokens, so that the decoder stays one that others read. Prompts come in as with `vpt`, through a gate
    that is closed at the start, and do not depend on the image: trained, they are saved as prompts, without the bridge.

    Attributes:
        width: Channels inside each block's network.
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: Of the mask decoder only the `tokens` train, as with `method=decoder_tokens`, or all of it (`train`).
    """

    width: Annotated[int, Field(ge=1, le=4096)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["tokens", "train"]

    @property
    def name(self) -> str:
        """`cat_sam`."""
        return "cat_sam"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`.

        Raises:
            ConfigError: the family's attention has fewer queries than tokens.
        """
        from peft.utils.other import ModulesToSaveWrapper

        from lora_sam.methods.decoder_tokens import output_parts
        from lora_sam.methods.layers import check_family, insert_layers
        from lora_sam.methods.places import parts
        from lora_sam.models.inserted import find

        check_family(sam, "prompt_tokens", self.name)
        options = {"width": self.width, "channels": sam.mask_decoder.mask_tokens.embedding_dim}
        places = parts(sam.image_encoder, self.blocks, "attn")
        whole = self.decoder == "train"
        adapted = insert_layers(sam, "cat_sam_bridge", options, places, train_decoder=whole, parts=output_parts(sam))
        decoder: Any = sam.mask_decoder
        if isinstance(decoder, ModulesToSaveWrapper):
            decoder = decoder.modules_to_save["default"]
        tokens = decoder.mask_tokens
        if isinstance(tokens, ModulesToSaveWrapper):
            tokens = tokens.modules_to_save["default"]
        for module in find(sam).values():
            layer: Any = module.inserted
            # beside the copy that trains, the one of the base, whose gate stays closed
            for one in (layer.original_module, layer.modules_to_save["default"]):
                one.tokens = (tokens,)
        return adapted
