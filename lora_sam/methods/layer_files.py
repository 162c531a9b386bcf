"""The layers of a method in an adapter's files: saved, described, put in again.

Which layers they are stands in the metadata of `adapter_model.safetensors`, so that they are in the model before PEFT
gives them their weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import read_json
from lora_sam.methods.peft_config import FILE, WEIGHTS
from lora_sam.models.inserted import KEY, NAME, Description, describe, find, put_in

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_PREFIX = "base_model.model."


def put_in_saved(sam: Sam, directory: Path) -> None:
    """Put the layers of a saved adapter, if it has any, into a split `sam`, in place; they change nothing yet.

    Raises:
        AdapterError: their description is missing or damaged, or does not fit the model or their weights.
    """
    try:
        description = saved(directory)
        if description is not None:
            with torch.random.fork_rng(devices=[]):  # layers draw weights that are overwritten at once
                put_in(sam, description)
    except AdapterError:
        raise
    except ValueError as error:
        raise AdapterError(f"{directory / WEIGHTS}: {error}; train again or restore the file") from error


def saved(directory: Path) -> Description | None:
    """Which layers a saved adapter has; None where it has none.

    Raises:
        AdapterError: a file cannot be read.
        ValueError: their description is missing or damaged, or does not fit their weights.
    """
    try:
        with safe_open(directory / WEIGHTS, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            shapes = {
                name.removeprefix(_PREFIX).replace(f".{NAME}.", ".", 1): file.get_slice(name).get_shape()
                for name in file.keys()  # noqa: SIM118
                if f".{NAME}." in name
            }
    except (SafetensorError, OSError):
        return None  # who reads the tensors says what is wrong with them
    named = NAME in (read_json(directory / FILE, "restore the file").get("modules_to_save") or ())
    if text is None and not named and not shapes:
        return None
    if text is None or not named:
        raise ValueError("the description of the layers is missing")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError("the description of the layers is damaged") from error
    return Description.from_json(value, shapes)


def save(sam: Sam, peft: PeftModel, directory: Path) -> None:
    """Write the adapter of a model with layers: as PEFT does, with their description, or as LoRA where they are that.

    Layers that are others once trained are written as these.

    Raises:
        SafetensorError: the disk is full.
    """
    description = describe(sam)
    assert description is not None
    config = cast("LoraConfig", peft.peft_config["default"])
    state = get_peft_model_state_dict(peft, save_embedding_layers=False)
    factors, settled = _factors(sam), _settled(sam)
    if factors or settled:
        state = {key: value for key, value in state.items() if f".{NAME}." not in key}
    for place, (layer, kind, options) in settled.items():
        state |= {f"{_PREFIX}{place}.{NAME}.{name}": value for name, value in layer.state_dict().items()}
        description = Description(kind, options, tuple(settled))
    metadata = {KEY: json.dumps(description.to_json(), sort_keys=True)}
    if factors:
        for place, (a, b) in factors.items():
            state |= {f"{_PREFIX}{place}.lora_A.weight": a, f"{_PREFIX}{place}.lora_B.weight": b}
        ranks = {place: len(a) for place, (a, _) in factors.items()}
        most = max(ranks.values())
        others = {re.escape(place): rank for place, rank in ranks.items() if rank < most}
        config = replace(
            config,
            r=most,
            lora_alpha=most,
            target_modules="|".join(map(re.escape, factors)),
            modules_to_save=[name for name in config.modules_to_save or () if name != NAME] or None,
            rank_pattern=others,
            alpha_pattern=dict(others),
        )
        metadata = {"format": "pt"}
    directory.mkdir(parents=True, exist_ok=True)
    replace(config, inference_mode=True).save_pretrained(str(directory))
    # one key, since safetensors writes several in any order
    save_file({key: value.contiguous() for key, value in state.items()}, directory / WEIGHTS, metadata)


def saved_as(sam: Sam) -> str | None:
    """What the layers of a model that trains are in its files, where they are not saved as they train."""
    if _factors(sam):
        return "plain LoRA"
    return "prompts of their own" if _settled(sam) else None


def _layers(sam: Sam) -> dict[str, Any]:
    """The layers that train, by place."""
    return {place: cast("Any", module.inserted).modules_to_save["default"] for place, module in find(sam).items()}


def _factors(sam: Sam) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of layers that are LoRA, by place."""
    found = {}
    for place, layer in _layers(sam).items():
        if hasattr(layer, "factors"):
            found[place] = tuple(factor.detach() for factor in layer.factors())
    return cast("dict[str, tuple[Tensor, Tensor]]", found)


def _settled(sam: Sam) -> dict[str, tuple[nn.Module, str, dict[str, Any]]]:
    """What layers are once trained, by place; see `lora_sam.models.inserted_layers`."""
    bases = find(sam)
    return {
        place: layer.settled(bases[place].base) for place, layer in _layers(sam).items() if hasattr(layer, "settled")
    }
