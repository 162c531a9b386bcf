"""Gradients of a batch of the training loop, and what its processes agree on: in parts, again where memory ran out."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from lora_sam.core.errors import TrainingError
from lora_sam.models.device import autocast
from lora_sam.training.examples import collate
from lora_sam.training.out_of_memory import Room, tried
from lora_sam.training.step import accumulate_gradients

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from lora_sam.training.examples import Example
    from lora_sam.training.fitting import Fitting
    from lora_sam.training.state import Progress
    from lora_sam.training.stopping import StopRequest


def gradients_of_batch(
    fit: Fitting,
    examples: Sequence[Example],
    earlier: Sequence[Sequence[tuple[int, int]]],
    progress: Progress,
    room: Room,
) -> dict[str, float]:
    """Gradients of one batch, weighted so that those of a step add up to their mean; the batch's share of the loss.

    Where memory runs out, gradients are incomplete in a way that cannot be undone. All are dropped, and what the
    step has seen so far, `earlier` and `examples`, is computed again with less of it at once. Examples are
    functions of their keys, so that none has to be kept for this.
    """
    first = progress.batch // fit.options.accumulate * fit.options.accumulate
    share = min(fit.options.accumulate, fit.batches_per_epoch - first)
    parts = tried(lambda: gradients(fit, examples, share, room))
    while parts is None:
        fit.adapted.peft.zero_grad(set_to_none=True)
        change = room.shrink(len(examples), max(len(example.targets) for example in examples))
        if progress.arithmetic:
            progress.arithmetic |= {"images": room.images, "prompts": room.prompts}
        fit.display.message(f"out of memory at step {progress.step + 1}: {change}; the effective batch stays")
        parts = tried(lambda: _again(fit, earlier, examples, share, room))
    return parts


def _again(
    fit: Fitting, earlier: Sequence[Sequence[tuple[int, int]]], examples: Sequence[Example], share: int, room: Room
) -> dict[str, float]:
    for keys in earlier:
        gradients(fit, collate([fit.examples[key] for key in keys]), share, room)
    return gradients(fit, examples, share, room)


def gradients(fit: Fitting, examples: Sequence[Example], share: int, room: Room) -> dict[str, float]:
    """Gradients and losses of a batch, divided by `share`; in parts, each weighted by its number of objects."""
    objects = sum(len(example.targets) for example in examples)
    sums: dict[str, float] = {}
    for part in room.parts(examples):
        weight = sum(len(example.targets) for example in part) / objects
        values = accumulate_gradients(
            fit.adapted,
            fit.loss,
            part,
            chunk=room.prompts,
            multimask_points=fit.options.multimask_points,
            multimask=fit.options.multimask,
            background_iou=fit.options.background_iou,
            background_mask=fit.options.background_mask,
            scale=weight / share,
            autocast=autocast(fit.accelerator.device, fit.precision),
            checkpointed=fit.checkpointed,
        )
        sums = added(sums, {name: weight * value / share for name, value in values.items()})
    return sums


def average_gradients(accelerator: Accelerator, parameters: Mapping[str, nn.Parameter]) -> None:
    """Make the gradients of several processes their mean, in each of them."""
    if accelerator.num_processes > 1:
        for parameter in parameters.values():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(gradient, reduction="mean")


def count_skipped(fit: Fitting, progress: Progress, loss: float, norm: float, ids: Sequence[str]) -> None:
    """Count a step whose loss or gradient is not finite, and say so. Raises `TrainingError` where they are too many."""
    progress.nonfinite += 1
    where = f"step {progress.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g} on {', '.join(ids)}"
    fit.display.message(f"skipped {where}")
    if progress.nonfinite > fit.options.max_nonfinite:
        raise TrainingError(
            f"{progress.nonfinite} steps were not finite (trainer.max_nonfinite = {fit.options.max_nonfinite}), "
            f"the last at {where}; lower optim.lr, set trainer.precision=fp32, or look at those images"
        )


def stopped_anywhere(stop: StopRequest, accelerator: Accelerator) -> bool:
    """Whether any process got a signal; all of them stop at the same step."""
    if accelerator.num_processes == 1:
        return stop.signal is not None
    flag = torch.tensor(float(stop.signal is not None), device=accelerator.device)
    if float(accelerator.reduce(flag, reduction="sum")) > 0:
        stop.signal = stop.signal or signal.SIGTERM
    return stop.signal is not None


def added(sums: Mapping[str, float], values: Mapping[str, float]) -> dict[str, float]:
    """Sums by name; a name that is missing counts as 0."""
    return {name: sums.get(name, 0.0) + values.get(name, 0.0) for name in {**sums, **values}}
