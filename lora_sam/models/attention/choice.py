"""Choose how the image encoder attends by measuring it on this machine, once."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar, cast

import torch

from lora_sam.core.files import user_cache
from lora_sam.models.attention.split import SplitAttention, attend
from lora_sam.models.building import PATCH_SIZE
from lora_sam.models.family import family_of
from lora_sam.models.kernels import InferenceKernel, TrainingKernel
from lora_sam.models.measurements import Measurements

if TYPE_CHECKING:
    from torch import nn

    from lora_sam.models.device import Precision

TRAINING: tuple[TrainingKernel, ...] = ("tiled", "channels")
INFERENCE: tuple[InferenceKernel, ...] = ("mask", "channels", "tiled")

WORTHWHILE = 2048
"""Tokens of the largest block from which on a choice is worth a measurement."""

_GAIN = 1.05  # what another kernel has to gain for the usual one to be left
_SIDE, _WORK = 32, 2**22  # a measurement takes windows of at most 32 x 32 tokens and 4 M logits
_SECONDS, _REPEATS = 0.05, 5  # per kernel

Kernel = TypeVar("Kernel", bound=str)


class AttentionChoice(TypedDict):
    """How an encoder attends, and why.

    Attributes:
        training: Kernel where gradients are needed.
        inference: Kernel where they are not.
        measured_ms: By purpose and kernel, milliseconds of the attention of all blocks for one image, forward and
            backward in training, extrapolated; empty where nothing was measured.
    """

    training: TrainingKernel
    inference: InferenceKernel
    measured_ms: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Extent:
    """What attends to what in one block for one image.

    Attributes:
        windows: Windows of the block, 1 where all tokens attend to all.
        side: Side of a window in tokens.
        heads: Attention heads.
        channels: Channels of a head.
    """

    windows: int
    side: int
    heads: int
    channels: int

    @property
    def logits(self) -> int:
        """Products of queries and keys."""
        return self.windows * self.heads * self.side**4

    def reduced(self) -> Extent:
        """The same in small: the number of windows and the heads, then the side, as far as the limits ask for it."""
        side = min(self.side, _SIDE)
        affordable = max(1, _WORK // side**4)
        heads = min(self.heads, affordable)
        return Extent(min(self.windows, max(1, affordable // heads)), side, heads, self.channels)


def set_attention(
    encoder: nn.Module, training: TrainingKernel, inference: InferenceKernel, precision: Precision | None = None
) -> None:
    """Let every block of `encoder` attend in these ways; results differ by rounding only.

    Args:
        encoder: Image encoder with split projections.
        training: Kernel where gradients are needed.
        inference: Kernel where they are not.
        precision: The arithmetic that `inference` is for; None for any.
    """
    dtypes: dict[str | None, torch.dtype | None] = {"bf16": torch.bfloat16, "fp32": torch.float32}
    for module in encoder.modules():
        if isinstance(module, SplitAttention):
            module.with_gradients, module.without_gradients = training, inference
            module.only_in = dtypes.get(precision)


def choose_attention(
    encoder: nn.Module,
    image_size: int,
    device: torch.device,
    precision: Precision,
    wanted: Literal["auto", "tiled", "channels"],
) -> AttentionChoice:
    """The fastest ways to attend on `device`, measured unless that was done before on this machine.

    Measurements take about a second in all and are remembered in `memory_path()`, so that the next run on this machine
    chooses the same, and ends with the same bits. Small encoders are not measured.

    Args:
        encoder: Image encoder with split projections; it is not changed, see `set_attention`.
        image_size: Side of the square input in pixels.
        device: Where it will run.
        precision: Arithmetic of the forward pass.
        wanted: The kernel to train with, or `auto`.
    """
    usual: TrainingKernel = "tiled" if device.type == "cpu" else "channels"
    extents = list(_extents(encoder, image_size // PATCH_SIZE))
    if max((extent.side**2 for extent in extents), default=0) < WORTHWHILE:
        return {"training": usual if wanted == "auto" else wanted, "inference": "mask", "measured_ms": {}}
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    memory = Measurements(memory_path())
    measured = {"inference": _totals(memory, extents, INFERENCE, device, dtype, gradients=False)}
    inference = _fastest(measured["inference"], INFERENCE, "mask")
    if wanted == "auto":
        measured["training"] = _totals(memory, extents, TRAINING, device, dtype, gradients=True)
        usual = _fastest(measured["training"], TRAINING, usual)
    memory.keep()
    return {"training": usual if wanted == "auto" else wanted, "inference": inference, "measured_ms": measured}


def memory_path() -> Path:
    """The file that remembers measurements, in the user's cache directory."""
    return user_cache() / "attention.json"


def device_name(device: torch.device) -> str:
    """What kind of device it is, as far as speed depends on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()} cores"
    return device.type


def _extents(encoder: nn.Module, grid: int) -> Iterator[Extent]:
    """One per block with relative positions: without them there is nothing to choose."""
    for block in family_of(encoder).modules(encoder).values():
        attention = getattr(block, "attn", None)
        if isinstance(attention, SplitAttention) and attention.use_rel_pos:
            side = cast("int", block.window_size) or grid
            channels = attention.rel_pos_h.shape[1]
            yield Extent(math.ceil(grid / side) ** 2, side, attention.num_heads, channels)


def _totals(
    memory: Measurements,
    extents: list[Extent],
    kernels: tuple[InferenceKernel, ...],
    device: torch.device,
    dtype: torch.dtype,
    *,
    gradients: bool,
) -> dict[str, float]:
    """Milliseconds of the attention of all blocks by kernel, as each kind of block in small lets expect."""
    totals: dict[str, float] = dict.fromkeys(kernels, 0.0)
    for extent in extents:
        small = extent.reduced()
        question = (
            f"{device_name(device)}, torch {torch.__version__}, {str(dtype).removeprefix('torch.')}, "
            f"{extent.windows} x {extent.side**2} tokens, {extent.heads} heads of {extent.channels}, "
            f"{'with' if gradients else 'without'} gradients"
        )
        times = memory.get(question)
        if times is None or times.keys() != set(kernels):
            times = {kernel: _milliseconds(kernel, small, device, dtype, gradients) for kernel in kernels}
            memory.put(question, times)
        for kernel in kernels:
            totals[kernel] += times[kernel] * extent.logits / small.logits
    return totals


def _milliseconds(
    kernel: InferenceKernel, extent: Extent, device: torch.device, dtype: torch.dtype, gradients: bool
) -> float:
    """Fastest of a few runs of one kernel, after one to warm up."""
    tokens, generator = extent.side**2, torch.Generator().manual_seed(0)
    widths = (extent.channels, extent.channels, extent.channels, extent.side, extent.side)
    tensors = [
        torch.randn(extent.windows, extent.heads, tokens, width, generator=generator).to(device, dtype)
        for width in widths
    ]

    def run() -> float:
        start = time.perf_counter()
        with torch.set_grad_enabled(gradients):
            out = attend(kernel, *tensors, scale=extent.channels**-0.5)
        if gradients:
            torch.autograd.grad(out.sum(), tensors)
        _wait_for(device)
        return 1000 * (time.perf_counter() - start)

    for tensor in tensors:
        tensor.requires_grad_(gradients)
    run()
    times = [run()]
    while len(times) < _REPEATS and sum(times) < 1000 * _SECONDS:
        times.append(run())
    return min(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _fastest(times: Mapping[str, float], kernels: tuple[Kernel, ...], usual: Kernel) -> Kernel:
    """The fastest kernel, if it is clearly faster than the usual one."""
    best = min(kernels, key=lambda kernel: times[kernel])
    return best if times[best] * _GAIN < times[usual] else usual
