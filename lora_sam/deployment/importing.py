"""An adapter of another program becomes one of ours, on the base that it was trained on; and back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.deployment.foreign import VARIANTS, Foreign, read_foreign, sam_lora_state
from lora_sam.deployment.foreign_positions import Positions, rescaled, side_of

if TYPE_CHECKING:
    from torch import Tensor

    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.family import SamModel

_SAME = 1e-6


def import_adapter(
    file: Path,
    output: Path,
    *,
    card: Callable[[dict[str, Any], str | None], str],
    variant: str | None = None,
    base: str | None = None,
    image_size: int | None = None,
    blocks: Sequence[int] | None = None,
    positions: Positions = "usual",
) -> Path:
    """Write `output/adapter`, which gives the masks of the program that the file is from, and returns it.

    alpha is the rank, so that the scale is 1, as it is there. LoRA in the mask decoder is folded into it, and the mask
    decoder is saved whole where it differs from the base; so is the prompt encoder.

    Args:
        file: The file of the other program.
        output: A directory that is not there yet.
        card: Makes the model card of facts, with nothing measured.
        variant: Name of a file in `conf/model/`; None works it out from the sizes in the file.
        base: Checkpoint of the base; None takes the published one.
        image_size: Side of the input; None for that of the model.
        blocks: See `read_foreign`.
        positions: Whose way of scaling tables of positions to `image_size` is taken; with another than the usual one
            the base is written as `output/base.safetensors`.

    Raises:
        AdapterError: the file is no LoRA that is known, or does not fit the base.
        CheckpointError: a file cannot be read.
        ConfigError: the model cannot be worked out, or `output` is there.
    """
    from lora_sam.models.checkpoints import load_state_dict
    from lora_sam.runs.adapter_files import save_adapter

    if output.exists():
        raise ConfigError(f"output = {output} is there already; give a directory that is not")
    found = read_foreign(load_state_dict(file), file, blocks)
    if found.ignored:
        note(f"{file}: {len(found.ignored)} tensors are of something else and left out, e.g. {found.ignored[0]!r:.80}")
    options = _model(found, file, variant, base, image_size)
    depth = len({block for block, _ in found.layers})
    if found.numbered and blocks is None and depth < options.depth:
        raise ConfigError(
            f"{file} has LoRA in {depth} blocks and does not say in which of the {options.depth} of {options.variant}; "
            "give them as blocks=[...]"
        )
    built, side = options.build(), side_of(options, base)
    if not found.encoder:
        _say_what_is_taken(file, built, scaled=positions == "usual" and side not in (None, built.image_size))
    try:
        if positions != "usual":
            if side is None or side == built.image_size:
                raise ConfigError(f"positions = {positions}: no table is scaled here; leave it out, or give image_size")
            built = rescaled(options, built, side, positions, output)
        adapted = _adapted(found, built, file)
        facts = _facts(adapted, found, built, options)
        save_adapter(adapted, output / "adapter", facts, card(facts, None))
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return output / "adapter"


def _say_what_is_taken(file: Path, base: BaseModel, *, scaled: bool) -> None:
    """Note what a file that holds no encoder leaves open, and how it was settled.

    Args:
        file: The file.
        base: What is taken for the base.
        scaled: Whether its tables of positions were scaled to another input.
    """
    note(
        f"{file} does not say on which weights it was trained, nor for which input; {base.source} is taken, images of "
        f"{base.image_size} pixels, and SAM's own colours. CellSeg1 and SAMed train with image_size=512 unless told "
        "otherwise, and SAMed with pixels from 0 to 1 as they are"
    )
    if scaled:
        note(
            f"tables of positions were scaled to {base.image_size} pixels as everywhere here (bicubic, relative ones "
            "linear); SAMed scales them linearly, CellSeg1 linearly with aligned corners, so masks differ from theirs: "
            "positions=samed and positions=cellseg1 give theirs"
        )


def _model(found: Foreign, file: Path, name: str | None, base: str | None, image_size: int | None) -> SamModel:
    import yaml

    from lora_sam.core.conf_files import conf_directory
    from lora_sam.core.config import Problem, build_from, class_of

    depth = 1 + max(block for block, _ in found.layers)
    if name is None:
        name = VARIANTS.get((found.width, depth))
    if name is None:
        raise ConfigError(
            f"{file} has {found.width} channels and layers up to block {depth - 1}, which says no model; give it as "
            "variant=vit_b, and where only some blocks have LoRA as blocks=[...]"
        )
    place = conf_directory() / "model" / f"{name}.yaml"
    if Path(name).name != name or not place.is_file():
        raise ConfigError(f"variant = {name!r:.60}: no such file in conf/model/; give vit_b, vit_l or vit_h")
    values = yaml.safe_load(place.read_text(encoding="utf-8"))
    cls, problems = class_of("model", values.pop("_target_")), list[Problem]()
    values |= {} if image_size is None else {"image_size": image_size}
    values |= {} if base is None else {"checkpoint": base, "weights": "pretrained"}
    options = build_from(cls, "model.", values, problems)
    if problems:
        raise ConfigError("\n".join(problem.text for problem in problems))
    options.check()
    if options.depth < depth:
        raise ConfigError(f"variant = {name} has {options.depth} blocks, {file} has layers of block {depth - 1}")
    return cast("SamModel", options)


def _adapted(found: Foreign, base: BaseModel, file: Path) -> AdaptedSam:
    """The base with an adapter that says what the file says."""
    import re

    import torch
    from peft import LoraConfig

    from lora_sam.methods.adapted import insert
    from lora_sam.models.projections import split_state_dict

    own = base.sam.state_dict()
    _check_encoder(split_state_dict(found.encoder), own, file)
    parts = _parts(found, own, file)
    layers = {f"image_encoder.blocks.{block}.attn.{name}": pair for (block, name), pair in found.layers.items()}
    for name, (a, _) in layers.items():
        weight = own.get(f"{name}.weight")
        if weight is None or weight.shape[1] != a.shape[1]:
            raise AdapterError(f"{file}: {name} of {base.variant} does not fit; give its model as variant=...")
    pattern = "|".join(re.escape(name) for name in sorted(layers))
    config = LoraConfig(
        r=found.rank, lora_alpha=found.rank, target_modules=pattern, modules_to_save=sorted(parts) or None
    )
    adapted = insert(base.sam, config, trains_encoder=True)
    with torch.no_grad():
        for name, (a, b) in layers.items():
            layer: Any = adapted.sam.get_submodule(name)
            layer.lora_A["default"].weight.copy_(a)
            layer.lora_B["default"].weight.copy_(b)
        for part, state in parts.items():
            module: Any = adapted.sam.get_submodule(part)
            module.modules_to_save["default"].load_state_dict(state)
    adapted.peft.requires_grad_(False)
    return adapted


def _check_encoder(state: dict[str, Tensor], own: dict[str, Tensor], file: Path) -> None:
    """Raise `AdapterError` unless the encoder in the file is that of the base."""
    for name, value in state.items():
        same = name in own and value.shape == own[name].shape
        if not same or bool((value.float() - own[name]).abs().max() > _SAME):
            raise AdapterError(
                f"{file}: {name} is not that of the base, so more than LoRA was trained, or on other weights; give the "
                "weights it was trained on as base=..., and its input as image_size=..."
            )


def _parts(found: Foreign, own: dict[str, Tensor], file: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of those of prompt encoder and mask decoder that differ from the base, whole."""
    changed = {name: value.float() for name, value in found.whole.items()}
    for name, value in changed.items():
        if name not in own or own[name].shape != value.shape:
            there = list(own[name].shape) if name in own else "not there"
            raise AdapterError(
                f"{file}: {name} is {list(value.shape)}, in SAM {there}: a decoder of another "
                "shape, as one with a mask for each class, is no SAM"
            )
    for name, (a, b) in found.decoder.items():
        weight = f"{name}.weight"
        if weight not in own or own[weight].shape != (b.shape[0], a.shape[1]):
            raise AdapterError(f"{file}: {name} of the mask decoder does not fit SAM's")
        changed[weight] = changed.get(weight, own[weight]) + b @ a
    parts = {}
    for part in ("mask_decoder", "prompt_encoder"):
        names = [name for name in own if name.startswith(f"{part}.")]
        if any(name in changed and bool((changed[name] - own[name]).abs().max() > 0) for name in names):
            parts[part] = {name.removeprefix(f"{part}."): changed.get(name, own[name]) for name in names}
    return parts


def _facts(adapted: AdaptedSam, found: Foreign, base: BaseModel, options: SamModel) -> dict[str, Any]:
    """Content of `lora_sam.json`."""
    from lora_sam.core.version import __version__
    from lora_sam.runs.adapter_files import SCHEMA_VERSION

    config = adapted.peft.peft_config["default"]
    return {
        "schema_version": SCHEMA_VERSION,
        "architecture": options.architecture(),
        "image_size": base.image_size,
        "base": {
            "source": base.source,
            "sha256": base.sha256,
            **({} if base.tensors is None else {"tensors": base.tensors}),
            "weights_seed": options.weights_seed,
            "prompt_frequency": options.prompt_frequency,
        },
        "method": {
            "name": "lora",
            "rank": found.rank,
            "alpha": float(found.rank),
            "targets": ["q", "v"],
            "whole": sorted(getattr(config, "modules_to_save", None) or []),
            "imported": True,
        },
        "trains_encoder": True,
        "scores": base.scores.to_json(),
        "metrics": None,
        "versions": {
            "lora_sam": __version__,
            **{name: version(name) for name in ("torch", "peft", "segment-anything")},
        },
    }


def export_adapter(adapter: Path, file: Path) -> int:
    """Write the LoRA of an adapter in the layout of Sam_LoRA, scale 1; returns how many layers.

    Args:
        adapter: Its directory.
        file: A `.safetensors` file that is not there yet.

    Raises:
        AdapterError: the adapter has more than LoRA on q and v of blocks, which that layout cannot say.
        ConfigError: `file` is there, or has another ending.
    """
    import math

    from safetensors.torch import load_file, save_file

    from lora_sam.core.files import atomic_path
    from lora_sam.methods.peft_config import NO_TARGETS, WEIGHTS, check_config, check_saved

    if file.suffix != ".safetensors" or file.exists():
        raise ConfigError(f"file = {file}: give a .safetensors file that is not there yet")
    config = check_config(adapter)
    check_saved(adapter)
    more = [
        name
        for name in ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save")
        if config.get(name)
    ]
    more += ["bias"] if config.get("bias", "none") != "none" else []
    if config["peft_type"] != "LORA" or config.get("target_modules") == NO_TARGETS or more:
        what = config["peft_type"] if config["peft_type"] != "LORA" else ", ".join(more) or "no LoRA"
        raise AdapterError(
            f"{adapter} has {what}, which Sam_LoRA's files cannot say; train with method=lora method.decoder=frozen"
        )
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    tensors = load_file(adapter / WEIGHTS)
    layers = {}
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            layers[name] = (a, tensors[key.replace(".lora_A.", ".lora_B.")] * scale)
    state = sam_lora_state(layers, adapter)
    with atomic_path(file) as temporary:
        save_file(state, temporary)
    return len(state) // 2
