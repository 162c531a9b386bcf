"""What one fitting of one model needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_sam.models.device import Precision
from lora_sam.training.examples import EpochBatches

if TYPE_CHECKING:
    from accelerate import Accelerator

    from lora_sam.core.run_directory import RunDirectory
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.training.chance import ClusterSums
    from lora_sam.training.display import Display
    from lora_sam.training.examples import TrainingExamples
    from lora_sam.training.losses import Loss
    from lora_sam.training.optim import Adam
    from lora_sam.training.options import TrainerOptions

Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """One fitting of one model: what it needs.

    Attributes:
        adapted: The model with its adapter, on its device.
        examples: Training images with prompts and targets.
        loss: Loss per object.
        optim: Optimiser and schedule.
        options: Limits, intervals, arithmetic.
        precision: Arithmetic of the forward pass.
        seed: Seed of the order of images.
        run: Where checkpoints go; None keeps none.
        accelerator: Processes and devices.
        validate: Takes the step, returns the validation IoU of the model as it is.
        log: Takes (step, values) for the record.
        display: Shows progress.
        before_epoch: Called with the number of an epoch before it begins.
        at_once: Images of a batch that go through the model together at first, fewer where memory runs out; None for
            all of them. The gradient is that of the whole batch.
        prompts: Prompts that are decoded together at first; None for what the options say.
        arithmetic: How all of this computes, kept in each state; see `Arithmetic`.
        checkpointed: Blocks of the image encoder whose activations are made again instead of kept.
        sums: What the last validation IoU is the mean of; None where that is not known.
        base: Validation IoU of the base, the first candidate for the best weights; None where nobody measured it.
        base_sums: What it is the mean of; None where that is not known.
        base_stays: Whether the base is the best whatever would be trained, so that nothing is trained: cross-validation
            found no gain.
        should_stop: Takes the number of epochs and the validation IoU after them, and returns why no more of this run
            is wanted, or None.
    """

    adapted: AdaptedSam
    examples: TrainingExamples
    loss: Loss
    optim: Adam
    options: TrainerOptions
    precision: Precision
    seed: int
    run: RunDirectory | None
    accelerator: Accelerator
    validate: Callable[[int], float]
    log: Log
    display: Display
    before_epoch: Callable[[int], None] = lambda _: None
    at_once: int | None = None
    prompts: int | None = None
    arithmetic: Mapping[str, Any] = field(default_factory=dict)
    checkpointed: frozenset[int] = frozenset()
    sums: Callable[[], ClusterSums | None] = lambda: None
    base: float | None = None
    base_sums: ClusterSums | None = None
    base_stays: bool = False
    should_stop: Callable[[int, float], str | None] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches that each process gets in an epoch."""
        return len(self.batches(0))

    def batches(self, epoch: int, start: int = 0) -> EpochBatches:
        """Keys of the examples of an epoch, batch by batch, from batch `start` on; those of this process."""
        return EpochBatches(
            len(self.examples),
            batch_size=self.options.batch_size,
            seed=self.seed,
            epoch=epoch,
            start=start,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
