"""Train every weight of SAM: the upper bound that the cheaper methods are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class FullFineTuning:
    """Image encoder, prompt encoder and mask decoder all train.

    PEFT keeps the base beside the trained copy, so that both can be compared with one model in memory: the weights
    take twice their size.
    """

    @property
    def name(self) -> str:
        """`full`."""
        return "full"

    def check_depth(self, depth: int) -> None:
        """Any depth will do."""

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import NO_TARGETS, insert

        modules = ["image_encoder", "prompt_encoder", "mask_decoder"]
        return insert(sam, LoraConfig(target_modules=NO_TARGETS, modules_to_save=modules), trains_encoder=True)
