"""Two IR parts that take images as they are, for tools that come without pre-processing of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.extras import require_extra

if TYPE_CHECKING:
    from lora_sam.deployment.packs.packing import Packed


def write_parts(packed: Packed, directory: Path, target: str, *, multimask: bool) -> None:
    """Write `image_encoder.xml`, which takes RGB of any size, and `mask_decoder.xml`, with a `.bin` each, fp32.

    Args:
        packed: What is packed.
        directory: Where to.
        target: Whose files they are, for messages.
        multimask: Give all four masks of a prompt, the single one first.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    require_extra("deploy", f"target = {target}")
    from lora_sam.deployment.image_input import takes_images
    from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir
    from lora_sam.models.family import frame_of
    from lora_sam.predictors.openvino_parts import DECODER, ENCODER

    sam, side = packed.base.sam, packed.base.image_size
    save_ir(takes_images(encoder_ir(sam, side), frame_of(sam)), directory / ENCODER, half=False)
    save_ir(decoder_ir(sam, side, multimask=multimask), directory / DECODER, half=False)
