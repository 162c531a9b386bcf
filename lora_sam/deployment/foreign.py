"""LoRA of SAM as other programs save it: read into factors by layer, and written in the layout of Sam_LoRA.

All of them add B A x to q and v of SAM's fused `qkv`, without a scale, and differ in names:

- numbered: `w_a_000`, `w_b_000`, ..., two for each block, q before v (JamesQFreeman/Sam_LoRA, MathieuNlp/Sam_LoRA);
  beside them `prompt_encoder.*` and `mask_decoder.*` (SAMed), and `sa_*`, `cti_*`, `cit_*`, `fati_*` in the decoder
  (CellSeg1);
- named: a whole state dict with `attn.qkv.linear_a_q` (finetune-SAM) or `attn.qkv.w_a_linear_q` (micro-sam), with
  `q_proj.w_a` in the decoder (finetune-SAM).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lora_sam.core.errors import AdapterError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Factors = tuple["Tensor", "Tensor"]
"""A [r, in] and B [out, r] of a difference B A."""

VARIANTS = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
"""Variants by width and number of blocks."""

_PREFIX = re.compile(r"^(?:module\.|model\.|sam\.)*")
_NUMBERED = re.compile(r"(w|sa|cti|cit)_([ab])_(\d{3,4})")
_LAST = re.compile(r"fati_([qv])([ab])")
_ENCODER = re.compile(
    r"image_encoder\.blocks\.(\d+)\.attn\.qkv\.(?:w_([ab])_linear_([qv])|linear_([ab])_([qv]))\.weight"
)
_DECODER = re.compile(r"(mask_decoder\.transformer\..+\.[qv]_proj)\.w_([ab])\.weight")
_WRAPPED = re.compile(r"(\.attn\.qkv)\.(?:qkv|qkv_proj)\.|(\.[qv]_proj)\.proj\.")
_OF_DECODER = {"sa": "self_attn", "cti": "cross_attn_token_to_image", "cit": "cross_attn_image_to_token"}
# further factors, what scales them, and whatever else lies in the attention or is counted as layers are
_OF_AN_ADAPTER = re.compile(
    r"FacT|linear_[ab]|lora|\.w_[ab]\.|^[a-z_]+_\d{2,}$|^[a-z_]*(?:alpha|scal)[a-z_]*\d*$|"
    r"\.attn\.qkv\.(?!(?:qkv|qkv_proj|weight|bias)\b)"
)
# heads of classifiers that SAM's encoder does not have, buffers of pre-processing
_WITHOUT_MEANING = re.compile(r"fc_\d+in_\d+out|pixel_(mean|std)")


@dataclass(frozen=True)
class Foreign:
    """What a file of another program holds.

    Attributes:
        layers: Factors by (block, `q` or `v`) of the image encoder.
        decoder: Factors by the name of a Linear of the mask decoder.
        whole: Weights of prompt encoder and mask decoder, by their names in SAM.
        encoder: Weights of the image encoder, by their names in SAM, which ought to be those of the base.
        ignored: Names of what is something else.
        numbered: Whether layers are counted, so that nothing says which blocks they belong to.
    """

    layers: dict[tuple[int, str], Factors] = field(default_factory=dict)
    decoder: dict[str, Factors] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    encoder: dict[str, Tensor] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    numbered: bool = False

    @property
    def rank(self) -> int:
        """The rank of all layers of the image encoder."""
        return int(next(iter(self.layers.values()))[0].shape[0])

    @property
    def width(self) -> int:
        """Channels of the image encoder."""
        return int(next(iter(self.layers.values()))[0].shape[1])


def read_foreign(state: Mapping[str, Tensor], path: Path, blocks: Sequence[int] | None) -> Foreign:
    """Sort the tensors of a file.

    Args:
        state: Tensors by name.
        path: The file they are from, for messages.
        blocks: The blocks that numbered layers belong to; None for all from the first on.

    Raises:
        AdapterError: there is no LoRA in it, a factor is missing, has another rank, or lies where none is known.
    """
    found = Foreign(numbered=any(_PREFIX.sub("", key).startswith("w_a_") for key in state))
    halves: dict[tuple[int, str] | str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name = _PREFIX.sub("", key)
        place = _place(name, path, blocks)
        if place is not None:
            if not value.is_floating_point():
                raise AdapterError(
                    f"{path}: {key!r:.99} is of type {value.dtype}; save it as it was before, in fractions"
                )
            _put(halves.setdefault(place[0], {}), place[1], value.float(), path, key)
        elif _OF_AN_ADAPTER.search(name):
            raise AdapterError(
                f"{path}: {key!r:.99} belongs to an adapter that cannot be read here; only LoRA on q and v can"
            )
        elif name.startswith("image_encoder."):
            _put(found.encoder, _WRAPPED.sub(r"\1\2.", name), value, path, key)
        elif name.startswith(("prompt_encoder.", "mask_decoder.")):
            _put(found.whole, _WRAPPED.sub(r"\1\2.", name), value, path, key)
        elif not _WITHOUT_MEANING.fullmatch(name):
            found.ignored.append(key)
    for where, pair in halves.items():
        fits = (
            len(pair) == 2 and all(one.ndim == 2 for one in pair.values()) and pair["a"].shape[0] == pair["b"].shape[1]
        )
        if not fits:
            raise AdapterError(f"{path}: the two factors of {where} do not belong together, or one is missing")
        if not all(bool(one.isfinite().all()) for one in pair.values()):
            raise AdapterError(f"{path}: a factor of {where} holds values that are not finite")
        if isinstance(where, str):
            found.decoder[where] = (pair["a"], pair["b"])
        else:
            found.layers[where] = (pair["a"], pair["b"])
    _check_layers(found, path, blocks)
    return found


def _put(those: dict[str, Tensor], name: str, value: Tensor, path: Path, key: str) -> None:
    """Add a tensor, of which a file may have two where several models are in it, such as an average beside the last."""
    other = those.setdefault(name, value)
    if other is not value and not (other.shape == value.shape and bool((other == value).all())):
        raise AdapterError(
            f"{path} holds several models, which have other values for {key!r:.99}: save the state dict of the one "
            "that is meant"
        )


def _place(name: str, path: Path, blocks: Sequence[int] | None) -> tuple[tuple[int, str] | str, str] | None:
    """Which layer a tensor is a factor of, and which; None where it is none."""
    if match := _NUMBERED.fullmatch(name):
        kind, half, number = match[1], match[2], int(match[3])
        position, projection = number // 2, "qv"[number % 2]
        if kind != "w":
            return f"mask_decoder.transformer.layers.{position}.{_OF_DECODER[kind]}.{projection}_proj", half
        if blocks is not None and position >= len(blocks):
            raise AdapterError(f"{path} has layers of more blocks than blocks={list(blocks)} names")
        return (position if blocks is None else blocks[position], projection), half
    if match := _LAST.fullmatch(name):
        return f"mask_decoder.transformer.final_attn_token_to_image.{match[1]}_proj", match[2]
    if match := _ENCODER.fullmatch(name):
        return (int(match[1]), match[3] or match[5]), match[2] or match[4]
    if match := _DECODER.fullmatch(name):
        return match[1], match[2]
    return None


def _check_layers(found: Foreign, path: Path, blocks: Sequence[int] | None) -> None:
    if not found.layers:
        raise AdapterError(
            f"{path} holds no LoRA of SAM's image encoder: neither w_a_000 nor attn.qkv.linear_a_q nor w_a_linear_q"
        )
    wanted = (found.rank, found.width)
    for (block, projection), (a, b) in found.layers.items():
        if (a.shape[0], a.shape[1]) != wanted or b.shape[0] != found.width:
            raise AdapterError(
                f"{path}: {projection} of block {block} is {list(b.shape)} by {list(a.shape)}, others have rank "
                f"{found.rank} and {found.width} channels"
            )
    named = {block for block, _ in found.layers}
    if blocks is not None and named != set(blocks):
        raise AdapterError(f"{path} has layers of {len(named)} blocks, blocks={list(blocks)} names {len(set(blocks))}")
    wanted_blocks = range(max(named) + 1) if found.numbered and blocks is None else sorted(named)
    for layer in itertools.product(wanted_blocks, "qv"):
        if layer not in found.layers:
            raise AdapterError(f"{path}: {layer[1]} of block {layer[0]} has no factors; the file is not whole")


def sam_lora_state(layers: Mapping[str, Factors], path: Path) -> dict[str, Tensor]:
    """Factors, with their scale in B, under the names of Sam_LoRA.

    Args:
        layers: By the name of a Linear in SAM with separate projections.
        path: Of the adapter, for messages.

    Raises:
        AdapterError: other Linears than q and v of blocks are among them, or one of the two is missing.
    """
    known = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.([qv])")
    places = {}
    for name, pair in layers.items():
        match = known.fullmatch(name)
        if match is None:
            raise AdapterError(f"{path}: {name} has LoRA, and Sam_LoRA knows it on q and v of SAM's blocks alone")
        places[int(match[1]), match[2]] = pair
    state = {}
    blocks = sorted({block for block, _ in places})
    for index, (block, projection) in enumerate((block, projection) for block in blocks for projection in "qv"):
        if (block, projection) not in places:
            raise AdapterError(f"{path}: block {block} has no LoRA on {projection}; Sam_LoRA has it on both q and v")
        a, b = places[block, projection]
        state[f"w_a_{index:03d}"], state[f"w_b_{index:03d}"] = a.contiguous(), b.contiguous()
    return state
