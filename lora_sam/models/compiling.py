"""Compile the model's hot parts with `torch.compile`, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lora_sam.core.errors import ConfigError
from lora_sam.models.attention.split import KERNELS
from lora_sam.models.attention.tiled import tiled_attention
from lora_sam.models.decoding import COMPILED
from lora_sam.models.family import family_of
from lora_sam.models.shared_decoding import masks_of_tokens

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def compile_model(sam: Sam, device: torch.device, *, backend: str = "inductor") -> tuple[str, ...]:
    """Let the blocks of the image encoder, and the mask decoder, run compiled from their next call on.

    Names of modules and weights stay, so saving, switching off and merging of adapters do too. Blocks are compiled for
    the one size of image, the decoder for any number of prompts. Insert adapters before. The first call of each part
    takes up to minutes.

    Args:
        sam: The model, with split projections, on its device.
        device: That device.
        backend: Backend of `torch.compile`; the default one makes C++ or Triton code.

    Returns:
        Names of what is compiled.

    Raises:
        ConfigError: this machine cannot compile.
    """
    _try(device, backend)
    KERNELS["tiled"] = torch.compiler.disable(tiled_attention)  # a graph would hold each of its hundreds of tiles
    names = []
    for name, block in family_of(sam.image_encoder).modules(sam.image_encoder).items():
        block.compile(backend=backend, dynamic=False)
        names.append(name)
    COMPILED[sam] = torch.compile(masks_of_tokens, backend=backend, dynamic=True)
    return (*names, "mask_decoder")


def _try(device: torch.device, backend: str) -> None:
    """Compile the smallest function; raise `ConfigError` where that fails."""
    try:
        torch.compile(_half, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # compilers, their headers and Triton fail in many types
        reason = " ".join(str(error).split()) or type(error).__name__
        needs = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "a C compiler and Triton"
        raise ConfigError(
            f"trainer.compile = true: torch.compile does not work here ({reason[:200]}); it needs {needs}. "
            "Install it, or set trainer.compile=false"
        ) from error


def _half(x: torch.Tensor) -> torch.Tensor:
    return x / 2
