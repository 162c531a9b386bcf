"""Gradients of one micro-batch: encode once, decode prompts in chunks, go back through the encoder once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_sam.models.decode import decode_masks, device_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lora_sam.data.batches import Example
    from lora_sam.losses import Loss
    from lora_sam.methods.adapted import AdaptedSam


def accumulate_gradients(
    adapted: AdaptedSam,
    loss: Loss,
    examples: Sequence[Example],
    *,
    chunk: int,
    scale: float,
    autocast: AbstractContextManager[None],
) -> dict[str, float]:
    """Add the gradient of `scale` times the mean loss per object to `.grad` of everything trainable.

    The image encoder runs once for the batch. Every chunk of prompts sends its gradient back to the image embedding
    and frees its activations; the sum then goes through the encoder in one backward pass. Memory is that of `chunk`
    prompts however many objects an image has; the gradient is the same but for the order of additions.

    Returns:
        Mean per object of the loss and of its parts, by name.
    """
    sam = adapted.sam
    device = device_of(sam)
    objects = sum(len(example.targets) for example in examples)
    with autocast:
        images = torch.stack([example.image for example in examples]).to(device)
        with torch.set_grad_enabled(adapted.trains_encoder):
            embeddings = sam.image_encoder(images)
    leaf = embeddings.detach().requires_grad_(adapted.trains_encoder)
    sums: dict[str, float] = {}
    for index, example in enumerate(examples):
        for rows in torch.arange(len(example.targets)).split(chunk):
            with autocast:
                logits, iou = decode_masks(
                    sam,
                    leaf[index : index + 1],
                    boxes=_rows(example.boxes, rows, device),
                    points=_rows(example.points, rows, device),
                    labels=_rows(example.labels, rows, device),
                )
            parts = mask_losses(loss, logits[:, 0], iou[:, 0], example.targets[rows].to(device))
            (parts["loss"].sum() * (scale / objects)).backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach().sum())
    if adapted.trains_encoder:
        embeddings.backward(leaf.grad)
    return {name: value / objects for name, value in sums.items()}


def mask_losses(loss: Loss, low_res_logits: Tensor, iou: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Per-object losses in fp32 at the resolution the loss asks for.

    Args:
        loss: The loss.
        low_res_logits: [N, S/4, S/4].
        iou: Predicted IoU, [N].
        targets: bool [N, S, S]; averaged over 4x4 pixels where the loss works at low resolution.
    """
    target = targets.float()
    if loss.resolution == "low":
        target = F.avg_pool2d(target.unsqueeze(1), targets.shape[-1] // low_res_logits.shape[-1]).squeeze(1)
        logits = low_res_logits
    else:
        logits = F.interpolate(
            low_res_logits.unsqueeze(1), size=targets.shape[-2:], mode="bilinear", align_corners=False
        ).squeeze(1)
    return loss(logits.float(), iou.float(), target)


def _rows(values: Tensor | None, rows: Tensor, device: torch.device) -> Tensor | None:
    return None if values is None else values[rows].to(device)
