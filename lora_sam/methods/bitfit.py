"""Train nothing but biases: BitFit (Ben Zaken et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class BitFit:
    """Every bias of the model trains, and the mask decoder whole where that is wanted.

    The biases are those of the base, so that base and tuned need a model each in memory.

    Attributes:
        decoder: Of the mask decoder only biases train (`frozen`), or everything (`train`).
    """

    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`bitfit`."""
        return "bitfit"

    def check_depth(self, depth: int) -> None:
        """Any depth will do."""

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import insert
        from lora_sam.methods.peft_config import NO_TARGETS

        parts = ["mask_decoder"] if self.decoder == "train" else None
        return insert(
            sam, LoraConfig(target_modules=NO_TARGETS, modules_to_save=parts, bias="all"), trains_encoder=True
        )
