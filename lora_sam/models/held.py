"""Weights of frozen Linears held in bf16 while the rest trains: half the memory, and made fp32 only where used.

Rounded weights serve training alone. What is evaluated, merged and saved is fp32: `give_back` puts those weights in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lora_sam.models.held_linear import HeldLinear
from lora_sam.models.lean_vit import as_before, make_lean

Linears = Mapping[str, nn.Linear]
"""Linears of a base by their names in it, whatever a method has put around them since."""


def linears_of(encoder: nn.Module) -> dict[str, nn.Linear]:
    """The Linears of an image encoder that no method has touched yet."""
    return {name: module for name, module in encoder.named_modules() if type(module) is nn.Linear}


def hold(encoder: nn.Module, linears: Linears, untouched: frozenset[str] = frozenset()) -> int:
    """Round the weights of the Linears of a base that are frozen to bf16, in place; the numbers that this is about.

    What was copied because it trains whole does not compute while it trains, and stays.

    Args:
        encoder: The image encoder, with what the method has put into it.
        linears: Its Linears before that.
        untouched: Names of those to leave.
    """
    computing = {id(module) for name, module in encoder.named_modules() if "original_module" not in name.split(".")}
    count = 0
    for name, linear in linears.items():
        if name in untouched or id(linear) not in computing or linear.weight.requires_grad:
            continue
        linear.weight = nn.Parameter(linear.weight.detach().bfloat16(), requires_grad=False)
        linear.__class__ = HeldLinear
        count += linear.weight.numel()
    if count:
        make_lean(encoder)
    return count


def held_in(module: nn.Module) -> int:
    """Numbers of a model that are held in bf16."""
    return sum(one.weight.numel() for one in module.modules() if isinstance(one, HeldLinear))


def give_back(encoder: nn.Module, linears: Linears, exact: Linears) -> None:
    """Put the weights of the same base in fp32 into what `hold` has rounded, in place.

    Args:
        encoder: The image encoder.
        linears: What `hold` was given.
        exact: Linears of the base as it was built.
    """
    for name, linear in linears.items():
        if isinstance(linear, HeldLinear):
            value = exact[name].weight.detach().to(linear.weight.device)
            assert torch.equal(value.bfloat16(), linear.weight), f"{name} is not the weight that was held"
            linear.weight = nn.Parameter(value, requires_grad=False)
            linear.__class__ = nn.Linear  # type: ignore[assignment]  # narrowed above
    as_before(encoder)
