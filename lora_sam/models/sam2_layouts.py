"""How weights of SAM 2 are named: by this package, by Meta's package `sam2`, and by Hugging Face's `transformers`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError
from lora_sam.models.transformers_names import POSITIONS, PROMPTED

if TYPE_CHECKING:
    from torch import Tensor

# Ours and those of the package `sam2`; the first rule that fits a key renames it. `#` is a number, `*` anything.
_PACKAGE = (
    ("image_encoder.conv_s#.*", "sam_mask_decoder.conv_s#.*"),
    ("image_encoder.no_mem_embed", "no_mem_embed"),
    ("mask_decoder.transformer.layers.#.mlp.lin1.*", "sam_mask_decoder.transformer.layers.#.mlp.layers.0.*"),
    ("mask_decoder.transformer.layers.#.mlp.lin2.*", "sam_mask_decoder.transformer.layers.#.mlp.layers.1.*"),
    ("mask_decoder.*", "sam_mask_decoder.*"),
    ("prompt_encoder.*", "sam_prompt_encoder.*"),
)
# Those of `sam2` and of `transformers.Sam2Model`; every rule works on what the ones before have left.
_TRANSFORMERS = (
    ("image_encoder.trunk.", "vision_encoder.backbone."),
    ("vision_encoder.backbone.patch_embed.proj.", "vision_encoder.backbone.patch_embed.projection."),
    ("image_encoder.neck.convs.#.conv.", "vision_encoder.neck.convs.#."),
    ("sam_mask_decoder.", "mask_decoder."),
    ("sam_prompt_encoder.", "prompt_encoder."),
    (".norm#.", ".layer_norm#."),
    (".norm_final_attn.", ".layer_norm_final_attn."),
    (".out_proj.", ".o_proj."),
    (".mlp.layers.0.", ".mlp.proj_in."),
    (".mlp.layers.1.", ".mlp.proj_out."),
    *PROMPTED,
    ("pred_obj_score_head.layers.0.", "pred_obj_score_head.proj_in."),
    ("pred_obj_score_head.layers.1.", "pred_obj_score_head.layers.0."),
    ("pred_obj_score_head.layers.2.", "pred_obj_score_head.proj_out."),
    ("no_mem_embed", "no_memory_embedding"),
)
_POSITIONS = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_POINTS = "sam_prompt_encoder.point_embeddings.{}.weight"  # four, which transformers stacks
_THEIR_POINTS = "prompt_encoder.point_embed.weight"
VIDEO = re.compile(
    r"(?:memory_\w+|maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial|mask_downsample|obj_ptr_\w+|"
    r"memory_temporal_positional_encoding|no_memory_positional_encoding|no_object_pointer|object_pointer_proj|"
    r"occlusion_spatial_embedding_parameter|temporal_positional_encoding_projection_layer)(?:\.|$)"
)
"""What a checkpoint has for videos beside what an image needs, in both layouts."""


_SIZES = {(96, 12): "sam2_tiny", (96, 16): "sam2_small", (112, 24): "sam2_base_plus", (144, 48): "sam2_large"}
_PATCHES = re.compile(
    r"(?:^|\.)(?:image_encoder\.trunk|vision_encoder\.backbone)\.patch_embed\.proj(?:ection)?\.weight$"
)
_BLOCK = re.compile(r"(?:^|\.)(?:image_encoder\.trunk|vision_encoder\.backbone)\.blocks\.(\d+)\.")


def whichever(state: Mapping[str, Tensor]) -> str:
    """What to do with weights of SAM 2 in any layout: which `model=` takes them, by channels and number of blocks."""
    channels = next((len(value) for key, value in state.items() if _PATCHES.search(key) and value.ndim), None)
    if channels is None:
        if all(VIDEO.search(key) for key in state):
            return "it is the part for videos alone; give the weights of the whole model"
        return "choose model=sam2_tiny, sam2_small, sam2_base_plus or sam2_large, whichever they are of"
    depth = len({match[1] for key in state if (match := _BLOCK.search(key))})
    fitting = _SIZES.get((channels, depth))
    return f"choose model={fitting}" if fitting else "choose model=sam2_tiny and set what differs under model="


def read(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights of SAM 2 in any of the three layouts, with our keys; what is for videos is left out with a note.

    Raises:
        CheckpointError: there is nothing but what is for videos.
    """
    found = {key: value for key, value in state.items() if not VIDEO.match(key)}
    if videos := len(state) - len(found):
        if not found:
            raise CheckpointError(
                f"{path} holds the part of SAM 2 for videos alone: give the weights of the whole model"
            )
        note(f"{path.name!r}: {videos} tensors that SAM 2 has for videos are left out: images need none of them")
    if any(key.startswith("vision_encoder.") for key in found):
        found = from_transformers(found, path)
    return our_state(found)


def package_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our keys, projections fused, as those of the package `sam2`; tensors are shared."""
    return {_renamed(key, _PACKAGE, reverse=False): value for key, value in state.items()}


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `package_state`."""
    return {_renamed(key, _PACKAGE, reverse=True): value for key, value in state.items()}


def transformers_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of the package `sam2` as those of `transformers.Sam2Model`; positions and points are copied."""
    import torch

    renamed: dict[str, Tensor] = {}
    points = [_POINTS.format(kind) for kind in range(4)]
    for key, value in state.items():
        if key == _POSITIONS:
            renamed.update({name: value.clone() for name in POSITIONS})  # which it does not tie
        elif key == points[0]:
            renamed[_THEIR_POINTS] = torch.cat([state[name] for name in points])
        elif key not in points:
            for theirs, other in _TRANSFORMERS:
                key = _replaced(key, theirs, other)
            renamed[key] = value
    return renamed


def from_transformers(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The inverse of `transformers_state`.

    Raises:
        CheckpointError: both copies of the positions are there and differ.
    """
    import torch

    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in POSITIONS:
            if _POSITIONS in renamed and not torch.equal(renamed[_POSITIONS], value):
                raise CheckpointError(
                    f"{path}: {' and '.join(POSITIONS)} differ, where SAM 2 has one tensor; save the model "
                    "again with save_pretrained"
                )
            renamed[_POSITIONS] = value
        elif key == _THEIR_POINTS:
            renamed.update({_POINTS.format(kind): row.unsqueeze(0) for kind, row in enumerate(value)})
        else:
            for theirs, other in reversed(_TRANSFORMERS):
                key = _replaced(key, other, theirs)
            renamed[key] = value
    return renamed


def _renamed(key: str, rules: tuple[tuple[str, str], ...], *, reverse: bool) -> str:
    for rule in rules:
        old, new = reversed(rule) if reverse else rule
        pattern = re.escape(old).replace(r"\#", r"(\d+)").replace(r"\*", "(.*)")
        match = re.fullmatch(pattern, key)
        if match is not None:
            for group in match.groups():
                new = re.sub(r"[#*]", group, new, count=1)
            return new
    return key


def _replaced(key: str, old: str, new: str) -> str:
    """`key` with the module `old` called `new`; whole names only, and `#` is the same number in both."""
    old, new = (name if name.startswith(".") else f".{name}" for name in (old, new))
    pattern = re.escape(old).replace(r"\#", r"(\d+)")
    ending = "" if old.endswith(".") else "$"
    return re.sub(pattern + ending, new.replace("#", r"\1"), f".{key}")[1:]
