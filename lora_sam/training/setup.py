"""What a run needs before its parts are ready: method, cached encodings, attention, plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lora_sam.core.errors import TrainingError
from lora_sam.data.small_objects import small_in

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.attention.choice import AttentionChoice
    from lora_sam.models.base_model import BaseModel
    from lora_sam.training.arithmetic import Arithmetic
    from lora_sam.training.encoding import Encodings
    from lora_sam.training.options import TrainerOptions
    from lora_sam.training.planning.plan import Plan
    from lora_sam.training.processes import Processes
    from lora_sam.training.settings import Settings


def describe_data(splits: Splits, settings: Settings) -> Iterator[str]:
    """Sizes of the splits, notes, objects that are small, and what was skipped, in lines for people."""
    sizes = ", ".join(
        f"{name} {len(source)} images" + ("" if counts is None else f" / {sum(counts)} objects")
        for name, source in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        for counts in (source.object_counts,)
    )
    yield f"data: {sizes}"
    yield from (f"  {note}" for note in splits.notes)
    if getattr(settings.data, "tile", 0) is None and not settings.semantic:  # formats that can be cut, and are not
        small = small_in(splits.train, settings.seed)
        if small is not None:
            yield f"  {small}"
    if splits.skipped:
        yield f"  skipped {len(splits.skipped)}:"
        yield from (f"    {message}" for message in splits.skipped)


def adapt(base: BaseModel, settings: Settings, splits: Splits, processes: Processes) -> AdaptedSam:
    """The base with what the method inserts, on its device; says how much of it trains.

    Raises:
        TrainingError: nothing would train.
        ConfigError: rates are to differ by block, and no block trains.
    """
    import torch

    from lora_sam.models.stages import blocks_of

    torch.manual_seed(settings.seed)
    adapted: AdaptedSam = settings.method.apply(base.sam)
    adapted.peft.to(processes.accelerator.device)
    if adapted.eva:
        from lora_sam.data.transforms import preprocess
        from lora_sam.methods.eva import IMAGES, start_from_images
        from lora_sam.models.family import frame_of

        first, frame = range(min(IMAGES, len(splits.train))), frame_of(adapted.sam)
        start_from_images(adapted, (preprocess(splits.train[index].image, frame) for index in first))
    trainable, total = adapted.count()
    if trainable == 0:
        raise TrainingError("nothing to train: this method leaves every weight frozen; choose another method=")
    settings.optim.check_blocks(blocks_of(adapted.sam.image_encoder, adapted.trainable()), settings.method_typed)
    processes.say(
        f"model: {base.variant} at {base.image_size} px, method={settings.method_typed}: "
        f"{trainable:,} of {total:,} parameters train ({100 * trainable / total:.2f} %), "
        f"{processes.precision} on {processes.accelerator.device}"
    )
    return adapted


def encode_once(
    base: BaseModel, adapted: AdaptedSam, settings: Settings, say: Callable[[str], None]
) -> Encodings | None:
    """What is encoded once instead of at every step; None where nothing can be, or is wanted."""
    from lora_sam.training.encoding import Encodings, why_no_cache

    if settings.trainer.cache == "off":
        return None
    stage = adapted.frozen_stage
    reason = why_no_cache(stage, settings.augmentation)
    if stage is None or reason is not None:
        say(f"embedding cache: off: {reason}")
        return None
    return Encodings(adapted, base, stage, settings.cache, say)


def settle_loss(
    settings: Settings, splits: Splits, adapted: AdaptedSam, processes: Processes, then: Arithmetic | None = None
) -> Settings:
    """The settings with a loss that compares masks where the training objects can be seen; says so where that is dear.

    As the run that is resumed did.
    """
    from dataclasses import replace

    from lora_sam.models.family import frame_of
    from lora_sam.training.comparing import settled

    frame = frame_of(adapted.sam)
    loss, kept = settled(settings.loss, splits.train, frame, settings.seed, then)
    if kept is not None and loss.resolution == "input":
        processes.say(
            f"masks are compared at {frame.side} px: at {frame.mask_side} px, where the decoder gives them, even "
            f"perfect ones would have an IoU of {kept:.2f} with the training objects (loss.resolution)"
        )
    return replace(settings, loss=loss)


def choose_attention(
    base: BaseModel,
    adapted: AdaptedSam,
    options: TrainerOptions,
    processes: Processes,
    then: Arithmetic | None = None,
) -> AttentionChoice:
    """How the image encoder attends: as the run that is resumed did, else measured once per machine."""
    from lora_sam.models.attention.choice import choose_attention, set_attention

    encoder, device = adapted.sam.image_encoder, processes.accelerator.device
    choice: AttentionChoice
    if then is not None and then.fits(device.type):
        choice = {"training": then.training, "inference": then.inference, "measured_ms": {}}
    else:
        choice = choose_attention(encoder, base.image_size, device, processes.precision, options.attention)
    set_attention(encoder, choice["training"], choice["inference"], processes.precision)
    return choice


def plan_run(
    settings: Settings,
    splits: Splits,
    adapted: AdaptedSam,
    encodings: Encodings | None,
    attention: AttentionChoice,
    processes: Processes,
    then: Arithmetic | None = None,
) -> Plan:
    """What the run will take, and how much goes through the model at once; said to people.

    As much as in the run that is resumed, where there is memory for it.
    """
    from lora_sam.training.cross_validation import folds_asked
    from lora_sam.training.planning.machine import look_at
    from lora_sam.training.planning.plan import TrainingData, make_plan, row_bytes
    from lora_sam.training.planning.workload import trained_in

    options, accelerator = settings.trainer, processes.accelerator
    trained, source, stage = trained_in(adapted), splits.train, adapted.frozen_stage
    cached = 0
    if encodings is not None:
        cached = encodings.images(len(source), settings.augmentation) + len(splits.val)
    plan = make_plan(
        model=settings.model,
        trained=trained,
        options=options,
        precision=processes.precision,
        machine=look_at(accelerator.device, processes.precision, trained.weight_bytes),
        data=TrainingData.of(
            source.object_counts,
            len(source),
            max_objects=settings.data.max_objects_per_image,
            chunk=options.decoder_chunk,
            rounds=getattr(settings.prompt, "mean_rounds", 1.0),
            cached=cached,
            cached_bytes=0
            if stage is None
            else row_bytes(stage.shape(adapted.sam.image_encoder), settings.cache.dtype),
            # a run that goes on has been asked already
            folds=tuple(len(trains) for trains, _ in folds_asked(splits, options)) if then is None else (),
        ),
        processes=accelerator.num_processes,
        input_loss=settings.loss.resolution == "input",
        attention=attention["training"],
        then=then if then is not None and then.fits(accelerator.device.type) else None,
    )
    processes.say(plan.line())
    for note in plan.notes:
        processes.say(f"  {note}")
    return plan
