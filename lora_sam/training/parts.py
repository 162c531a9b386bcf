"""The parts of one run that is ready for its first step, and the fittings that they take part in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import TrainingError
from lora_sam.training.tracking import NoTracker

if TYPE_CHECKING:
    from lora_sam.core.run_directory import RunDirectory
    from lora_sam.data.sources import SampleSource
    from lora_sam.data.splits import Splits
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.attention.choice import AttentionChoice
    from lora_sam.models.base_model import BaseModel
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.training.encoding import Encodings
    from lora_sam.training.loop import Fit
    from lora_sam.training.planning.plan import Plan
    from lora_sam.training.processes import Processes
    from lora_sam.training.settings import Settings
    from lora_sam.training.tracking import Tracker
    from lora_sam.training.trained_on import TrainedOn
    from lora_sam.training.validation import Validation


def check_disk(directory: Path, adapted: AdaptedSam) -> None:
    """Raise before training where nothing can be written or checkpoints and adapter will not fit.

    They need the weights four times, for two Adam moments twice.
    """
    trainable, _ = adapted.count()
    needed = trainable * 4 * 8 + 2**24
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{directory}: {error.strerror or error}; mend it or choose another place with hydra.run.dir=..."
        ) from error
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TrainingError(
            f"{directory}: {free / 2**20:.0f} MiB free, this run needs about {needed / 2**20:.0f} MiB for checkpoints; "
            "free some space or choose another place with hydra.run.dir=..."
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one run, ready for its first step; `ready` makes them.

    Attributes:
        settings: What the run was told.
        directory: Where it writes.
        splits: Labelled images.
        processes: Where it computes; its precision is that of the plan.
        base: The model before the method.
        adapted: The model that trains.
        encodings: What is encoded once; None where nothing is.
        attention: How the image encoder attends.
        plan: What goes through the model at once.
        tracker: Where curves and pictures are shown.
    """

    settings: Settings
    directory: RunDirectory
    splits: Splits
    processes: Processes
    base: BaseModel
    adapted: AdaptedSam
    encodings: Encodings | None
    attention: AttentionChoice
    plan: Plan
    tracker: Tracker

    def say(self, text: str) -> None:
        """One line for people, from the main process only."""
        self.processes.say(text)

    @cached_property
    def trained_on(self) -> TrainedOn:
        """Classes and size of the training images; their labels are read once."""
        from lora_sam.training.trained_on import TrainedOn

        return TrainedOn.of(self.splits.train, self.settings.seed)

    def take_best(self) -> None:
        """Put the best weights so far into the model."""
        from lora_sam.training.state import load_state

        load_state(self.directory.best, self.adapted.trainable())

    def predictor(self) -> TorchPredictor:
        """Predicts with the model as it is, in the arithmetic of training."""
        from lora_sam.models.device import autocast
        from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor

        def context() -> AbstractContextManager[None]:
            return autocast(self.processes.accelerator.device, self.processes.precision)

        sam, side = self.adapted.sam, self.base.image_size
        frozen = None if self.encodings is None else self.encodings.frozen(self.splits.val, "validation")
        embedder = ImageEmbedder(sam, context=context, frozen=frozen)
        return TorchPredictor(sam, side, embedder=embedder, context=context, chunk=self.settings.trainer.decoder_chunk)


@contextmanager
def ready(
    settings: Settings,
    directory: RunDirectory,
    splits: Splits,
    processes: Processes,
    base: BaseModel,
    adapted: AdaptedSam,
    encodings: Encodings | None,
    attention: AttentionChoice,
    plan: Plan,
) -> Iterator[Parts]:
    """Yield the parts of a run, with its tracker open and the model compiled where that is wanted; lets go of files.

    Raises:
        TrainingError: the disk is too full.
    """
    if processes.main:
        check_disk(directory.root, adapted)
    tracker = (settings.tracker if processes.main else NoTracker()).open(directory.root)
    try:
        if settings.trainer.compile:
            from lora_sam.models.compiling import compile_model

            processes.say("compiling image encoder and mask decoder; the first steps take minutes")
            compile_model(adapted.sam, processes.accelerator.device)
        yield Parts(
            settings=settings,
            directory=directory,
            splits=splits,
            processes=replace(processes, precision=plan.precision),
            base=base,
            adapted=adapted,
            encodings=encodings,
            attention=attention,
            plan=plan,
            tracker=tracker,
        )
    finally:
        tracker.close()
        if encodings is not None:
            encodings.close()


def fitting(parts: Parts, train: SampleSource, **what: Any) -> Fit:
    """A fitting of the model on `train`, and `what` else a `Fit` has to be given."""
    from lora_sam.models.family import frame_of
    from lora_sam.training.examples import TrainingExamples
    from lora_sam.training.loop import Fit

    settings, encodings, plan = parts.settings, parts.encodings, parts.plan
    examples = TrainingExamples(
        train,
        settings.prompt,
        settings.augmentation,
        frame=frame_of(parts.base.sam),
        seed=settings.seed,
        max_objects=settings.data.max_objects_per_image,
        encoded=None if encodings is None else encodings.training(train, settings.augmentation, settings.seed),
    )
    given = {
        "adapted": parts.adapted,
        "examples": examples,
        "loss": settings.loss,
        "optim": settings.optim,
        "options": settings.trainer,
        "precision": parts.processes.precision,
        "seed": settings.seed,
        "accelerator": parts.processes.accelerator,
        "at_once": plan.at_once,
        "prompts": plan.prompts,
        "arithmetic": parts.processes.arithmetic(parts.attention, plan, settings.loss).to_json(),
        "checkpointed": plan.checkpointed,
        "before_epoch": encodings.before_epoch if encodings else lambda _: None,
    }
    return Fit(**{**given, **what})


def validation_of(parts: Parts) -> Validation:
    """Measures the model as it is on the validation split, in the arithmetic of training."""
    from lora_sam.prompts.interface import trained_kinds
    from lora_sam.training.validation import Validation

    kinds = trained_kinds(parts.settings.prompt)
    return Validation(
        predictor=parts.predictor(),
        source=parts.splits.val,
        prompt=parts.settings.prompt,
        seed=parts.settings.seed,
        max_objects=parts.settings.trainer.validation_objects,
        clicks=parts.settings.trainer.validation_clicks if "clicks" in kinds else 0,
        masks_of_points=parts.settings.trainer.trained_masks if "everything" in kinds else None,
    )
