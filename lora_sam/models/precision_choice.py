"""Choose between fp32 and bf16 on a processor by measuring both, once.

An instruction for bf16 does not say that it is fast. With AVX512-BF16 and no AMX, an AMD EPYC took a LoRA step of ViT-B
1.7 times as fast in bf16 as in fp32, while an Intel Xeon multiplies matrices of all sizes at half its rate in fp32.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_sam.core.files import user_cache
from lora_sam.core.processor import cpu_name
from lora_sam.models.measurements import Measurements

PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""Functions of `torch.cpu` that tell of instructions for bf16; torch keeps them to itself, and may drop them."""

_GAIN = 1.1  # times as fast as fp32 that bf16 has to be
_REPEATS = 3
_WINDOWS, _TOKENS, _CHANNELS, _HEADS = 4, 196, 256, 4


def bf16_is_faster() -> bool:
    """Whether a transformer block takes clearly less time in bf16 than in fp32 on this processor.

    False without a measurement where it has no instruction for bf16. Else both are timed, a third of a second in all,
    and remembered in `memory_path()`, so that the next run on this machine computes in the same precision and ends with
    the same bits.
    """
    has = [bool(getattr(torch.cpu, probe, bool)()) for probe in PROBES]
    if not any(has):
        return False
    instructions = ", ".join(probe.strip("_") for probe, there in zip(PROBES, has, strict=True) if there)
    question = f"{cpu_name()}, {instructions}, torch {torch.__version__}"
    memory = Measurements(memory_path())
    times = memory.get(question)
    if times is None or times.keys() != {"fp32", "bf16"}:
        times = milliseconds()
        memory.put(question, times)
        memory.keep()
    return times["bf16"] * _GAIN < times["fp32"]


def memory_path() -> Path:
    """The file that remembers measurements, in the user's cache directory."""
    return user_cache() / "precision.json"


def milliseconds() -> dict[str, float]:
    """Processor time of a frozen transformer block, forward and backward, by precision: the best of a few in turns.

    That of all threads, so that other work on the machine counts little.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        values: Tensor = torch.randn(*shape, generator=generator) / shape[-1] ** 0.5
        return values

    c = _CHANNELS
    weights = drawn(3 * c, c), drawn(c, c), drawn(4 * c, c), drawn(c, 4 * c)
    tokens = drawn(_WINDOWS, _TOKENS, c).requires_grad_()
    best = {"fp32": float("inf"), "bf16": float("inf")}
    for turn in range(_REPEATS + 1):
        for precision in best:
            start = time.process_time()
            with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                torch.autograd.grad(_block(tokens, *weights).sum(), tokens)
            if turn:  # the first is there to warm up
                best[precision] = min(best[precision], 1000 * (time.process_time() - start))
    return best


def _block(x: Tensor, qkv: Tensor, proj: Tensor, lin1: Tensor, lin2: Tensor) -> Tensor:
    parts = F.linear(F.layer_norm(x, x.shape[-1:]), qkv).chunk(3, dim=-1)
    q, k, v = (part.unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in parts)
    seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + F.linear(seen, proj)
    return x + F.linear(F.gelu(F.linear(F.layer_norm(x, x.shape[-1:]), lin1)), lin2)
