"""Gradients of one micro-batch: encode once, decode prompts in chunks, go back through the encoder once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_sam.models.decode import decode_all_masks, device_of

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
    multimask_points: bool,
    scale: float,
    autocast: AbstractContextManager[None],
) -> dict[str, float]:
    """Add the gradient of `scale` times the mean loss per object to `.grad` of everything trainable.

    The image encoder runs once for the batch. Every chunk of prompts sends its gradient back to the image embedding
    and frees its activations; the sum then goes through the encoder in one backward pass. Memory is that of `chunk`
    prompts however many objects an image has; the gradient is the same but for the order of additions.

    Args:
        adapted: The model.
        loss: Loss per object.
        examples: The micro-batch.
        chunk: Prompts decoded at once.
        multimask_points: Add the loss of the three masks for ambiguous prompts where the prompt is a single point.
        scale: Factor of the gradient.
        autocast: Context of the forward pass.

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
    for group in _alike(examples):
        for prompts in group.chunks(chunk):
            with autocast:
                logits, iou = decode_all_masks(
                    sam,
                    leaf,
                    boxes=_moved(prompts.boxes, device),
                    points=_moved(prompts.points, device),
                    labels=_moved(prompts.labels, device),
                    images=prompts.images.to(device),
                )
            targets = prompts.targets.to(device)
            parts = mask_losses(loss, logits[:, 0], iou[:, 0], targets)
            if multimask_points and prompts.single_points:
                several = several_masks_loss(loss, logits[:, 1:], iou[:, 1:], targets)
                parts = {**parts, "loss": parts["loss"] + several, "several_masks": several}
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


def several_masks_loss(loss: Loss, low_res_logits: Tensor, iou: Tensor, targets: Tensor) -> Tensor:
    """Loss of several masks for one ambiguous prompt, of which only the best need be right.

    Per object, the smallest loss among the masks, plus the mean error of their predicted IoU (Kirillov et al., 2023,
    "Resolving ambiguity", and appendix A, "Making the model ambiguity-aware").

    Args:
        loss: The loss.
        low_res_logits: [N, M, S/4, S/4].
        iou: Predicted IoU, [N, M].
        targets: bool [N, S, S].

    Returns:
        [N].
    """
    count = low_res_logits.shape[1]
    parts = mask_losses(loss, low_res_logits.flatten(0, 1), iou.flatten(), targets.repeat_interleave(count, dim=0))
    errors = loss.iou * parts["iou"].view(-1, count)
    masks = parts["loss"].view(-1, count) - errors
    return masks.amin(dim=1) + errors.mean(dim=1)


@dataclass(frozen=True)
class _Prompts:
    """Prompts of one kind on the images of a micro-batch, with their targets; tensors as in `Example`.

    Attributes:
        images: Index of the image of each of the N prompts, int64 [N].
    """

    images: Tensor
    boxes: Tensor | None
    points: Tensor | None
    labels: Tensor | None
    targets: Tensor

    @property
    def single_points(self) -> bool:
        return self.boxes is None and self.points is not None and self.points.shape[1] == 1

    def chunks(self, size: int) -> Iterator[_Prompts]:
        for rows in torch.arange(len(self.images)).split(size):
            yield _Prompts(
                self.images[rows],
                _rows(self.boxes, rows),
                _rows(self.points, rows),
                _rows(self.labels, rows),
                self.targets[rows],
            )


def _alike(examples: Sequence[Example]) -> list[_Prompts]:
    """The prompts of all examples, those with the same number of boxes and points per object together."""
    kinds: dict[tuple[bool, int], list[int]] = {}
    for index, example in enumerate(examples):
        kind = example.boxes is not None, 0 if example.points is None else example.points.shape[1]
        kinds.setdefault(kind, []).append(index)
    return [
        _Prompts(
            torch.cat([torch.full((len(examples[index].targets),), index) for index in indices]),
            _joined([examples[index].boxes for index in indices]),
            _joined([examples[index].points for index in indices]),
            _joined([examples[index].labels for index in indices]),
            torch.cat([examples[index].targets for index in indices]),
        )
        for indices in kinds.values()
    ]


def _joined(values: list[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.cat(present) if present else None


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def _moved(values: Tensor | None, device: torch.device) -> Tensor | None:
    return None if values is None else values.to(device)
