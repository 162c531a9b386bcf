"""Train the output tokens of the mask decoder and what makes masks of them; all else stays frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class DecoderTokens:
    """Tokens of masks and of their scores, and the hypernetwork of each mask token: what HQ-SAM trains of them.

    HQ-SAM (Ke et al., 2023) adds a token of its own and leaves SAM's as they are. A fifth token makes a decoder that
    nobody else's code reads, so here SAM's own train: the adapter folds into plain weights.
    """

    @property
    def name(self) -> str:
        """`decoder_tokens`."""
        return "decoder_tokens"

    def check_depth(self, depth: int) -> None:
        """Any depth will do."""

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import insert
        from lora_sam.methods.peft_config import NO_TARGETS

        config = LoraConfig(target_modules=NO_TARGETS, modules_to_save=output_parts(sam))
        return insert(sam, config, trains_encoder=False)


def output_parts(sam: Sam) -> list[str]:
    """Names of the tokens of masks and scores, and of what makes masks of them, in the mask decoder."""
    networks = range(len(sam.mask_decoder.output_hypernetworks_mlps))
    # PEFT wraps no lists of modules
    parts = ["iou_token", "mask_tokens", *(f"output_hypernetworks_mlps.{index}" for index in networks)]
    return [*parts, *getattr(sam.mask_decoder, "further_outputs", ())]
