"""The layouts in which weights of SAM are passed on, made those of the modules here; other models by their name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError
from lora_sam.models import sam2_layouts, sam3_layouts
from lora_sam.models.transformers_names import POSITIONS, PROMPTED

if TYPE_CHECKING:
    from torch import Tensor

# How the two packages name the same modules: segment_anything, transformers. From left to right each rule works on what
# the ones before have left, and from right to left in the opposite order. `#` is a number.
_NAMES = (
    ("image_encoder.", "vision_encoder."),
    ("vision_encoder.blocks.", "vision_encoder.layers."),
    ("patch_embed.proj.", "patch_embed.projection."),
    (".norm#.", ".layer_norm#."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
    (".norm_final_attn.", ".layer_norm_final_attn."),
    ("prompt_encoder.point_embeddings.", "prompt_encoder.point_embed."),
    *PROMPTED,
    # what SAM-HQ has beside
    ("hf_token.", "hq_token."),
    ("hf_mlp.layers.0.", "hq_mask_mlp.proj_in."),
    ("hf_mlp.layers.1.", "hq_mask_mlp.layers.0."),
    ("hf_mlp.layers.2.", "hq_mask_mlp.proj_out."),
    ("compress_vit_feat.0.", "compress_vit_conv1."),
    ("compress_vit_feat.1.", "compress_vit_norm."),
    ("compress_vit_feat.3.", "compress_vit_conv2."),
    ("embedding_encoder.0.", "encoder_conv1."),
    ("embedding_encoder.1.", "encoder_norm."),
    ("embedding_encoder.3.", "encoder_conv2."),
    ("embedding_maskfeature.0.", "mask_conv1."),
    ("embedding_maskfeature.1.", "mask_norm."),
    ("embedding_maskfeature.3.", "mask_conv2."),
)
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
# What every SAM of a family begins with, in all layouts.
_PLAIN_VIT = r"image_encoder\.patch_embed\.proj\.weight$|vision_encoder\.patch_embed\.projection\.weight$"
_TINY_VIT = r"image_encoder\.(?:patch_embed\.seq\.|layers\.\d+\.blocks\.)"
_HQ = r"hf_token\.|hq_token\.|hf_mlp\.|hq_mask_mlp\.|compress_vit_\w+\."
_WITH_PLAIN_VIT = re.compile(rf"(?:^|(?<=\.))(?:{_PLAIN_VIT})")
_WITH_TINY_VIT = re.compile(r"(?:^|(?<=\.))image_encoder\.patch_embed\.seq\.0\.c\.weight$")
_ENTRANCES = {
    "vit": _WITH_PLAIN_VIT,
    "tiny_vit": _WITH_TINY_VIT,
    "sam2": re.compile(
        r"(?:^|(?<=\.))(?:image_encoder\.trunk\.patch_embed\.proj\.weight$|"
        r"vision_encoder\.backbone\.patch_embed\.projection\.weight$)"
    ),
    "sam3": re.compile(
        r"(?:^|(?<=\.))(?:(?:detector\.)?backbone\.vision_backbone\.trunk\.patch_embed\.proj\.weight$|"
        r"(?:(?:detector_model\.)?vision|image)_encoder\.backbone\.embeddings\.patch_embeddings\.projection\.weight$)"
    ),
    "sam_hq": _WITH_PLAIN_VIT,
    "sam_hq_tiny": _WITH_TINY_VIT,
}
# Models by keys that only they have, of each of these patterns one; the first that fits names a file, so the more
# special ones stand first. The names are those of the published files and of `transformers`.
_KINDS = (
    ("an adapter", r"w_[ab]_\d+$|lora_[AB]\.|base_model\.model\.|linear_[ab]_[qv]\.|w_[ab]_linear_[qv]\."),
    ("SAM 3.1", r"(?:interactive|propagation)_convs\."),
    (
        "SAM 3",
        r"vision_backbone\.trunk\.|language_backbone\.|detr_decoder\.|vision_encoder\.neck\.fpn_layers\.|"
        r"(?:image|vision)_encoder\.backbone\.(?:embeddings|layers)\.|tracker(?:_model)?\.",
    ),
    ("HQ-SAM 2", rf"sam_mask_decoder\.(?:{_HQ})"),
    ("SAM 2", r"image_encoder\.trunk\.|sam_mask_decoder\.|memory_attention\.|vision_encoder\.backbone\."),
    ("SAM-HQ with a TinyViT", _HQ, _TINY_VIT),
    ("SAM-HQ", _HQ),
    ("MobileSAM, or another SAM with a TinyViT", _TINY_VIT),
    ("EfficientSAM", r"image_encoder\.blocks\.\d+\.mlp\.fc1\."),
    ("a SAM with another image encoder than a plain ViT", r"image_encoder\.(?:features|backbone|model|stages)\."),
    ("a SAM with a plain ViT", _PLAIN_VIT),
)
_OWN = {
    "vit": "a SAM with a plain ViT",
    "tiny_vit": "MobileSAM, or another SAM with a TinyViT",
    "sam2": "SAM 2",
    "sam3": "SAM 3",
    "sam_hq": "SAM-HQ",
    "sam_hq_tiny": "SAM-HQ with a TinyViT",
}
_REMEDIES: Mapping[str, Callable[[Mapping[str, Tensor]], str]] = MappingProxyType(
    {
        "an adapter": lambda _: "give the weights of SAM that it was trained on",
        "SAM 3.1": lambda _: (
            "no model= takes it, as it has three pyramids for two; choose model=sam3 for weights of SAM 3"
        ),
        _OWN["vit"]: lambda _: "choose model=vit_b, vit_l or vit_h, whichever they are of, or another model.checkpoint",
        _OWN["tiny_vit"]: lambda _: "choose model=tiny_vit, or another model.checkpoint",
        _OWN["sam2"]: sam2_layouts.whichever,
        _OWN["sam3"]: sam3_layouts.whichever,
        _OWN["sam_hq"]: lambda state: _whichever_hq(state),
        _OWN["sam_hq_tiny"]: lambda _: "choose model=sam_hq_tiny",
    }
)
_READ = {
    "vit": "give weights of the first SAM (vit_b, vit_l, vit_h or a plain ViT of another size)",
    "tiny_vit": "give weights of MobileSAM",
    "sam2": "give weights of SAM 2 or SAM 2.1",
    "sam3": "give weights of SAM 3",
    "sam_hq": "give weights of SAM-HQ",
    "sam_hq_tiny": "give weights of SAM-HQ with a TinyViT",
}
# of families whose weights are named otherwise than those of the first SAM
_READERS = {"sam2": sam2_layouts.read, "sam3": sam3_layouts.read}
# of SamPredictor, which the pre-processing here follows
_PIXELS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}


def transformers_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the keys of `segment_anything` under those of `transformers.SamModel`; tensors are shared."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == _POSITIONS:
            renamed.update(dict.fromkeys(POSITIONS, value))
            continue
        for ours, theirs in _NAMES:
            key = _replaced(key, ours, theirs)
        renamed[key] = value
    return renamed


def plain_state(state: Mapping[str, Tensor], path: Path, family: str = "vit") -> dict[str, Tensor]:
    """The weights of a SAM with the keys of its modules here, projections fused, however they are stored:

    - under one common prefix (`module.`, `model.`, `sam.`, ...), where what lies beside it is left out with a note;
    - in the layout of `transformers.SamModel`, or of `transformers.Sam2Model` for SAM 2;
    - with `q`, `k`, `v` for `qkv`, as this package computes with them;
    - with the buffers `pixel_mean` and `pixel_std`, which have to be those of `SamPredictor`.

    What is in no such layout is returned as it is. Tensors are shared, but for `qkv`.

    Args:
        state: Tensors by name.
        path: The file they are from, for messages.
        family: Of which family the SAM has to be.

    Raises:
        CheckpointError: it is another model, which is named; it holds several; its pixels are normalised otherwise.
    """
    from lora_sam.models.projections import fuse_state_dict

    kind = _kind_of(state)
    if kind not in (None, _OWN[family]):
        remedy = _REMEDIES[kind](state) if kind in _REMEDIES else _READ[family]
        raise CheckpointError(f"{path} holds {kind}, which cannot be the base: {remedy}")
    found = _under_prefix(state, path, _ENTRANCES[family])
    if family in _READERS:
        found = _READERS[family](found, path)
    elif any(key.startswith("vision_encoder.") for key in found):
        found = _from_transformers(found, path)
    if any(key.endswith(".attn.q.weight") for key in found):
        found = fuse_state_dict(found)
    return dict(_without_pixels(found, path))


def _kind_of(state: Mapping[str, Tensor]) -> str | None:
    """What weights are of, in words; None where no key tells."""
    for name, *patterns in _KINDS:
        whole_names = [re.compile(rf"(?:^|\.)(?:{pattern})") for pattern in patterns]
        if all(any(whole_name.search(key) for key in state) for whole_name in whole_names):
            return name
    return None


def _whichever_hq(state: Mapping[str, Tensor]) -> str:
    """What to do with weights of SAM-HQ with a plain ViT, by the channels of its image encoder."""
    patches = next((value for key, value in state.items() if _WITH_PLAIN_VIT.search(key) and value.ndim == 4), None)
    fitting = None if patches is None else {768: "b", 1024: "l", 1280: "h"}.get(len(patches))
    return f"choose model=sam_hq_{fitting or 'b, sam_hq_l or sam_hq_h, whichever they are of'}"


def _under_prefix(state: Mapping[str, Tensor], path: Path, entrance: re.Pattern[str]) -> dict[str, Tensor]:
    """What lies under the prefix of the one SAM in `state`, without it."""
    prefixes = sorted({key[: match.start()] for key in state if (match := entrance.search(key))})
    if len(prefixes) > 1:
        names = ", ".join(f"{prefix!r:.40}" for prefix in prefixes[:4])
        raise CheckpointError(
            f"{path} holds {len(prefixes)} models, under {names}: save the state dict of the one that is meant"
        )
    if not prefixes or not prefixes[0]:
        return dict(state)
    prefix = prefixes[0]
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if outside := sorted(key for key in state if not key.startswith(prefix)):
        note(
            f"{path.name!r}: the weights under {prefix!r:.40} are taken; {len(outside)} other tensors are left out "
            f"({outside[0]!r:.60})"
        )
    return inside


def _from_transformers(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    import torch

    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in POSITIONS:
            if _POSITIONS in renamed and not torch.equal(renamed[_POSITIONS], value):
                raise CheckpointError(
                    f"{path}: {' and '.join(POSITIONS)} differ, where SAM has one tensor; save the model again "
                    "with save_pretrained"
                )
            key = _POSITIONS
        for ours, theirs in reversed(_NAMES):
            key = _replaced(key, theirs, ours)
        renamed[key] = value
    return renamed


def _without_pixels(state: Mapping[str, Tensor], path: Path) -> Iterator[tuple[str, Tensor]]:
    """All but the two constants of the pre-processing, which may count from 0 to 255 or from 0 to 1."""
    for key, value in state.items():
        usual = _PIXELS.get(key)
        if usual is None:
            yield key, value
            continue
        stored = [float(number) for number in value.flatten()[:4]]
        scaled = [number * (255 if max(map(abs, stored), default=0) <= 1 else 1) for number in stored]
        if len(scaled) != 3 or not all(abs(a - b) <= 0.1 for a, b in zip(scaled, usual, strict=True)):
            shown = ", ".join(f"{number:g}" for number in stored)
            raise CheckpointError(
                f"{path}: its {key} is [{shown}], SAM's is {list(usual)}: these weights want other pixels than "
                "they would get here; use weights that were trained with SAM's own"
            )


def _replaced(key: str, old: str, new: str) -> str:
    """`key` with the module `old` called `new`; whole names only, and `#` is the same number in both."""
    old, new = (name if name.startswith(".") else f".{name}" for name in (old, new))
    if "#" in old:
        pattern = re.escape(old).replace(r"\#", r"(\d+)")
        return re.sub(pattern, new.replace("#", r"\1"), f".{key}")[1:]
    return f".{key}".replace(old, new)[1:]
