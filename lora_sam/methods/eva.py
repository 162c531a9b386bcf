"""Start LoRA where what its layers see of training images varies most: EVA (Paischer et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lora_sam.models.decoding import device_of

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam

IMAGES = 16
"""Training images that are looked at."""


def start_from_images(adapted: AdaptedSam, images: Iterable[Tensor]) -> None:
    """Give every A of the image encoder the main directions of its layer's inputs, in place; B stays zero.

    The rows of A are the eigenvectors of the second moments of the inputs with the largest eigenvalues, that is the
    right singular vectors of all inputs together. They are exact where the paper's are updated batch by batch, and
    every layer keeps its rank.

    Args:
        adapted: The model with its adapter, before the first step.
        images: Pre-processed, [3, S, S] each.
    """
    layers: list[Any] = [module for module in adapted.sam.image_encoder.modules() if isinstance(module, LoraLayer)]
    moments: dict[int, Tensor] = {}

    def see(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().flatten(0, -2).double()
        moments[id(layer)] = moments.get(id(layer), 0) + rows.T @ rows

    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        with torch.no_grad():
            for image in images:
                adapted.sam.image_encoder(image.unsqueeze(0).to(device_of(adapted.sam)))
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for layer in layers:
            weight = layer.lora_A["default"].weight
            # eigenvalues ascend
            vectors = torch.linalg.eigh(moments[id(layer)]).eigenvectors.flip(1)[:, : len(weight)]
            weight[: vectors.shape[1]].copy_(vectors.T)
