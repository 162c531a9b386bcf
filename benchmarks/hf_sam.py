"""The peer: our base weights in `transformers.SamModel`, so that both sides compute the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_sam.models.projections import fuse_state_dict

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

    from lora_sam.models.vit import ViTSam

# The two packages name the same modules differently; in this order, each rule on what the ones before have left.
_RENAMES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
)
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_TARGET = r"vision_encoder\.layers\.\d+\.attn\.qkv"


def hf_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a split `Sam` with the keys of `transformers.SamModel`; the tensors are shared."""
    renamed: dict[str, Tensor] = {}
    for key, value in fuse_state_dict(state).items():
        if key == _POSITIONS:  # one tensor, which transformers names twice
            renamed["shared_image_embedding.positional_embedding"] = value
            renamed["prompt_encoder.shared_embedding.positional_embedding"] = value
            continue
        name = key
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def hf_config(model: ViTSam) -> Any:
    """The `transformers.SamConfig` of the same architecture; for vit_b it is the default one."""
    from transformers import SamConfig

    dim = model.prompt_embed_dim
    vision = {
        "hidden_size": model.embed_dim,
        "output_channels": dim,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "image_size": model.image_size,
        "window_size": model.window_size,
        "global_attn_indexes": list(model.global_attention),
        "num_pos_feats": dim // 2,
    }
    prompt = {"hidden_size": dim, "image_size": model.image_size}
    decoder = {"hidden_size": dim, "mlp_dim": model.decoder_mlp_dim, "iou_head_hidden_dim": dim}
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def hf_model(model: ViTSam, sam: Sam) -> Any:
    """A `transformers.SamModel` with the weights of the split `sam`, which `model` describes; fp32, `eval()`."""
    from transformers import SamModel

    peer: Any = SamModel(hf_config(model))
    peer.load_state_dict(hf_state_dict(sam.state_dict()), strict=True)
    return peer.eval()


def with_lora(peer: Any, *, rank: int, alpha: float) -> Any:
    """The peer with stock PEFT LoRA on its fused `qkv`; everything else, both decoders included, is frozen."""
    from peft import LoraConfig, get_peft_model

    alpha_of_peft: Any = alpha
    return get_peft_model(peer, LoraConfig(r=rank, lora_alpha=alpha_of_peft, target_modules=_TARGET))


def hf_masks(peer: Any, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Low-resolution logits [N, S/4, S/4] and predicted IoU [N] for boxes [N, 4] on one image [3, S, S]."""
    output = peer(pixel_values=image.unsqueeze(0), input_boxes=boxes.unsqueeze(0), multimask_output=False)
    return output.pred_masks[0, :, 0], output.iou_scores[0, :, 0]
