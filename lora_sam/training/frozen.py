"""What `trainer.frozen=bf16` does to a run: which weights are held so, where it is refused, and how the run ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lora_sam.core.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.held import Linears
    from lora_sam.training.encoding import Encodings
    from lora_sam.training.settings import Settings

INTO_THE_BASE = ("pissa", "olora")
"""Starts of LoRA that change the weights of the base: those of its file cannot be put back at the end."""

INTO_WEIGHTS = ("shira",)
"""Tuners of PEFT that add what they train to the frozen weights themselves, where small changes would be lost."""


def check_frozen(settings: Settings) -> None:
    """Raise `ConfigError` where the frozen weights of a method cannot be held in bf16."""
    if settings.trainer.frozen == "fp32":
        return
    init = getattr(settings.method, "init", None)
    if init in INTO_THE_BASE:
        raise ConfigError(
            f"trainer.frozen = {settings.trainer.frozen}: not with method.init={init}, which takes a part out of the "
            "weights that would be rounded; set trainer.frozen=fp32, or choose method.init=eva"
        )
    if (tuner := getattr(settings.method, "tuner", None)) in INTO_WEIGHTS:
        raise ConfigError(
            f"trainer.frozen = {settings.trainer.frozen}: not with method={tuner}, which trains numbers of the frozen "
            "weights themselves; set trainer.frozen=fp32, or take method=lora"
        )


def hold_frozen(
    adapted: AdaptedSam,
    linears: Linears,
    settings: Settings,
    encodings: Encodings | None,
    say: Callable[[str], None],
) -> None:
    """Round what is frozen to bf16 where the settings want it, and say how much that is.

    What comes before the first block that trains stays fp32 where its results are kept: the rows of the embedding cache
    are those of the fp32 weights, which other runs and the evaluation read too.
    """
    if settings.trainer.frozen == "fp32":
        return
    from lora_sam.models.family import family_of
    from lora_sam.models.held import hold

    encoder, stage = adapted.sam.image_encoder, adapted.frozen_stage
    untouched: frozenset[str] = frozenset()
    if encodings is not None and stage is not None:
        family, until = family_of(encoder), stage.block
        blocks = {name: family.block_of(encoder, f"{name}.weight") for name in linears}
        untouched = frozenset(name for name, block in blocks.items() if until is None or block is None or block < until)
    held = hold(encoder, linears, untouched)
    if held:
        say(f"trainer.frozen=bf16: {held:,} frozen weights are held in bf16 while the rest trains")
    else:
        why = "it trains whole" if encodings is None else "its results are kept (trainer.cache)"
        say(f"trainer.frozen=bf16: no weight of the image encoder is held in bf16, as {why}")


def give_back_frozen(adapted: AdaptedSam, linears: Linears, base: BaseModel, settings: Settings) -> None:
    """Put the fp32 weights of the base into the model again; nothing where none was rounded.

    Raises:
        CheckpointError: the file of the base is gone.
        TrainingError: it holds other weights by now.
    """
    from lora_sam.models.held import give_back, held_in, linears_of

    if not held_in(adapted.sam):
        return
    exact = settings.model.build()
    if exact.sha256 != base.sha256:
        raise TrainingError(
            f"{base.source}: the weights of the base have changed while this run trained, from "
            f"{base.sha256[:12]} to {exact.sha256[:12]}, and trainer.frozen=bf16 needs them for the evaluation; put "
            "the old file back, and go on with resume=<this run>"
        )
    give_back(adapted.sam.image_encoder, linears, linears_of(exact.sam.image_encoder))
