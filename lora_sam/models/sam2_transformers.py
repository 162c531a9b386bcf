"""A SAM 2 for images as `transformers.Sam2Model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_sam.models.sam2_layouts import transformers_state

if TYPE_CHECKING:
    from torch import Tensor

MODEL, PROCESSOR = "Sam2Model", "Sam2Processor"


def config(architecture: Mapping[str, Any]) -> Any:
    """The `transformers.Sam2Config` of an architecture, as `Sam2.architecture` describes it.

    A single mask is that of the first token, as everywhere here: the default would take the best of three instead where
    that looks unstable.
    """
    from transformers import Sam2Config

    dim, side = architecture["prompt_embed_dim"], architecture["image_size"]
    channels = [architecture["embed_dim"] << stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": channels[0],
        "num_attention_heads": architecture["num_heads"],
        "image_size": [side, side],
        "window_positional_embedding_background_size": [architecture["background_size"]] * 2,
        "blocks_per_stage": list(architecture["stages"]),
        "embed_dim_per_stage": channels,
        "num_attention_heads_per_stage": [architecture["num_heads"] << stage for stage in range(4)],
        "window_size_per_stage": list(architecture["window_sizes"]),
        "global_attention_blocks": list(architecture["global_attention"]),
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": channels[::-1],
        "backbone_feature_sizes": [[side // stride] * 2 for stride in (4, 8, 16)],
        "fpn_hidden_size": dim,
    }
    decoder = {
        "hidden_size": dim,
        "mlp_dim": architecture["decoder_mlp_dim"],
        "iou_head_hidden_dim": dim,
        "dynamic_multimask_via_stability": False,
    }
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": dim, "image_size": side},
        mask_decoder_config=decoder,
    )


def state_of(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the keys of the package `sam2` under those of `transformers`."""
    return transformers_state(published)


def processor(side: int) -> Any:
    """What prepares images and prompts for an input of side `side`."""
    from transformers import Sam2ImageProcessor, Sam2Processor

    pixels: Any = Sam2ImageProcessor(
        size={"height": side, "width": side}, mask_size={"height": side // 4, "width": side // 4}
    )
    made: Any = Sam2Processor
    return made(pixels, side)
