"""What a user may set about the training loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.core.scores import MaskChoice

Multimask = Literal["mean", "best_loss", "best_iou"]
"""How the losses of several masks become one."""

Checkpointing = Literal["off", "global", "all"]
"""Which blocks of the image encoder make their activations a second time instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop when validation IoU has not risen for a while.

    Attributes:
        patience: Validations without a gain that are tolerated; null never stops early.
        min_delta: A rise of validation IoU (0 to 1) smaller than this is no gain.
        warmup_epochs: Validations of these first epochs neither stop nor count.
    """

    patience: Annotated[int, Field(ge=1)] | None
    min_delta: Annotated[float, Field(ge=0, lt=1)]
    warmup_epochs: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """The training loop.

    Attributes:
        max_epochs: Passes over the training images; null if `max_steps` limits instead.
        max_steps: Optimiser steps; null if `max_epochs` limits instead. The first limit reached ends training.
        batch_size: Images of one micro-batch.
        accumulate: Micro-batches of one optimiser step.
        decoder_chunk: Prompts decoded at once; bounds memory, never changes the result beyond rounding.
        multimask_points: Where an object's prompt is a single point, train the three masks for ambiguous prompts beside
            the single one; the one with the smallest loss is trained.
        multimask: Train those three masks beside the single one whatever the prompt is: `mean` all alike, `best_loss`
            the one with the smallest loss, `best_iou` the one with the highest predicted IoU; null does not.
        background_iou: Weight of the squared predicted IoU of points on the background (`prompt.background_points`),
            which should be 0; a point counts as much as an object times this.
        background_mask: Weight of the mask losses of those points against an empty mask.
        ema_decay: Validate, keep as best and save the running mean of the weights instead of the last ones: decay per
            step of the exponential mean (0.99 to 0.9999; smaller over the first steps); null takes the last weights.
        clip_norm: Largest norm of the gradient; null does not clip.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 where it is faster, which is measured on a
            processor.
        frozen: In what frozen weights of the image encoder are held while the rest trains: `fp32`, or `bf16`, half the
            memory. The evaluation at the end, and all that is made of a run, are of fp32 weights.
        cache: `auto` keeps what the frozen part of the image encoder makes of an image on disk (see `cache`), where
            that part is the same for every step; `off` encodes anew at every step.
        checkpointing: Blocks of the image encoder whose activations are made a second time for the backward pass
            instead of kept: `off` none, `global` those that attend to the whole image, `all`; `auto` the first of these
            that fits into `memory_gb`.
        memory_gb: Memory to stay within, in GiB: `checkpointing=auto` and the number of images at once are chosen for
            it; null takes what the machine has free.
        plan: Say what the run would take, parameters, memory, time and disk, and stop.
        compile: Compile image encoder and mask decoder with `torch.compile`: minutes at the start, faster steps on
            GPUs.
        attention: How the image encoder attends while it trains: `tiled` or `channels` (both exact), or `auto`, what
            was measured to be faster on this device.
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: Processes that load images; 0 loads in the main process.
        validate_every_epochs: Epochs between validations; the last epoch is always validated.
        validation_objects: Objects per validation image that are scored, a fixed draw; null scores all.
        validation_clicks: Where rounds of corrections are trained, IoU after so many clicks is validated too, on at
            most 8 images: else weights would be chosen by their first masks alone. 0 does not.
        save_every_steps: Optimiser steps between saves of `checkpoints/last`; null saves after epochs only.
        log_every_steps: Optimiser steps between lines of `metrics.jsonl`.
        overlays: Validation images drawn into the tracker at every validation.
        class_head: Where the data has several classes, fit what tells them apart after training, on at most 100 images,
            and save it with the adapter.
        shots: Train on so many of the training images, drawn at random; null for all. Val and test stay what they are.
        draw: Which images those are; those of fewer shots are among those of more.
        cross_validate: Where all images that validate also train, and are at most so many: train on each half of them
            first and measure on the other half, and keep the base where that has not helped; 0 never does.
        least_rise: What trained weights have to validate above the base to take its place, in IoU, and one and a half
            standard errors of the difference; where ten images or more tell that error, two of them are enough. Else
            the base is kept. 0 takes whatever is above.
        max_nonfinite: Steps with a NaN or infinite loss or gradient that are skipped before training stops.
        early_stopping: When to stop before the limits.
    """

    max_epochs: Annotated[int, Field(ge=1)] | None
    max_steps: Annotated[int, Field(ge=1)] | None
    batch_size: Annotated[int, Field(ge=1)]
    accumulate: Annotated[int, Field(ge=1)]
    decoder_chunk: Annotated[int, Field(ge=1)]
    multimask_points: bool
    multimask: Multimask | None
    background_iou: Annotated[float, Field(ge=0, le=100)]
    background_mask: Annotated[float, Field(ge=0, le=100)]
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    clip_norm: Annotated[float, Field(gt=0)] | None
    precision: Literal["auto", "fp32", "bf16"]
    frozen: Literal["fp32", "bf16"]
    cache: Literal["auto", "off"]
    checkpointing: Checkpointing | Literal["auto"]
    memory_gb: Annotated[float, Field(gt=0)] | None
    plan: bool
    compile: bool
    attention: Literal["auto", "tiled", "channels"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    workers: Annotated[int, Field(ge=0, le=64)]
    validate_every_epochs: Annotated[int, Field(ge=1)]
    validation_objects: Annotated[int, Field(ge=1)] | None
    validation_clicks: Annotated[int, Field(ge=0, le=20)]
    save_every_steps: Annotated[int, Field(ge=1)] | None
    log_every_steps: Annotated[int, Field(ge=1)]
    overlays: Annotated[int, Field(ge=0)]
    class_head: bool
    shots: Annotated[int, Field(ge=1)] | None
    draw: Annotated[int, Field(ge=0, lt=2**32)]
    cross_validate: Annotated[int, Field(ge=0)]
    least_rise: Annotated[float, Field(ge=0, lt=1)]
    max_nonfinite: Annotated[int, Field(ge=0)]
    early_stopping: EarlyStopping

    def check(self) -> None:
        """Raise `ConfigError` if nothing limits training, or two options say how several masks are trained."""
        if self.multimask_points and self.multimask is not None:
            raise ConfigError(
                f"trainer.multimask_points = true and trainer.multimask = {self.multimask}: both say how the three "
                "masks are trained; choose one"
            )
        if self.max_epochs is None and self.max_steps is None:
            raise ConfigError("trainer.max_epochs and trainer.max_steps are both null: set at least one of them")

    @property
    def trained_masks(self) -> tuple[MaskChoice, ...]:
        """Which masks of a point are trained, of single points at least."""
        return ("three", "single") if self.multimask_points or self.multimask is not None else ("single",)

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimiser steps until the first limit; an epoch's last, smaller accumulation counts as a step."""
        per_epoch = -(-batches_per_epoch // self.accumulate)
        limits = [] if self.max_epochs is None else [self.max_epochs * per_epoch]
        return min([*limits, *([] if self.max_steps is None else [self.max_steps])])


def checkpointed_blocks(depth: int, global_attention: Collection[int], which: Checkpointing) -> frozenset[int]:
    """Numbers of the blocks of an image encoder of `depth` blocks that an option names."""
    return frozenset({"off": (), "global": global_attention, "all": range(depth)}[which])
