"""The plan of a run: how much goes through the model at once, and what that takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lora_sam.core.console import text_table
from lora_sam.core.errors import TrainingError
from lora_sam.core.wording import about, in_flops, in_gib, in_gigabytes, in_short, plural
from lora_sam.training.options import checkpointed_blocks
from lora_sam.training.planning.memory import Peak, forward_peak, peak_of
from lora_sam.training.planning.work import seconds_per_image, seconds_to_encode, step_flops
from lora_sam.training.planning.workload import Step, Trained

if TYPE_CHECKING:
    from rich.table import Table

    from lora_sam.models.device import Precision
    from lora_sam.models.family import SamModel
    from lora_sam.models.kernels import TrainingKernel
    from lora_sam.training.arithmetic import Arithmetic
    from lora_sam.training.options import Checkpointing, TrainerOptions
    from lora_sam.training.planning.machine import Machine

GIB = 2**30
_SPARE = 0.9  # share of the free memory that a plan may use where the user sets no limit: it is an estimate


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The training data, as far as a plan depends on it.

    Attributes:
        images: Training images of an epoch, for all processes.
        prompts: Prompts decoded for an image, on average; each round of correction counts.
        most_prompts: The most prompts of an image in one round.
        cached: Images whose frozen part the embedding cache will hold; 0 where there is no cache.
        cached_bytes: Bytes of one of them; see `row_bytes`.
        folds: Images that train in each fold of the cross-validation that comes first; none where there is none.
    """

    images: int
    prompts: float
    most_prompts: int
    cached: int = 0
    cached_bytes: int = 0
    folds: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        object_counts: Sequence[int] | None,
        images: int,
        *,
        max_objects: int | None,
        chunk: int,
        rounds: float = 1,
        cached: int = 0,
        cached_bytes: int = 0,
        folds: tuple[int, ...] = (),
    ) -> TrainingData:
        """From the objects of each image, None where they are not known: then a full chunk is assumed.

        Args:
            object_counts: Objects of each training image.
            images: Training images.
            max_objects: Most objects of an image that an epoch takes; None for all.
            chunk: Prompts decoded at once.
            rounds: How often each prompt is decoded, on average.
            cached: See `TrainingData`.
            cached_bytes: See `TrainingData`.
            folds: See `TrainingData`.
        """
        counts = [max_objects or chunk] if object_counts is None or not len(object_counts) else list(object_counts)
        counts = [count if max_objects is None else min(count, max_objects) for count in counts]
        mean = rounds * sum(counts) / len(counts)
        most = max(counts)
        return cls(
            images=images, prompts=mean, most_prompts=most, cached=cached, cached_bytes=cached_bytes, folds=folds
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was chosen, and what it takes.

    Attributes:
        trainable: Parameters that train.
        total: Parameters of the model with its adapter.
        precision: Arithmetic of the forward pass.
        checkpointing: Blocks whose activations are made again.
        checkpointed: Their numbers.
        at_once: Images that go through the model together.
        prompts: Prompts that are decoded together.
        effective_batch: Images of an optimiser step.
        peak: Memory of training.
        evaluation_bytes: Memory of encoding in fp32, as the evaluation at the end does.
        limit_bytes: Memory to stay within.
        flops_per_image: FLOPs of the gradients of one image.
        seconds_per_epoch: Of training, without validation.
        steps_per_epoch: Optimiser steps.
        cached_images: Images whose frozen part the embedding cache will hold.
        cache_bytes: What they take on disk.
        seconds_to_cache: Time to encode them, those that are there already included.
        total_steps: Optimiser steps until the first limit of the trainer.
        seconds_to_cross_validate: Time of the cross-validation before training; 0 where there is none.
        machine: Kind of device, and how fast it multiplies.
        notes: What the user should know.
    """

    trainable: int
    total: int
    precision: Precision
    checkpointing: Checkpointing
    checkpointed: frozenset[int]
    at_once: int
    prompts: int
    effective_batch: int
    peak: Peak
    evaluation_bytes: int
    limit_bytes: int
    flops_per_image: float
    seconds_per_epoch: float
    steps_per_epoch: int
    cached_images: int
    cache_bytes: int
    seconds_to_cache: float
    total_steps: int
    seconds_to_cross_validate: float
    machine: str
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Time of training up to the first limit, without validation."""
        return self.seconds_per_epoch * self.total_steps / self.steps_per_epoch

    def line(self) -> str:
        """One line: parameters, memory, time, choices, cache."""
        text = (
            f"plan: {in_short(self.trainable)} of {in_short(self.total)} parameters train; "
            f"about {in_gib(self.peak.total)} and {about(self.seconds_per_epoch)} per epoch "
            f"({self.precision}, checkpointing {self.checkpointing}, {plural(self.at_once, 'image')} at once)"
        )
        if self.seconds_to_cross_validate:
            text += f"; cross-validation first: {about(self.seconds_to_cross_validate)}"
        if self.cached_images:
            text += f"; embeddings of {plural(self.cached_images, 'image')} cached: {in_gigabytes(self.cache_bytes)}"
        return text

    def table(self) -> Table:
        """What the line says, and where it comes from."""
        return text_table(("", "", ""), self._rows(), title="plan, estimated", left=(0, 2), folding=(1, 2))

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        peak, share = self.peak, 100 * self.trainable / self.total
        yield "parameters that train", f"{self.trainable:,}", f"{share:.2f} % of {self.total:,}"
        at_once = f"{plural(self.at_once, 'image')} at once, {self.effective_batch} per optimiser step"
        yield "arithmetic", self.precision, f"checkpointing {self.checkpointing}, {at_once}"
        yield "memory", in_gib(peak.total), f"limit {in_gib(self.limit_bytes)}"
        for name in ("process", "weights", "optimizer", "activations"):
            yield f"  {name}", in_gib(getattr(peak, name)), ""
        once = "evaluation, and filling the cache" if self.cached_images else "evaluation"
        yield "  encoding in fp32", in_gib(self.evaluation_bytes), once
        steps = f"{plural(self.steps_per_epoch, 'optimiser step')}, {in_flops(self.flops_per_image)} per image"
        yield "an epoch", about(self.seconds_per_epoch), f"{steps}; without validation"
        yield (
            "training",
            about(self.seconds),
            f"{plural(self.total_steps, 'optimiser step')} at most, on {self.machine}",
        )
        if self.seconds_to_cross_validate:
            seconds = about(self.seconds_to_cross_validate)
            yield "cross-validation", seconds, "before training; where it finds no gain, nothing is trained"
        if self.cached_images:
            once = f"{plural(self.cached_images, 'image')}, encoded once in {about(self.seconds_to_cache)}"
            yield "embedding cache", in_gigabytes(self.cache_bytes), once
        else:
            yield "embedding cache", "-", "nothing is cached"
        for note in self.notes:
            yield "note", "", note

    def to_json(self) -> dict[str, Any]:
        """All of it; bytes, seconds, FLOPs."""
        values = asdict(self)
        values["checkpointed"], values["notes"] = sorted(self.checkpointed), list(self.notes)
        values["peak"] = {**values["peak"], "total": self.peak.total}
        return values


def make_plan(
    *,
    model: SamModel,
    trained: Trained,
    options: TrainerOptions,
    precision: Precision,
    machine: Machine,
    data: TrainingData,
    processes: int = 1,
    input_loss: bool = False,
    attention: TrainingKernel | None = None,
    then: Arithmetic | None = None,
) -> Plan:
    """Choose checkpointing, images at once and, if need be, precision, so that a step fits into the memory there is.

    The gradient is the same for all of these, so the cheapest goes first: fewer images at once cost next to nothing,
    checkpoints another forward pass. bf16 without hardware for it is slow, and comes last.

    Args:
        model: The architecture.
        trained: What trains.
        options: Options of the trainer.
        precision: Arithmetic that was picked for the device.
        machine: The device.
        data: The training data.
        processes: Processes that share the images of an epoch.
        input_loss: Whether the loss compares masks at the size of the input.
        attention: How blocks that train attend; None for what `trainer.attention` says, or is usual for the device.
        then: How the run that is resumed computed, which is taken up where it fits into `trainer.memory_gb`, or else
            into the memory that is free.

    Raises:
        TrainingError: nothing fits into `trainer.memory_gb`.
    """
    given = options.memory_gb is not None
    limit = int(options.memory_gb * GIB) if options.memory_gb is not None else int(machine.free_bytes * _SPARE)
    last_resort: tuple[Precision, ...] = ()
    if options.precision == "auto" and precision == "fp32" and machine.kind != "mps":
        last_resort = ("bf16",)
    if attention is None and options.attention != "auto":
        attention = options.attention
    step = Step(
        model=model,
        trained=trained,
        precision=precision,
        images=options.batch_size,
        prompts=data.prompts,
        most_prompts=data.most_prompts,
        chunk=options.decoder_chunk,
        encoded=data.cached > 0,
        attention=attention or ("tiled" if machine.kind == "cpu" else "channels"),
        input_loss=input_loss,
    )
    mean = options.ema_decay is not None
    candidates = _candidates(step, options, (precision, *last_resort))
    earlier = None if then is None else _taken_up(step, options, then)
    for chosen, checkpointing in candidates if earlier is None else (earlier, *candidates):  # noqa: B007
        peak = peak_of(chosen, machine.kind, machine.process_bytes, running_mean=mean)
        # what is free changes from one minute to the next, and the run did fit before
        if peak.total <= (limit if given or earlier is None or chosen is not earlier[0] else machine.free_bytes):
            break
    else:
        if given:
            raise TrainingError(
                f"trainer.memory_gb = {options.memory_gb}: the least that this run takes is about {in_gib(peak.total)} "
                f"({chosen.precision}, checkpointing {checkpointing}, {plural(chosen.images, 'image')} at once); "
                f"allow more, or take less with {_remedies(options, chosen)}"
            )
    rate = machine.rates.get(chosen.precision) or max(machine.rates.values())
    each = seconds_per_image(chosen, machine.kind, rate, options.workers)

    def lasts(images: int) -> tuple[float, int, int]:
        """Seconds of an epoch of so many images, its optimiser steps, and those of all epochs."""
        own = math.ceil(images / processes)
        batches = math.ceil(own / options.batch_size)
        return own * each, math.ceil(batches / options.accumulate), options.total_steps(batches)

    seconds_per_epoch, steps_per_epoch, total_steps = lasts(data.images)
    plan = Plan(
        trainable=trained.trainable,
        total=trained.total,
        precision=chosen.precision,
        checkpointing=checkpointing,
        checkpointed=chosen.checkpointed,
        at_once=chosen.images,
        prompts=chosen.chunk,
        effective_batch=options.batch_size * options.accumulate * processes,
        peak=peak,
        evaluation_bytes=peak.process + 4 * trained.held + forward_peak(model),
        limit_bytes=limit,
        flops_per_image=step_flops(chosen).total,
        seconds_per_epoch=seconds_per_epoch,
        steps_per_epoch=steps_per_epoch,
        cached_images=data.cached,
        cache_bytes=data.cached * data.cached_bytes,
        seconds_to_cache=data.cached * seconds_to_encode(model, machine.kind, rate),
        total_steps=total_steps,
        seconds_to_cross_validate=sum(epoch * steps / an_epoch for epoch, an_epoch, steps in map(lasts, data.folds)),
        machine=f"{'' if processes == 1 else f'{processes} times '}{machine.kind} with {in_flops(rate)}/s",
    )
    return replace(plan, notes=tuple(_notes(plan, options, chosen, precision)))


def row_bytes(shape: Collection[int], dtype: str) -> int:
    """Bytes of what the embedding cache holds for an image: `Stage.shape` in `float16` or `float32`."""
    return math.prod(shape) * (2 if dtype == "float16" else 4)


def _candidates(
    step: Step, options: TrainerOptions, precisions: Sequence[Precision]
) -> Iterator[tuple[Step, Checkpointing]]:
    """Steps from the fastest to the smallest."""
    ways: tuple[Checkpointing, ...] = ("off", "global", "all")
    if options.checkpointing != "auto":
        ways = (options.checkpointing,)
    elif not step.training_blocks:
        ways = ("off",)
    model = step.model
    for precision, way in itertools.product(precisions, ways):
        blocks = checkpointed_blocks(model.depth, model.global_attention, way)
        images = options.batch_size
        while images:
            yield replace(step, precision=precision, checkpointed=blocks, images=images), way
            images //= 2


def _taken_up(step: Step, options: TrainerOptions, then: Arithmetic) -> tuple[Step, Checkpointing] | None:
    """The step of a run that is resumed; None where its blocks are those of no way to choose them."""
    model, blocks = step.model, frozenset(then.checkpointed)
    for way in ("off", "global", "all") if options.checkpointing == "auto" else (options.checkpointing,):
        if checkpointed_blocks(model.depth, model.global_attention, way) == blocks:
            images = min(then.images, options.batch_size)
            return replace(step, precision=then.precision, checkpointed=blocks, images=images, chunk=then.prompts), way
    return None


def _remedies(options: TrainerOptions, chosen: Step) -> str:
    """What makes the smallest step smaller."""
    remedies = []
    if chosen.precision == "fp32":
        remedies.append("trainer.precision=bf16")
    if chosen.training_blocks:
        if options.frozen == "fp32" and not chosen.trained.whole_encoder:
            remedies.append("trainer.frozen=bf16")
        if options.checkpointing in ("off", "global"):
            remedies.append("trainer.checkpointing=auto")
        if len(chosen.training_blocks) > 3:
            remedies.append("method.blocks=last:3")
    remedies.append(f"a smaller model.image_size (now {chosen.model.image_size})")
    if chosen.decoded_together > 1:
        remedies.append(f"trainer.decoder_chunk={max(1, chosen.decoded_together // 4)}")
    return ", ".join(remedies)


def _notes(plan: Plan, options: TrainerOptions, chosen: Step, wanted: Precision) -> Iterator[str]:
    """What the user should know beside the figures."""
    peak, limit = in_gib(plan.peak.total), in_gib(plan.limit_bytes)
    if plan.peak.total > plan.limit_bytes:
        yield (
            f"the least that this run takes is about {peak}, of the free memory {limit} may be used: it may end for "
            f"lack of memory; take less with {_remedies(options, chosen)}"
        )
    if plan.precision != wanted:
        yield f"trainer.precision=auto: {wanted} does not fit into {limit}, {plan.precision} does, but is slow here"
    if plan.evaluation_bytes > max(plan.limit_bytes, plan.peak.total):
        yield f"the evaluation at the end encodes in fp32, which takes about {in_gib(plan.evaluation_bytes)}"
