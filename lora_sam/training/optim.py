"""The optimiser and its learning-rate schedule, the latter a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from torch.optim import Optimizer

_FUSED = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba, 2015) or AdamW (Loshchilov & Hutter, 2019), with warm-up and decay of the rate.

    Attributes:
        decoupled_weight_decay: True for AdamW, False for Adam with L2 regularisation.
        lr: Peak learning rate of adapters, which begin as no change.
        pretrained_lr_fraction: Share of `lr` that weights train with which begin as those of the base: the mask decoder
            where it trains whole, and everything with `method=full`.
        decoder_lr: Peak learning rate of the mask decoder, adapters in it included; null takes the rates above.
        layer_decay: The rate of each block of the image encoder is this share of that of the block behind it (Clark et
            al., 2020; Bao et al., 2021), the last that trains keeps its own; null for one rate.
        lora_plus: How many times `lr` LoRA's B trains with (Hayou et al., 2024, take 16); 1 for the same as A.
        weight_decay: Weight decay.
        betas: Decay of the running mean of the gradient, and of its square.
        schedule: After the warm-up: `constant`, `linear` or `cosine` decay down to `final_lr_fraction`.
        warmup_steps: Optimiser steps of linear warm-up, at least.
        warmup_fraction: Share of all optimiser steps that the warm-up takes where that is more. Weights of the base are
            knocked out of place by Adam's first steps, whose size does not depend on the gradient's, unless they are
            small.
        final_lr_fraction: Share of the peak rate that is left at the last step.
    """

    decoupled_weight_decay: bool
    lr: Annotated[float, Field(gt=0)]
    pretrained_lr_fraction: Annotated[float, Field(gt=0, le=1)]
    decoder_lr: Annotated[float, Field(gt=0)] | None
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None
    lora_plus: Annotated[float, Field(gt=0, le=1000)]
    weight_decay: Annotated[float, Field(ge=0)]
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0)]
    warmup_fraction: Annotated[float, Field(ge=0, le=1)]
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)]

    def check_blocks(self, blocks: Mapping[str, int], method: str) -> None:
        """Raise `ConfigError` where rates are to differ by block, and a method trains no block of the image encoder.

        Args:
            blocks: As `build` gets them.
            method: Its name.
        """
        from lora_sam.core.errors import ConfigError

        if self.layer_decay is not None and not blocks:
            raise ConfigError(
                f"optim.layer_decay = {self.layer_decay}: method={method} trains no block of the image encoder; leave "
                "it null, or take a method that does, like method=lora"
            )

    def build(self, parameters: Mapping[str, nn.Parameter], blocks: Mapping[str, int] | None = None) -> Optimizer:
        """An optimiser over named parameters; first everything but the mask decoder, then the decoder.

        LoRA's B is a group of its own after the one it would be in, where it has another rate (`lora_plus`); so is each
        block of the image encoder (`layer_decay`), the last first.

        Where all parameters are on a CPU or a CUDA device one kernel does the whole step (`fused`).

        Args:
            parameters: What trains.
            blocks: The block of each that is part of the image encoder; see `lora_sam.models.stages.blocks_of`.
        """
        import torch

        assert self.layer_decay is None or blocks, "see check_blocks"
        blocks = blocks or {}
        last = max(blocks.values(), default=0)
        members: dict[tuple[bool, bool, bool, int], list[nn.Parameter]] = {}
        for name, parameter in parameters.items():
            faster = self.lora_plus != 1 and ".lora_B." in name
            before = 0 if self.layer_decay is None else last - blocks.get(name, last)
            members.setdefault(("mask_decoder" in name, faster, _of_the_base(name), before), []).append(parameter)
        groups: list[dict[str, Any]] = []
        for (decoder, faster, whole, before), found in sorted(members.items(), key=lambda item: item[0]):
            rate = self.lr * (self.pretrained_lr_fraction if whole else 1) * (self.layer_decay or 1) ** before
            rate = (self.decoder_lr or rate if decoder else rate) * (self.lora_plus if faster else 1)
            groups.append({"params": found, "lr": rate, "peak_lr": rate})
        cls = torch.optim.AdamW if self.decoupled_weight_decay else torch.optim.Adam
        fused = all(parameter.device.type in _FUSED for parameter in parameters.values())
        optimizer = cls(
            groups,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=fused or None,
        )
        if fused:
            optimizer.register_step_pre_hook(_counters_beside_parameters)
        return optimizer

    def factor(self, step: int, total_steps: int) -> float:
        """Share of the peak rate used by optimiser step `step`, counted from 0."""
        warmup = max(self.warmup_steps, round(self.warmup_fraction * total_steps))
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
        shape = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
        return self.final_lr_fraction + (1 - self.final_lr_fraction) * shape[self.schedule]

    def set_rate(self, optimizer: Optimizer, step: int, total_steps: int) -> float:
        """Give every group its rate for `step`; returns the rate of the first group."""
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.factor(step, total_steps)
        return float(optimizer.param_groups[0]["lr"])


def _of_the_base(name: str) -> bool:
    """Whether a parameter belongs to a part of the base that trains as it is, not to what a method inserts."""
    from lora_sam.models.inserted import NAME

    return ".modules_to_save." in name and f".{NAME}." not in name


def _counters_beside_parameters(optimizer: Optimizer, *_: object) -> None:
    """Move each counter of steps to the device of its parameter: fused kernels want it there, a file does not say."""
    for parameter, state in optimizer.state.items():
        if state["step"].device != parameter.device:
            state["step"] = state["step"].to(parameter.device)
