"""Train every weight of SAM: the upper bound that the cheaper methods are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class FullFineTuning:
    """Image encoder, prompt encoder and mask decoder all train.

    PEFT keeps the base beside the trained copy, so that both can be compared with one model in memory: the weights
    take twice their size.

    Attributes:
        frame: For pre-training: images are windows of a square frame with this side in pixels, placed at random, so
            that positions are learned for that larger input; null trains for the input as it is.
    """

    frame: Annotated[int, Field(ge=32, le=4096)] | None

    @property
    def name(self) -> str:
        """`full`."""
        return "full"

    def check_depth(self, depth: int) -> None:
        """Any depth will do."""

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import insert
        from lora_sam.methods.peft_config import NO_TARGETS
        from lora_sam.models.windows import put_into_frame

        if self.frame is not None:
            put_into_frame(sam, self.frame)
        modules = ["image_encoder", "prompt_encoder", "mask_decoder"]
        return insert(sam, LoraConfig(target_modules=NO_TARGETS, modules_to_save=modules), trains_encoder=True)
