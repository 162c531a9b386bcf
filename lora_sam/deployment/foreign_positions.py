"""Weights whose tables of positions are scaled to another input as another program scales them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lora_sam.core.files import sha256_of, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.family import SamModel

Positions = Literal["usual", "samed", "cellseg1"]
"""Whose way it is: `usual` is that of this package (`lora_sam.models.vit.resize_positions`)."""

BASE = "base.safetensors"


def rescaled(options: SamModel, base: BaseModel, side: int, positions: Positions, output: Path) -> BaseModel:
    """A base with tables of another program, written to `output/base.safetensors`, where whoever loads it finds it.

    Args:
        options: Its variant, with the side that is wanted.
        base: It, as this package builds it; its tables are changed in place.
        side: Side of the input that the tables in its file are for.
        positions: Whose way it is.
        output: A directory that is not there yet.
    """
    import torch
    from safetensors.torch import save_file

    from lora_sam.models.family import family_of
    from lora_sam.models.projections import fuse_state_dict

    own: Any = options
    tables = replace(own, image_size=side).build().sam.state_dict()
    grid = base.image_size // (side // tables["image_encoder.pos_embed"].shape[1])
    with torch.no_grad():
        for name, value in _scaled(tables, grid, options.global_attention, aligned=positions == "cellseg1"):
            base.sam.get_parameter(name).copy_(value)
    state = family_of(base.sam.image_encoder).published(fuse_state_dict(base.sam.state_dict()))
    about = json.dumps({"architecture": options.architecture(), "scores": base.scores.to_json()}, sort_keys=True)
    output.mkdir(parents=True)
    file = (output / BASE).absolute()
    save_file({name: value.contiguous() for name, value in state.items()}, file, {"lora_sam": about})
    write_text(output / "config.json", json.dumps({"model": {"checkpoint": str(file)}}, indent=2) + "\n")
    return replace(base, sha256=sha256_of(file), source=BASE, of_tensors=lambda: None)


def side_of(options: SamModel, base: str | None) -> int | None:
    """Side of the input that the tables of positions in a file of weights are for; None where there is no such file."""
    from lora_sam.core.config import from_conf
    from lora_sam.models.building import PATCH_SIZE
    from lora_sam.models.checkpoints import load_state_dict

    if options.weights == "random":
        return None
    if base is None:
        return int(from_conf(f"model/{options.variant}").image_size)
    tables = (value for name, value in load_state_dict(Path(base)).items() if name.endswith("pos_embed"))
    return next((PATCH_SIZE * int(value.shape[1]) for value in tables if value.ndim == 4), None)


def _scaled(
    state: Mapping[str, Tensor], grid: int, global_attention: Collection[int], *, aligned: bool
) -> Iterator[tuple[str, Tensor]]:
    """The absolute table [1, G, G, C] and the relative ones [2G-1, c] of global attention, scaled linearly."""
    from torch.nn import functional as F

    name = "image_encoder.pos_embed"
    table = state[name].permute(0, 3, 1, 2)
    yield name, F.interpolate(table, (grid, grid), mode="bilinear", align_corners=aligned).permute(0, 2, 3, 1)
    for block in global_attention:
        for axis in "hw":
            name = f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"
            size = 2 * grid - 1, state[name].shape[1]
            yield name, F.interpolate(state[name][None, None], size, mode="bilinear", align_corners=aligned)[0, 0]
