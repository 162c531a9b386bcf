"""The tracker of SAM 3 as `transformers.Sam3TrackerModel`, for images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_sam.models.sam3_encoder import EPSILON

if TYPE_CHECKING:
    from torch import Tensor

MODEL, PROCESSOR = "Sam3TrackerModel", "Sam3TrackerProcessor"
_NO_MEMORY, _BIAS = "no_memory_embedding", "vision_encoder.neck.fpn_layers.2.proj2.bias"


def config(architecture: Mapping[str, Any]) -> Any:
    """The `transformers.Sam3TrackerConfig` of an architecture, as `Sam3.architecture` describes it.

    A single mask is that of the first token, as everywhere here, and norms are those of Meta's package.
    """
    from transformers import Sam3TrackerConfig

    dim, side, patch = architecture["prompt_embed_dim"], architecture["image_size"], architecture["patch_size"]
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": architecture["embed_dim"],
        "intermediate_size": architecture["mlp_dim"],
        "num_hidden_layers": architecture["depth"],
        "num_attention_heads": architecture["num_heads"],
        "image_size": side,
        "patch_size": patch,
        "window_size": architecture["window_size"],
        "global_attn_indexes": list(architecture["global_attention"]),
        "pretrain_image_size": architecture["table_size"] * patch,
        "layer_norm_eps": EPSILON,
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": dim,
        "backbone_feature_sizes": [[side // patch * times] * 2 for times in (4, 2, 1)],
    }
    decoder = {
        "hidden_size": dim,
        "mlp_dim": architecture["decoder_mlp_dim"],
        "iou_head_hidden_dim": dim,
        "dynamic_multimask_via_stability": False,
    }
    return Sam3TrackerConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": dim, "image_size": side, "patch_size": patch},
        mask_decoder_config=decoder,
    )


def state_of(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with which `Sam3TrackerModel` says what is said here, and what Meta's image predictor would say.

    `transformers` 5.23 adds `no_memory_embedding` to a map of the pyramid that it then drops. Here it is part of the
    bias of the map that the decoder sees, the same at every place, so it counts once whatever a version does with it.
    """
    import torch

    state = dict(published)
    none = state[_NO_MEMORY]
    state[_BIAS] = state[_BIAS] + none.flatten()
    state[_NO_MEMORY] = torch.zeros_like(none)
    return state


def processor(side: int) -> Any:
    """What prepares images and prompts for an input of side `side`."""
    from transformers import Sam3ImageProcessor, Sam3TrackerProcessor

    pixels: Any = Sam3ImageProcessor(
        size={"height": side, "width": side}, mask_size={"height": side * 2 // 7, "width": side * 2 // 7}
    )
    made: Any = Sam3TrackerProcessor
    return made(pixels, side)
