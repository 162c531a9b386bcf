"""An adapter for stock PEFT on a stock SAM of transformers: `PeftModel.from_pretrained(SamModel..., directory)`.

The adapter of a run is stock PEFT as well, for SAM with separate projections. transformers keeps SAM's fused `qkv`, so
the difference between tuned and base weights is written for that: LoRA where the difference of a Linear has a low rank,
which it has exactly after LoRA, and whole modules (`modules_to_save`) elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.deployment.packs.packing import Opened, Packed, refuse
from lora_sam.methods.peft_config import NO_TARGETS

if TYPE_CHECKING:
    from torch import Tensor, nn

PROBE_SEED = 0
BASE = "base"
_HUB = {"vit_b": "facebook/sam-vit-base", "vit_l": "facebook/sam-vit-large", "vit_h": "facebook/sam-vit-huge"}
"""Where transformers has the published weights."""
# what rounding the merged weights to fp32 leaves of a difference, against its largest singular value
_NOISE = 1e-4
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class PeftPack:
    """An adapter for `PeftModel.from_pretrained` on a SAM of transformers."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`.

        Writes `adapter_config.json` and `adapter_model.safetensors`, and into `base/` the base in the layout of
        transformers, unless that is one of the published models, which transformers fetches by its name.
        """
        from peft import PeftModel
        from safetensors.torch import save_file

        from lora_sam.deployment.proof import answers, compare, probe
        from lora_sam.deployment.transformers_layout import (
            read_transformers,
            transformers_answers,
            write_transformers,
        )
        from lora_sam.models.family import frame_by, transformers_module, why_not

        reason = why_not(packed.architecture, "transformers")
        if reason is not None:
            remedy = "the run's own adapter/ is for PEFT, on the model of lora_sam.runs.loading.load_base"
            raise refuse(packed, "peft", reason, remedy)
        base, sha256 = _base_state(packed)
        write_transformers(directory / BASE, base, packed.architecture)
        model = read_transformers(directory / BASE)
        state_of = transformers_module(packed.architecture).state_of
        config, tensors = difference(model, state_of(base), state_of(packed.state))
        published = published_as(packed.variant, sha256, int(packed.architecture["image_size"]))
        config.base_model_name_or_path = published or BASE
        config.save_pretrained(str(directory))
        save_file(tensors, directory / _WEIGHTS, {"format": "pt"})
        opened = PeftModel.from_pretrained(model, str(directory)).eval().requires_grad_(False)
        questions = probe(frame_by(packed.architecture), PROBE_SEED)
        found = transformers_answers(opened.base_model.model, questions)
        agreement = compare(answers(packed.base.sam, questions), found)
        if published is not None:
            shutil.rmtree(directory / BASE)
        return Opened(
            host=f"peft {version('peft')} on transformers {version('transformers')}",
            by=f"PeftModel.from_pretrained on {type(model).__name__}",
            mask_iou=agreement.mean_mask_iou,
            masks=agreement.masks,
        )


def difference(
    model: nn.Module, base: Mapping[str, Tensor], tuned: Mapping[str, Tensor]
) -> tuple[Any, dict[str, Tensor]]:
    """What PEFT has to do to a model so that it computes as with other weights.

    Args:
        model: A SAM of transformers.
        base: Its weights, by their names there.
        tuned: The other weights.

    Returns:
        A `peft.LoraConfig`, and the tensors that belong to it by the names of PEFT's files.
    """
    import torch
    from peft import LoraConfig

    modules = dict(model.named_modules())
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    whole: set[str] = set()
    changed = [name for name, value in tuned.items() if name in base and not torch.equal(value, base[name])]
    for name in changed:
        owner, _, own = name.rpartition(".")
        pair = None
        if own == "weight" and isinstance(modules.get(owner), torch.nn.Linear):
            pair = _low_rank(tuned[name].double() - base[name].double())
        if pair is None:
            whole.add(_saved_as(owner, modules))
        else:
            factors[owner] = pair
    whole = {name for name in whole if not any(name.startswith(f"{other}.") for other in whole)}
    factors = {name: pair for name, pair in factors.items() if not _within(name, whole)}
    rank = max([len(a) for a, _ in factors.values()], default=1)
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in factors.items():
        grown_a, grown_b = a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)
        grown_a[: len(a)], grown_b[:, : b.shape[1]] = a, b
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = grown_a.float().contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = grown_b.float().contiguous()
    for name in whole:
        for key in modules[name].state_dict():
            tensors[f"{_PREFIX}{name}.{key}"] = tuned[f"{name}.{key}"].clone().contiguous()
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # so that the scale is 1
        target_modules=sorted(factors) or NO_TARGETS,
        modules_to_save=sorted(whole) or None,
        inference_mode=True,
    )
    return config, tensors


def _low_rank(delta: Tensor) -> tuple[Tensor, Tensor] | None:
    """A [r, in] and B [out, r] with B A = `delta` but for rounding; None unless that is smaller than `delta` itself."""
    import torch

    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    rank = int((values > _NOISE * values[0]).sum())
    if rank * sum(delta.shape) >= delta.numel():
        return None
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def _saved_as(owner: str, modules: Mapping[str, nn.Module]) -> str:
    """The module that is saved whole so that the weights which `owner` has of its own are.

    That is the decoder or the prompt encoder as one; in the image encoder the module itself.
    """
    top = owner.partition(".")[0]
    return owner if top == "vision_encoder" and owner in modules else top


def _within(name: str, whole: set[str]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in whole)


def _base_state(packed: Packed) -> tuple[dict[str, Tensor], str]:
    """The base's weights as `Packed.state` has the tuned ones, and the SHA-256 of its file."""
    from lora_sam.models.family import family_of
    from lora_sam.models.projections import fuse_state_dict
    from lora_sam.runs.adapter_files import find_adapter
    from lora_sam.runs.loading import load_base

    built = load_base(find_adapter(packed.run.root))
    state = family_of(built.sam.image_encoder).published(fuse_state_dict(built.sam.state_dict()))
    return {key: value.float().contiguous() for key, value in state.items()}, built.sha256


def published_as(variant: str, sha256: str, image_size: int) -> str | None:
    """Name on the hub of what transformers has of a base; None where it has another one.

    Args:
        variant: Name of the architecture.
        sha256: Of the file of the base.
        image_size: Side of the input that the model was built for: with another than the published one, its tables of
            positions are others too.
    """
    from lora_sam.core.config import from_conf
    from lora_sam.models.checkpoints import OFFICIAL

    official = OFFICIAL.get(variant)
    if official is None or official.sha256 != sha256 or from_conf(f"model/{variant}").image_size != image_size:
        return None
    return _HUB.get(variant)
