"""Train the mask decoder alone; image encoder and prompt encoder stay frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class DecoderOnly:
    """The mask decoder trains whole: the usual recipe of SAM tutorials and of OpenVINO Training Extensions."""

    @property
    def name(self) -> str:
        """`decoder`."""
        return "decoder"

    def check_depth(self, depth: int) -> None:
        """Any depth will do."""

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import insert
        from lora_sam.methods.peft_config import NO_TARGETS

        config = LoraConfig(target_modules=NO_TARGETS, modules_to_save=["mask_decoder"])
        return insert(sam, config, trains_encoder=False)
