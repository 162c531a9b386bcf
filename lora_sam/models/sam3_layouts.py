"""How weights of SAM 3 are named: by this package, by Hugging Face's `transformers`, and by Meta's package `sam3`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError
from lora_sam.models.sam2_layouts import from_transformers, our_state, package_state, transformers_state

if TYPE_CHECKING:
    from torch import Tensor

# Ours and those of `Sam3TrackerModel`.
_VISION = (("image_encoder.backbone.", "vision_encoder.backbone."), ("image_encoder.neck.", "vision_encoder.neck."))
# Those of `Sam3VideoModel`, as the file on the Hub has them, and of `Sam3TrackerModel`.
_VIDEO_MODEL = (
    ("detector_model.vision_encoder.backbone.", "vision_encoder.backbone."),
    ("tracker_neck.", "vision_encoder.neck."),
    ("tracker_model.", ""),
)
# Those of the package `sam3`, from where its vision backbone begins, and ours.
_TRUNK = "backbone.vision_backbone.trunk."
_PACKAGE = (
    (r"trunk\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"trunk\.ln_pre\.", "backbone.layer_norm."),
    (r"trunk\.blocks\.(\d+)\.norm([12])\.", r"backbone.layers.\1.layer_norm\2."),
    (r"trunk\.blocks\.(\d+)\.attn\.proj\.", r"backbone.layers.\1.attention.o_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.", r"backbone.layers.\1.mlp."),
    (r"sam2_convs\.(\d)\.dconv_2x2(?:_0)?\.", r"neck.fpn_layers.\1.scale_layers.0."),
    (r"sam2_convs\.(\d)\.dconv_2x2_1\.", r"neck.fpn_layers.\1.scale_layers.2."),
    (r"sam2_convs\.(\d)\.conv_1x1\.", r"neck.fpn_layers.\1.proj1."),
    (r"sam2_convs\.(\d)\.conv_3x3\.", r"neck.fpn_layers.\1.proj2."),
)
_QKV = re.compile(r"trunk\.blocks\.(\d+)\.attn\.qkv\.(\w+)$")
_POSITIONS = "trunk.pos_embed"
_PROMPTED = ("sam_mask_decoder.", "sam_prompt_encoder.", "no_mem_embed")  # of Meta's tracker, what an image needs
_NEEDED = ("vision_encoder.", "prompt_encoder.", "mask_decoder.", "shared_image_embedding.", "no_memory_embedding")
_DETECTOR = re.compile(r"(?:^|\.)(?:detr_(?:en|de)coder|geometry_encoder|language_backbone|text_encoder)\.")
_TRACKER = re.compile(r"(?:^|\.)(?:tracker(?:_model)?|inst_interactive_predictor)\.|(?:^|\.)no_mem(?:ory)?_embed")
_TRUNKS = re.compile(rf"{re.escape(_TRUNK)}|(?:vision|image)_encoder\.backbone\.(?:embeddings|layers)\.")


def whichever(state: Iterable[str]) -> str:
    """What to do with weights of SAM 3 in any layout, by their names."""
    keys = list(state)
    if not any(_TRUNKS.search(key) for key in keys):
        return "it is the tracker without its image encoder; choose model=sam3 and give the weights of the whole model"
    if any(_DETECTOR.search(key) for key in keys) and not any(_TRACKER.search(key) for key in keys):
        return (
            "it is the detector alone, which finds concepts in words; choose model=sam3 and give the weights of the "
            "whole model"
        )
    return "choose model=sam3"


def read(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights of SAM 3 in any layout, with our keys; what is for words and for videos is left out with a note.

    Raises:
        CheckpointError: the tracker or the image encoder is missing.
    """
    if any(key.startswith("image_encoder.") for key in state):
        return dict(state)
    missing = whichever(state).partition(";")[0]
    if missing.startswith("it is"):
        raise CheckpointError(
            f"{path} holds a part of SAM 3: {missing}: give the weights of the whole model, sam3.pt or "
            "model.safetensors of huggingface.co/facebook/sam3"
        )
    if any(_TRUNK in key for key in state):
        found, count = _from_package(state)
    else:
        found, count = _from_hub(state, path)
    if beside := len(state) - count:
        note(f"{path.name!r}: {beside} tensors that SAM 3 has for words and for videos are left out: clicks need none")
    return found


def tracker_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our keys as those of `transformers.Sam3TrackerModel`; positions and points are copied, all else is shared."""
    vision: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for key, value in state.items():
        theirs = _renamed(key, _VISION)
        (others if theirs == key else vision)[theirs] = value
    return {**vision, **transformers_state(package_state(others))}


def _from_hub(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], int]:
    """Weights as `transformers` names them, with our keys, and how many were taken."""
    whole = any(key.startswith("detector_model.") for key in state)
    named = {_renamed(key, _VIDEO_MODEL): value for key, value in state.items()} if whole else state
    needed = {key: value for key, value in named.items() if key.startswith(_NEEDED)}
    back = [(theirs, ours) for ours, theirs in _VISION]
    vision = {_renamed(key, back): value for key, value in needed.items() if key.startswith("vision_encoder.")}
    rest = {key: value for key, value in needed.items() if not key.startswith("vision_encoder.")}
    return {**vision, **our_state(from_transformers(rest, path))}, len(needed)


def _from_package(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Weights as Meta's package names them, with our keys, and how many were taken."""
    found: dict[str, Tensor] = {}
    prompted: dict[str, Tensor] = {}
    for key, value in state.items():
        inside = key.partition("backbone.vision_backbone.")[2]
        after = re.sub(r"^(?:tracker|inst_interactive_predictor\.model)\.", "", key)
        if after.startswith(_PROMPTED):
            prompted[after] = value
        elif inside == _POSITIONS:  # the first may be that of a token that the pre-training had
            beyond = value.shape[1] - math.isqrt(value.shape[1]) ** 2
            found["image_encoder.backbone.embeddings.position_embeddings"] = value[:, min(1, beyond) :]
        elif match := _QKV.match(inside):
            names = (f"image_encoder.backbone.layers.{match[1]}.attention.{name}_proj.{match[2]}" for name in "qkv")
            found.update(zip(names, (part.clone() for part in value.chunk(3)), strict=True))
        else:
            for theirs, ours in _PACKAGE:
                if re.match(theirs, inside):
                    found["image_encoder." + re.sub(f"^{theirs}", ours, inside)] = value
                    break
    fused = sum(".q_proj." in key for key in found)  # three of one
    return {**found, **our_state(prompted)}, len(found) - 2 * fused + len(prompted)


def _renamed(key: str, rules: Iterable[tuple[str, str]]) -> str:
    for old, new in rules:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
