"""The peer: our base weights in `transformers.SamModel` or `Sam2Model`, so that both sides compute the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.models.family import family_of, transformers_module
from lora_sam.models.projections import fuse_state_dict

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

    from lora_sam.models.family import SamModel

_TARGET = r"vision_encoder\.(layers|backbone\.blocks)\.\d+\.attn\.qkv"


def hf_model(model: SamModel, sam: Sam) -> Any:
    """The family's model in `transformers` with the weights of the split `sam`, which `model` describes.

    In fp32 and `eval()`. Families whose rows of `qkv` are contiguous thirds alone.
    """
    import transformers

    layout = transformers_module(model.architecture())
    state = family_of(sam.image_encoder).published(fuse_state_dict(sam.state_dict()))
    peer: Any = getattr(transformers, layout.MODEL)(layout.config(model.architecture()))
    peer.load_state_dict(layout.state_of(state), strict=True)
    return peer.eval()


def read_peer(directory: Path) -> Any:
    """What `save_pretrained` of an `hf_model` wrote, as its users read it."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(directory, local_files_only=True)


def with_lora(peer: Any, *, rank: int, alpha: float) -> Any:
    """The peer with stock PEFT LoRA on its fused `qkv`; everything else, both decoders included, is frozen.

    A layer gets the rank with which it has as many parameters as queries and values apart have with `rank`: `rank`
    itself, but for the layers of Hiera that widen channels, where the nearest whole number is taken.
    """
    from peft import LoraConfig, get_peft_model

    alpha_of_peft: Any = alpha
    ranks = {}
    for name, layer in peer.named_modules():
        if re.fullmatch(_TARGET, name):
            inside, outside = layer.in_features, layer.out_features // 3
            ranks[name] = round(rank * 2 * (inside + outside) / (inside + 3 * outside))
    others = {re.escape(name): own for name, own in ranks.items() if own != rank}
    config = LoraConfig(r=rank, lora_alpha=alpha_of_peft, target_modules=_TARGET, rank_pattern=others)
    return get_peft_model(peer, config)


def hf_embedding(peer: Any, images: Tensor) -> Tensor:
    """Image embeddings of the peer as ours lie: several maps in one, see `lora_sam.models.sam2_encoder.Sam2Encoder`."""
    import torch
    from torch.nn import functional as F

    found = peer.get_image_embeddings(images)
    if isinstance(found, torch.Tensor):
        return found
    finest, finer, coarse = found
    return torch.cat([coarse, F.pixel_unshuffle(finer, 2), F.pixel_unshuffle(finest, 4)], dim=1)


def hf_masks(peer: Any, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Low-resolution logits [N, S/4, S/4] and predicted IoU [N] for boxes [N, 4] on one image [3, S, S]."""
    output = peer(pixel_values=image.unsqueeze(0), input_boxes=boxes.unsqueeze(0), multimask_output=False)
    return output.pred_masks[0, :, 0], output.iou_scores[0, :, 0]
