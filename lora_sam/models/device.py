"""Choose the device and the arithmetic that this machine is good at."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from lora_sam.core.errors import ConfigError
from lora_sam.models.precision_choice import bf16_is_faster

Precision = Literal["fp32", "bf16"]


def pick_device(name: str | torch.device) -> torch.device:
    """The named device, as `cuda`, `cuda:1` or a `torch.device`; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the device is not there.
    """
    cards = max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 0
    there = {"cuda": cards, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in there.items() if count))
    try:
        device = torch.device(name)
    except RuntimeError:  # torch's word for a name that it does not know
        device = None
    if device is None or (device.index or 0) >= there.get(device.type, 0):
        numbered = [f"cuda:{index}" for index in range(1, cards)]
        known = ", ".join([kind for kind, count in there.items() if count] + numbered)
        raise ConfigError(f"trainer.device = {name}: not available here; available: auto, {known}")
    return device


def pick_precision(name: str, device: torch.device) -> Precision:
    """The named precision; `auto` takes bf16 where it is faster, else fp32."""
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether training in bf16 is faster than in fp32: on Ampere and later, and where a processor was measured so."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bf16_is_faster()
    return False


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """A context that computes in `precision`; weights stay fp32."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
