"""The peer: our base weights in `transformers.SamModel`, so that both sides compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_sam.models.layouts import transformers_state
from lora_sam.models.projections import fuse_state_dict
from lora_sam.models.vit_transformers import config as transformers_config

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

    from lora_sam.models.family import SamModel

_TARGET = r"vision_encoder\.layers\.\d+\.attn\.qkv"


def hf_model(model: SamModel, sam: Sam) -> Any:
    """A `transformers.SamModel` with the weights of the split `sam`, which `model` describes; fp32, `eval()`."""
    from transformers import SamModel

    peer: Any = SamModel(transformers_config(model.architecture()))
    peer.load_state_dict(transformers_state(fuse_state_dict(sam.state_dict())), strict=True)
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
