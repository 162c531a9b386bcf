"""Gradients of one micro-batch: encode once, decode prompts in chunks, go back through the encoder once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_sam.models.decoding import decode_all_masks, device_of
from lora_sam.models.stages import encode
from lora_sam.training.losses.terms import enlarged, pooled_targets
from lora_sam.training.prompted import PromptBatch, alike, on_background

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.training.examples import Example
    from lora_sam.training.losses import Loss
    from lora_sam.training.options import Multimask


def accumulate_gradients(
    adapted: AdaptedSam,
    loss: Loss,
    examples: Sequence[Example],
    *,
    chunk: int,
    multimask_points: bool,
    scale: float,
    autocast: AbstractContextManager[None],
    multimask: Multimask | None = None,
    background_iou: float = 0.0,
    background_mask: float = 0.0,
    checkpointed: frozenset[int] = frozenset(),
) -> dict[str, float]:
    """Add the gradient of `scale` times the mean loss per object to `.grad` of everything trainable.

    The image encoder runs once for the batch. Every chunk of prompts sends its gradient back to the image embedding
    and frees its activations; the sum then goes through the encoder in one backward pass. Memory is that of `chunk`
    prompts however many objects an image has; the gradient is the same but for the order of additions.

    Where examples have corrections, a chunk is decoded in rounds, each with a backward pass of its own: a click where
    the round before was wrong, and for some objects its logits as mask prompt. The loss is the mean over the rounds.

    Points on the background are decoded once. They add their weighted loss to the sum over the objects, and do not
    count as objects.

    Args:
        adapted: The model.
        loss: Loss per object.
        examples: The micro-batch.
        chunk: Prompts decoded at once.
        multimask_points: Add the loss of the three masks for ambiguous prompts where the prompt is a single point.
        scale: Factor of the gradient.
        autocast: Context of the forward pass.
        multimask: Add the loss of those three masks whatever the prompt is, reduced in this way; see
            `several_masks_loss`.
        background_iou: Weight of the error of the predicted IoU of points on the background, whose masks are wrong.
        background_mask: Weight of the other losses of those points, against an empty mask.
        checkpointed: Blocks of the image encoder whose activations are made again instead of kept.

    Returns:
        Mean per object of the loss and of its parts, by name; `background` is what those points add to the loss.
    """
    sam = adapted.sam
    device = device_of(sam)
    objects = sum(len(example.targets) for example in examples)
    with autocast:
        embeddings = embed(adapted, examples, checkpointed)
    leaf = embeddings.detach().requires_grad_(adapted.trains_encoder)
    sums: dict[str, float] = {}

    def decoded(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Logits [N, M, S/4, S/4] and predicted IoU [N, M] of prompts of one kind; M is 4 where all masks train."""
        several_wanted = multimask is not None or (multimask_points and prompts.single_points)
        with autocast:
            return decode_all_masks(
                sam,
                leaf,
                boxes=prompts.boxes,
                points=prompts.points,
                labels=prompts.labels,
                mask_inputs=prompts.mask_inputs,
                images=prompts.images,
                masks=slice(None) if several_wanted else slice(0, 1),
            )

    def go_back(prompts: PromptBatch) -> Tensor:
        """Add gradient and losses of prompts of one kind; their low-resolution logits [N, S/4, S/4]."""
        logits, iou = decoded(prompts)
        parts = mask_losses(loss, logits[:, 0], iou[:, 0], prompts.targets)
        if logits.shape[1] > 1:
            several = several_masks_loss(loss, logits[:, 1:], iou[:, 1:], prompts.targets, multimask or "best_loss")
            parts = {**parts, "loss": parts["loss"] + several, "several_masks": several}
        share = 1 / prompts.rounds
        (parts["loss"].sum() * (scale * share / objects)).backward()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + share * float(value.detach().sum())
        return logits[:, 0].detach()

    beside = on_background(examples) if background_iou or background_mask else None
    for prompts in () if beside is None else beside.chunks(chunk):
        prompts = prompts.to(device)
        logits, iou = decoded(prompts)
        losses = background_losses(loss, logits, iou, prompts.targets, iou_weight=background_iou, mask=background_mask)
        (losses.sum() * (scale / objects)).backward()
        for name in ("loss", "background"):
            sums[name] = sums.get(name, 0.0) + float(losses.detach().sum())
    for group in alike(examples):
        for prompts in group.chunks(chunk):
            prompts = prompts.to(device)
            low_res_logits = go_back(prompts)
            for round_ in range(prompts.rounds - 1):
                prompts = prompts.corrected(low_res_logits, round_)
                low_res_logits = prompts.decoded(go_back)
    if adapted.trains_encoder:
        embeddings.backward(leaf.grad)
    return {name: value / objects for name, value in sums.items()}


def embed(adapted: AdaptedSam, examples: Sequence[Example], checkpointed: frozenset[int] = frozenset()) -> Tensor:
    """Image embeddings [B, C, S/16, S/16]; with a graph where the image encoder trains.

    Args:
        adapted: The model.
        examples: The images, or what the frozen part of its image encoder made of them.
        checkpointed: See `accumulate_gradients`.
    """
    encoder, device, stage = adapted.sam.image_encoder, device_of(adapted.sam), adapted.frozen_stage
    encoded = [example.encoded for example in examples if example.encoded is not None]
    images = [example.image for example in examples if example.image is not None]
    assert len(encoded) + len(images) == len(examples), "each example has an image or what was made of it"
    parts = []
    with torch.set_grad_enabled(adapted.trains_encoder):
        if encoded:
            assert stage is not None
            parts.append(stage.rest(encoder, torch.stack(encoded).to(device), checkpointed))
        if images:
            parts.append(encode(encoder, torch.stack(images).to(device), checkpointed))
    if len(parts) == 1:
        return parts[0]
    taken = {True: iter(parts[0].split(1)), False: iter(parts[1].split(1))}
    return torch.cat([next(taken[example.encoded is not None]) for example in examples]).to(parts[0].dtype)


def mask_losses(loss: Loss, low_res_logits: Tensor, iou: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Per-object losses in fp32 at the resolution the loss asks for.

    Args:
        loss: The loss.
        low_res_logits: [N, S/4, S/4].
        iou: Predicted IoU, [N].
        targets: bool [N, S, S]; averaged where the loss works at low resolution.
    """
    assert loss.resolution != "auto", "settled before the first step"
    target, logits = targets.float(), low_res_logits
    if loss.resolution == "low":
        target = pooled_targets(target, logits.shape[-1])
    elif loss.resolution == "input":
        logits = enlarged(low_res_logits, targets.shape[-2:])
    return loss(logits.float(), iou.float(), target)


def background_losses(
    loss: Loss, low_res_logits: Tensor, iou: Tensor, targets: Tensor, *, iou_weight: float, mask: float
) -> Tensor:
    """Loss of prompts where no object is: predicted IoU of all masks towards 0, and masks towards empty ones.

    The single mask and the mean of the three for ambiguous prompts count alike, as with objects.

    Args:
        loss: The loss of objects.
        low_res_logits: [N, M, S/4, S/4], M is 1 or 4.
        iou: Predicted IoU, [N, M].
        targets: bool [N, S, S], nothing set.
        iou_weight: Weight of the squared predicted IoU.
        mask: Weight of `loss` without its part for the predicted IoU.

    Returns:
        [N].
    """
    count = low_res_logits.shape[1]
    each = iou_weight * iou.float().square()
    if mask:
        parts = mask_losses(loss, low_res_logits.flatten(0, 1), iou.flatten(), targets.repeat_interleave(count, dim=0))
        each = each + mask * (parts["loss"] - loss.iou * parts["iou"]).view(-1, count)
    return each[:, 0] + each[:, 1:].mean(dim=1) if count > 1 else each[:, 0]


def several_masks_loss(
    loss: Loss, low_res_logits: Tensor, iou: Tensor, targets: Tensor, reduction: Multimask = "best_loss"
) -> Tensor:
    """Loss of several masks for one prompt, plus the mean error of their predicted IoU, per object.

    `best_loss` takes the smallest loss among the masks: only the best need be right (Kirillov et al., 2023, "Resolving
    ambiguity", and appendix A, "Making the model ambiguity-aware"). `best_iou` takes the loss of the mask with the
    highest predicted IoU, the one that a predictor would choose. `mean` takes the mean.

    Args:
        loss: The loss.
        low_res_logits: [N, M, S/4, S/4].
        iou: Predicted IoU, [N, M].
        targets: bool [N, S, S].
        reduction: How the losses of the masks become one.

    Returns:
        [N].
    """
    count = low_res_logits.shape[1]
    parts = mask_losses(loss, low_res_logits.flatten(0, 1), iou.flatten(), targets.repeat_interleave(count, dim=0))
    errors = loss.iou * parts["iou"].view(-1, count)
    masks = parts["loss"].view(-1, count) - errors
    if reduction == "best_loss":
        chosen = masks.amin(dim=1)
    elif reduction == "best_iou":
        chosen = masks.gather(1, iou.detach().argmax(dim=1, keepdim=True)).squeeze(1)
    else:
        chosen = masks.mean(dim=1)
    return chosen + errors.mean(dim=1)
