"""Several adapters of one base as one: the weighted combination of what they changed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, LoraModel
from peft.utils.merge_utils import dare_linear, dare_ties, task_arithmetic, ties
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor
from torch.nn import functional as F

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import read_json
from lora_sam.methods import adapted
from lora_sam.methods.adapted import AdaptedSam
from lora_sam.methods.peft_config import NO_TARGETS

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Combination = Literal["svd", "linear", "ties", "dare_linear", "dare_ties"]
Factors = tuple[Tensor, Tensor]
"""A [r, in] and B [out, r] of a difference B A."""

_MERGED = "merged"


@dataclass(frozen=True)
class Changes:
    """What one adapter changed in the base.

    Attributes:
        adapter: Its directory.
        config: How PEFT inserts its LoRA layers.
        layers: Its LoRA weights, as PEFT saves them; empty where it has none.
        parts: Names of the modules that were trained whole.
        differences: Trained minus base, for every parameter of those modules, by its name in the split SAM.
    """

    adapter: Path
    config: LoraConfig
    layers: Mapping[str, Tensor]
    parts: tuple[str, ...]
    differences: Mapping[str, Tensor]


def combine(
    sam: Sam,
    adapters: Sequence[Path],
    weights: Sequence[float],
    *,
    combination: Combination,
    density: float,
    seed: int,
) -> AdaptedSam:
    """Put several adapters into a split `sam` as one, in place.

    LoRA layers are combined by PEFT's `add_weighted_adapter`, parts that were trained whole by the same rules on their
    differences to the base (`peft.utils.merge_utils`), each kind by itself. A layer or part that only some of the
    adapters train is combined among these.

    - `svd`: the weighted sum of the differences, exactly, for any ranks.
    - `linear`: the same for parts; for LoRA the factors are added instead, a rough approximation at no cost.
    - `ties`: only the largest values are kept, and of those the ones that agree in sign (Yadav et al., 2023).
    - `dare_linear`, `dare_ties`: a random share is kept and scaled up (Yu et al., 2024), then as the other two.

    Args:
        sam: The base of all of them.
        adapters: Their directories.
        weights: One for each.
        combination: See above; all but `svd` need the same rank in every adapter.
        density: Share of the values that `ties` and `dare_*` keep, 0 to 1.
        seed: Of what `dare_*` keep.

    Raises:
        AdapterError: an adapter is damaged or cannot be combined; names it. `check_ranks` is the caller's to call.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw weights that are overwritten at once
        changes = [_taken_out(sam, adapter) for adapter in adapters]
        torch.manual_seed(seed)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", message="The density .* no pruning")
            layers = _combined_layers(sam, changes, weights, combination, density)
            differences = _combined_differences(changes, weights, _rule(combination, density))
        return _inserted(sam, layers, differences, parts=sorted({part for change in changes for part in change.parts}))


def _taken_out(sam: Sam, adapter: Path) -> Changes:
    """What an adapter changes in `sam`, which stays as it was."""
    tuned = adapted.load(sam, adapter, trains_encoder=True)
    try:
        tuned.strength()
    except AdapterError as error:
        raise AdapterError(f"{adapter}: {error}") from error
    state = get_peft_model_state_dict(tuned.peft, save_embedding_layers=False)
    layers = {key: value.detach().clone() for key, value in state.items() if ".lora_" in key}
    wrapped = {name: module for name, module in sam.named_modules() if isinstance(module, ModulesToSaveWrapper)}
    differences = {}
    for name, module in wrapped.items():
        base = dict(module.original_module.named_parameters())
        for key, trained in module.modules_to_save["default"].named_parameters():
            differences[f"{name}.{key}"] = (trained - base[key]).detach()
        # PEFT would leave the trained copy
        parent, _, own = name.rpartition(".")
        setattr(sam.get_submodule(parent), own, module.original_module)
    _unload(tuned)
    config = cast("LoraConfig", tuned.peft.peft_config["default"])
    return Changes(adapter, config, layers, tuple(wrapped), differences)


def _unload(tuned: AdaptedSam) -> None:
    model: Any = tuned.peft.base_model
    model.unload()


def check_ranks(adapters: Sequence[Path], combination: Combination) -> None:
    """Raise `AdapterError`, before anything is loaded, if the combination needs equal ranks and they differ."""
    configs = {
        adapter: read_json(adapter / "adapter_config.json", "train again or restore the file") for adapter in adapters
    }
    ranks = {
        adapter: config.get("r") for adapter, config in configs.items() if config.get("target_modules") != NO_TARGETS
    }
    if combination != "svd" and len(set(ranks.values())) > 1:
        listed = ", ".join(f"{name} has rank {rank}" for name, rank in ranks.items())
        raise AdapterError(f"combination={combination} needs adapters of one rank: {listed}; use combination=svd")


def _rule(combination: Combination, density: float) -> Callable[[list[Tensor], Tensor], Tensor]:
    rules: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
        "svd": task_arithmetic,
        "linear": task_arithmetic,
        "ties": lambda tensors, weights: ties(tensors, weights, density),
        "dare_linear": lambda tensors, weights: dare_linear(tensors, weights, density),
        "dare_ties": lambda tensors, weights: dare_ties(tensors, weights, density),
    }
    return rules[combination]


def _combined_layers(
    sam: Sam, changes: Sequence[Changes], weights: Sequence[float], combination: Combination, density: float
) -> dict[str, Factors]:
    """The combined difference of every layer with LoRA, by its name; `sam` stays as it was."""
    chosen = {str(index): change for index, change in enumerate(changes) if change.layers}
    if not chosen:
        return {}
    names = list(chosen)
    first, *others = names
    peft = get_peft_model(sam, _without_parts(chosen[first].config), adapter_name=first)
    for name in others:
        peft.add_adapter(name, _without_parts(chosen[name].config))
    for name in names:
        set_peft_model_state_dict(peft, dict(chosen[name].layers), adapter_name=name)
    model = cast(LoraModel, peft.base_model)
    try:
        model.add_weighted_adapter(
            names,
            [weights[int(name)] for name in names],
            _MERGED,
            combination_type=combination,
            # so that nothing is cut off
            svd_rank=sum(chosen[name].config.r for name in names),
            svd_full_matrices=False,
            density=density,
        )
    except ValueError as error:
        listed = ", ".join(str(change.adapter) for change in chosen.values())
        raise AdapterError(f"PEFT cannot combine {listed}: {error}") from error
    # Only the factors are taken: PEFT's new adapter keeps the first one's scaling rule, which is wrong for rsLoRA.
    factors = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in _lora(sam, _MERGED)}
    model.unload()
    return factors


def _without_parts(config: LoraConfig) -> LoraConfig:
    """PEFT refuses to combine parts, so they are combined by themselves."""
    return replace(config, modules_to_save=None, inference_mode=False)


def _combined_differences(
    changes: Sequence[Changes], weights: Sequence[float], rule: Callable[[list[Tensor], Tensor], Tensor]
) -> dict[str, Tensor]:
    combined = {}
    for name in sorted({name for change in changes for name in change.differences}):
        found = [
            (change.differences[name], weight)
            for change, weight in zip(changes, weights, strict=True)
            if name in change.differences
        ]
        tensors, shares = [tensor for tensor, _ in found], torch.tensor([weight for _, weight in found])
        # as PEFT does for a single adapter: there is nothing to agree with
        combined[name] = (rule if len(tensors) > 1 else task_arithmetic)(tensors, shares)
    return combined


def _inserted(
    sam: Sam, layers: Mapping[str, Factors], differences: Mapping[str, Tensor], *, parts: Sequence[str]
) -> AdaptedSam:
    """`sam` with one adapter that makes these differences."""
    differences = dict(differences)
    separate = {}
    for name, (a, b) in layers.items():
        if any(name.startswith(f"{part}.") for part in parts):  # trained whole by one, with LoRA by another
            weight = f"{name}.weight"
            differences[weight] = b @ a + differences.get(weight, torch.zeros(()))
        else:
            separate[name] = (a, b)
    rank = max((a.shape[0] for a, _ in separate.values()), default=1)
    pattern = "|".join(re.escape(name) for name in separate)
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=pattern or NO_TARGETS, modules_to_save=list(parts) or None
    )
    result = adapted.insert(sam, config, trains_encoder=True)
    with torch.no_grad():
        for name, (to_a, to_b) in _lora(sam, "default"):
            a, b = separate[name]
            to_a.copy_(F.pad(a, (0, 0, 0, rank - a.shape[0])))
            to_b.copy_(F.pad(b, (0, rank - b.shape[1])))
        for name, parameter in _whole(sam):
            if name in differences:
                parameter.add_(differences[name])
    return result


def _lora(sam: Sam, adapter: str) -> Iterator[tuple[str, Factors]]:
    """The factors of one adapter in every layer with LoRA, by the layer's name."""
    for name, module in sam.named_modules():
        if isinstance(module, LoraLayer):
            layers: Any = module
            yield name, (layers.lora_A[adapter].weight, layers.lora_B[adapter].weight)


def _whole(sam: Sam) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters of all parts that train whole, by their names in the split SAM."""
    for name, module in sam.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            for key, parameter in module.modules_to_save["default"].named_parameters():
                yield f"{name}.{key}", parameter
