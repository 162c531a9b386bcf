"""Would training help on images that it has not seen? Asked of few images, of which none can be spared to validate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lora_sam.core.groups import clusters_of
from lora_sam.core.wording import plural
from lora_sam.data.sources import groups_of
from lora_sam.data.splits import Splits, Subset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from lora_sam.data.sources import SampleSource
    from lora_sam.training.options import TrainerOptions
    from lora_sam.training.parts import Parts
    from lora_sam.training.stopping import StopRequest
    from lora_sam.training.validation import Validation

FOLDS = 2
_BASE, _TRAINED = "cross_validation_base", "cross_validation_iou"  # keys of the record of step 0


@dataclass(frozen=True)
class CrossValidated:
    """IoU per object, 0 to 1, of every training image by weights that were trained without it.

    Attributes:
        base: That of the weights which training begins with.
        trained: That of the weights at the end.
    """

    base: float
    trained: float

    @property
    def gained(self) -> bool:
        """Whether training has helped on images that it had not seen."""
        return self.trained > self.base

    def record(self) -> dict[str, float]:
        """What the line of step 0 in `metrics.jsonl` says of it."""
        return {_BASE: self.base, _TRAINED: self.trained}

    @classmethod
    def recorded(cls, log: Sequence[Mapping[str, Any]]) -> CrossValidated | None:
        """The inverse of `record`, out of all lines; None where nothing was cross-validated."""
        lines = (line for line in log if line["step"] == 0 and _BASE in line and _TRAINED in line)
        return next((cls(float(line[_BASE]), float(line[_TRAINED])) for line in lines), None)


def held_out(splits: Splits) -> bool:
    """Whether any validation image does not train."""
    return not set(splits.val.ids) <= set(splits.train.ids)


def folds_of(source: SampleSource) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """(trains, is measured) of every fold: places of samples, every second one, without parting a group.

    None at all where the samples are of one group.
    """
    clusters = clusters_of(groups_of(source)).tolist()
    if len(set(clusters)) < FOLDS:
        return ()
    parts = [tuple(i for i, cluster in enumerate(clusters) if cluster % FOLDS == fold) for fold in range(FOLDS)]
    return tuple((tuple(sorted(set(range(len(clusters))) - set(part))), part) for part in parts)


def folds_asked(splits: Splits, options: TrainerOptions) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """The folds that a run begins with; none where an image is held out, or more train than are cross-validated."""
    if held_out(splits) or len(splits.train) > options.cross_validate:
        return ()
    return folds_of(splits.train)


def cross_validated(parts: Parts, stop: StopRequest) -> CrossValidated | None:
    """Train on one half of the training images and measure on the other, and the other way round (Stone, 1974).

    Each half trains for as many epochs as the run will. Weights and random state are afterwards what they were, and
    nothing is saved.

    Returns:
        None where an image is held out to validate, where too many train (`trainer.cross_validate`), and where there is
        but one, or all are parts of one.

    Raises:
        KeyboardInterrupt: a signal that `stop` remembers, as before the first step.
    """
    import torch

    from lora_sam.training.display import Display
    from lora_sam.training.parts import fitting, validation_of
    from lora_sam.training.validation import mean_iou

    source, options = parts.splits.train, parts.settings.trainer
    folds = folds_asked(parts.splits, options)
    if not folds:
        return None
    parts.say(f"cross-validation: training on each half of the {plural(len(source), 'image')} before on all of them")
    # validated at its end, whatever number of epochs that takes
    once = replace(options, validate_every_epochs=2**31, save_every_steps=None)
    validation, parameters = validation_of(parts), parts.adapted.trainable()
    before: list[NDArray[np.float64]] = []
    after: list[NDArray[np.float64]] = []
    for trains, measured in folds:
        measure = replace(validation, source=Subset(source, measured))
        at_end: list[NDArray[np.float64]] = []

        def validate(_: int, measure: Validation = measure, at_end: list[NDArray[np.float64]] = at_end) -> float:
            at_end[:] = measure()
            return mean_iou(at_end)

        before += measure()
        with torch.random.fork_rng(), _unchanged(parameters):
            progress = fitting(
                parts,
                Subset(source, trains),
                options=once,
                validate=validate,
                run=None,
                log=lambda *_: None,
                display=Display(quiet=True),
            ).fit(stop=stop)
        if not progress.finished:
            raise stop.error()
        after += at_end
    found = CrossValidated(mean_iou(before), mean_iou(after))
    parts.say(
        f"cross-validation, each half of the {plural(len(source), 'image')} measured after training on the other: IoU "
        f"{found.base:.4f} before, {found.trained:.4f} after" + ("" if found.gained else ": no gain")
    )
    return found


@contextmanager
def _unchanged(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """The parameters are what they were, whatever happens inside this context."""
    import torch

    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
                parameter.grad = None
