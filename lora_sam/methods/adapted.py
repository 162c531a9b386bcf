"""A SAM with a stock PEFT adapter inside: insert it, count what trains, switch it off, fold it back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.methods.layer_files import put_in_saved
from lora_sam.methods.layer_files import save as save_layers
from lora_sam.methods.peft_config import FILE, WEIGHTS, check_config, check_saved
from lora_sam.methods.strength import Strength
from lora_sam.models.held import held_in
from lora_sam.models.inserted import describe, fold
from lora_sam.models.projections import fuse_projections
from lora_sam.models.stages import Stage, frozen_stage

if TYPE_CHECKING:
    from pathlib import Path

    from peft.tuners.tuners_utils import BaseTuner
    from segment_anything.modeling import Sam

TAKING = ("pissa", "olora")
"""Starts of LoRA that take a part out of the weights of the base."""

_SWITCHED = (BaseTunerLayer, AuxiliaryTrainingWrapper)


@dataclass(frozen=True)
class AdaptedSam:
    """SAM and the PEFT model that wraps it; both see the same modules.

    Attributes:
        sam: The split SAM; its three parts are called directly and run through the adapter.
        peft: Stock PEFT wrapper: saving, loading, switching off, merging.
        trains_encoder: Whether the image embedding depends on trainable weights.
        reversible: Whether switching the adapter off gives the base exactly (not so when biases of the base train, or
            when the adapter started as a part of its weights).
        taken: What was taken out of the base when the adapter was inserted, LoRA factors as PEFT saves them.
        eva: Whether LoRA is to start where inputs of layers vary; see `lora_sam.methods.eva`.
    """

    sam: Sam
    peft: PeftModel
    trains_encoder: bool
    reversible: bool = True
    taken: Mapping[str, Tensor] = field(default_factory=dict)
    eva: bool = False

    @cached_property
    def frozen_stage(self) -> Stage | None:
        """How far into the image encoder nothing trains; None where something does from the first block on."""
        if not self.reversible and not self.trainable():  # loaded: nobody can tell which biases are not the base's
            return None
        return frozen_stage(self.sam.image_encoder)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name, in the order of the model."""
        return {name: parameter for name, parameter in self.peft.named_parameters() if parameter.requires_grad}

    def count(self) -> tuple[int, int]:
        """(trainable, total) parameters; the total counts the base once, without copies kept by the adapter."""
        trainable = sum(parameter.numel() for parameter in self.trainable().values())
        copies = sum(
            parameter.numel()
            for module in self.peft.modules()
            if isinstance(module, ModulesToSaveWrapper)
            for parameter in module.original_module.parameters()
        )
        return trainable, sum(parameter.numel() for parameter in self.peft.parameters()) - copies

    def train_mode(self) -> None:
        """`train()` for what trains (adapter dropout included), `eval()` for everything frozen."""
        self.peft.eval()
        for module in self.peft.modules():
            if isinstance(module, BaseTunerLayer):
                module.train()
            elif isinstance(module, ModulesToSaveWrapper):
                module.modules_to_save.train()

    @contextmanager
    def base(self) -> Iterator[None]:
        """Inside this context the model computes what the base computes."""
        assert self.reversible, "this adapter trains weights of the base: build the base once more instead"
        # PEFT's own context counts all parameters first, which takes longer than what a small model computes
        if any(module.disable_adapters for module in self.peft.modules() if isinstance(module, _SWITCHED)):
            yield
            return
        tuner = cast("BaseTuner", self.peft.base_model)
        tuner.disable_adapter_layers()
        try:
            yield
        finally:
            tuner.enable_adapter_layers()

    def strength(self) -> Strength:
        """A handle that scales the adapter between the base (0), as trained (1), and beyond.

        Raises:
            AdapterError: the adapter is not a difference to the base: DoRA, or trained biases of the base.
        """
        return Strength(self.peft, started=bool(self.taken))

    def save(self, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json`, for the base as it was before the method.

        Where the adapter started as a part of the base, s B A with the base W - s B0 A0, it is saved as what it
        changes, plain LoRA of twice the rank: s [B, -B0] [A; A0].

        Raises:
            SafetensorError: the disk is full.
        """
        if describe(self.sam) is not None:
            save_layers(self.sam, self.peft, directory)
            return
        if not self.taken:
            # PEFT would ask a hub about embedding layers, which SAM does not have
            self.peft.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
            return
        from safetensors.torch import save_file

        config = cast("LoraConfig", self.peft.peft_config["default"])
        state = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        for name, start in self.taken.items():
            first = ".lora_A." in name
            state[name] = torch.cat([state[name], (start if first else -start).to(state[name])], dim=0 if first else 1)
        grown = 2**0.5 if config.use_rslora else 2
        plain = replace(
            config,
            r=2 * config.r,
            lora_alpha=config.lora_alpha * grown,  # type: ignore[arg-type]  # PEFT computes with it as a float
            init_lora_weights=True,
            inference_mode=True,
        )
        directory.mkdir(parents=True, exist_ok=True)
        plain.save_pretrained(str(directory))
        save_file({key: value.contiguous() for key, value in state.items()}, directory / WEIGHTS, {"format": "pt"})

    def merge(self) -> Sam:
        """Fold the adapter into the weights and fuse the projections, in place; the adapter is gone afterwards.

        Layers that do not fold stay in the model, which stays split then; see `lora_sam.models.inserted`.

        Returns:
            A SAM whose `state_dict()` loads with `strict=True` into the architecture of `segment_anything`.

        Raises:
            AdapterError: a folded weight is not finite, or the base is held in bf16 (`lora_sam.models.held`).
        """
        if held_in(self.sam):
            raise AdapterError(
                "cannot merge: frozen weights are held in bf16 (trainer.frozen), and would be merged as rounded; merge "
                "the saved adapter, which is put into the fp32 base"
            )
        if any(config.peft_type != "LORA" for config in self.peft.peft_config.values()):
            self._keep_trained_parts()  # PEFT would ask them for a weight as if they were layers
        try:
            merged = self.peft.merge_and_unload(safe_merge=True)
        except ValueError as error:  # PEFT's word for NaN in a merged weight
            raise AdapterError(f"cannot merge: {error}; the adapter holds values that are not finite") from error
        sam: Sam = merged
        fold(sam)
        if describe(sam) is None:
            fuse_projections(sam)
        for name, value in sam.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise AdapterError(f"cannot merge: {name} is not finite; train again, with a lower optim.lr")
        return sam.eval().requires_grad_(False)

    def _keep_trained_parts(self) -> None:
        """Put what was trained whole in the place of what it was copied from."""
        wrapped = {
            name: module for name, module in self.sam.named_modules() if isinstance(module, ModulesToSaveWrapper)
        }
        for name, module in wrapped.items():
            parent, _, own = name.rpartition(".")
            setattr(self.sam.get_submodule(parent), own, module.modules_to_save["default"])


def check_free(sam: Sam) -> None:
    """Raise `ConfigError` where a SAM has layers of a method already, around which no other finds its modules."""
    if (there := describe(sam)) is not None:
        raise ConfigError(
            f"model.checkpoint: these weights have layers of method={there.kind} in them, which do not fold; train on "
            "the weights that they were made from, or go on with init_from=<that run>"
        )


def insert(
    sam: Sam, config: PeftConfig, *, trains_encoder: bool, eva: bool = False, layers: bool = False
) -> AdaptedSam:
    """Freeze `sam` and insert the adapter that `config` describes, in place.

    Args:
        sam: The base.
        config: Of PEFT.
        trains_encoder: Whether the image embedding depends on trainable weights.
        eva: See `AdaptedSam`.
        layers: Whether it is about layers that were put into `sam`.

    Raises:
        ConfigError: PEFT refuses the configuration, or there are layers of another method.
    """
    if not layers:
        check_free(sam)
    sam.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            # with bias != "none" PEFT warns that switching the adapter off is not the base: `reversible` says so
            warnings.filterwarnings("ignore", message=".*bias.*", category=UserWarning)
            peft = get_peft_model(sam, config)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"method: PEFT refuses this configuration: {error}") from error
    taken = {}
    if getattr(config, "init_lora_weights", None) in TAKING:
        state = get_peft_model_state_dict(peft, save_embedding_layers=False)
        taken = {name: value.detach().clone() for name, value in state.items() if ".lora_" in name}
    reversible = _is_reversible(config) and not taken
    adapted = AdaptedSam(sam, peft, trains_encoder, reversible=reversible, taken=taken, eva=eva)
    adapted.peft.eval()
    return adapted


def load(sam: Sam, directory: Path, *, trains_encoder: bool, trainable: bool = False) -> AdaptedSam:
    """Put a saved adapter into a split `sam`, in place.

    Raises:
        AdapterError: files are missing, damaged, not what was saved, or do not fit the model.
    """
    for name in (FILE, WEIGHTS):
        if not (directory / name).is_file():
            raise AdapterError(f"{directory}: {name} is missing; give a directory that holds a saved adapter")
    check_config(directory)
    check_free(sam)
    put_in_saved(sam, directory)
    sam.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            # PEFT would go on with what it drew itself
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            peft = PeftModel.from_pretrained(sam, str(directory), is_trainable=trainable)
    except Exception as error:  # a damaged file surfaces as one of many types of safetensors, json and PEFT
        reason = " ".join(str(error).split())
        raise AdapterError(f"{directory}: the adapter cannot be loaded into this model: {reason[:300]}") from error
    _check_all_taken(peft, directory)
    config = peft.peft_config["default"]
    for name, parameter in peft.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise AdapterError(f"{directory}: {name} holds values that are not finite; train again")
    check_saved(directory)
    peft.eval()
    return AdaptedSam(sam, peft, trains_encoder, reversible=_is_reversible(config))


def _check_all_taken(peft: PeftModel, directory: Path) -> None:
    """Raise `AdapterError` where a file has tensors that its configuration does not name.

    PEFT leaves them out without a word, or puts them into the base.
    """
    from safetensors import safe_open

    taken = _without_name(get_peft_model_state_dict(peft, save_embedding_layers=False))
    with safe_open(directory / WEIGHTS, framework="numpy") as file:
        found = _without_name(file.keys())
    if surplus := sorted(found - taken):
        others = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        raise AdapterError(
            f"{directory}: {WEIGHTS} has {surplus[0]!r:.150}{others}, whose layer {FILE} does not name; restore the "
            "configuration that belongs to these weights"
        )


def _without_name(keys: Iterable[str]) -> set[str]:
    """Names of tensors without that of the adapter, which PEFT leaves in some of them."""
    return {key.replace(".default.", ".") for key in keys}


def _is_reversible(config: PeftConfig) -> bool:
    """Whether switching the adapter off gives the base: not if biases of the base train."""
    return bool(getattr(config, "bias", "none") == "none")
