"""A SAM with a plain ViT as `transformers.SamModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_sam.models.layouts import transformers_state

if TYPE_CHECKING:
    from torch import Tensor

MODEL, PROCESSOR = "SamModel", "SamProcessor"


def config(architecture: Mapping[str, Any]) -> Any:
    """The `transformers.SamConfig` of an architecture, as `ViTSam.architecture` describes it."""
    from transformers import SamConfig

    dim, side = architecture["prompt_embed_dim"], architecture["image_size"]
    vision = {
        "hidden_size": architecture["embed_dim"],
        "output_channels": dim,
        "num_hidden_layers": architecture["depth"],
        "num_attention_heads": architecture["num_heads"],
        "image_size": side,
        "window_size": architecture["window_size"],
        "global_attn_indexes": list(architecture["global_attention"]),
        "num_pos_feats": dim // 2,
    }
    decoder = {
        "hidden_size": dim,
        "mlp_dim": architecture["decoder_mlp_dim"],
        "iou_head_hidden_dim": dim,
        # the transformer of segment_anything's decoder has torch's default, not the 1e-6 of the other layers
        "layer_norm_eps": 1e-5,
    }
    return SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": dim, "image_size": side},
        mask_decoder_config=decoder,
    )


def state_of(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the keys of `segment_anything` under those of `transformers`."""
    return transformers_state(published)


def processor(side: int) -> Any:
    """What prepares images and prompts for an input of side `side`."""
    from transformers import SamImageProcessor, SamProcessor

    pixels: Any = SamImageProcessor(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size={"height": side // 4, "width": side // 4},
    )
    made: Any = SamProcessor
    return made(pixels)
