"""Runs in memory: their predictors, the strength of their adapters, and what each costs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.app.backends import backends_of, why_not
from lora_sam.app.runs import Run
from lora_sam.core.calling import step_called
from lora_sam.core.errors import DataError
from lora_sam.deployment.predicting.tiling import Tiling, tiling_of
from lora_sam.evaluation.backends.names import TORCH

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.methods.strength import Strength
    from lora_sam.predictors.class_head import ClassHead

EMBEDDING_BYTES = 64 * 2**20
"""What the encoded images of one predictor may take; one of a ViT at 1024 pixels takes 4 MiB."""


@dataclass
class Model:
    """A run in memory: base and tuned share one model where the method allows it.

    Attributes:
        run: The run.
        image_size: Side of the model's input.
        adapted: Base and adapter.
        predictors: By name: `base`, `torch` (tuned), and exported ones as they are asked for.
        alpha: Present strength of the adapter.
        measured: Milliseconds to (encode an image, answer a prompt) by predictor.
        number: That of no other model, also of one that is gone.
    """

    run: Run
    image_size: int
    adapted: AdaptedSam
    predictors: dict[str, Predictor]
    alpha: float = 1.0
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)
    number: int = field(default_factory=count().__next__)
    _strength: Strength | None = None

    @cached_property
    def class_head(self) -> ClassHead | None:
        """What tells classes apart; None where the run has none. Raises `AdapterError` if it is damaged."""
        from lora_sam.runs.loading import load_classes

        return load_classes(self.run.directory.root)

    @cached_property
    def tiling(self) -> Tiling:
        """Which images `predict` cuts for this run."""
        return tiling_of(self.run.facts)

    def classes(self, predictor: Predictor, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> tuple[str, ...]:
        """The class of each of the masks bool [N, H, W]; nothing where the run tells none."""
        if self.class_head is None or not len(masks):
            return ()
        likely = self.class_head.probabilities(predictor, image, masks).argmax(axis=1)
        return tuple(self.class_head.names[place] for place in likely)

    @property
    def only_class(self) -> tuple[str, ...]:
        """The class that all objects of the training had, as `predict` calls what it finds; nothing of several."""
        classes = self.run.facts.get("classes") or ()
        return tuple(classes) if len(classes) == 1 else ()

    def predictor(self, name: str) -> Predictor:
        """A predictor by name. `DataError`: no such back end; `AdapterError`: stale or damaged."""
        if name not in self.predictors:
            makers = backends_of(self.run.directory)
            if name not in makers:
                why_not(self.run.directory, name)
                raise DataError(
                    f"{self.run.name} has no back end {name!r:.40}; it has {', '.join([TORCH, *makers])}. "
                    f"`{step_called('export')}` makes OpenVINO parts."
                )
            self.predictors[name] = makers[name]()
            self.predictors[name].remember(EMBEDDING_BYTES)
        return self.predictors[name]

    def set_alpha(self, alpha: float) -> None:
        """Scale the adapter. Raises `AdapterError` where that is not possible."""
        if alpha == self.alpha:
            return
        if self._strength is None:
            self._strength = self.adapted.strength()
        self._strength.set(alpha)
        self.alpha = alpha
        if self.adapted.trains_encoder:
            self.predictors[TORCH].forget()


def load_model(run: Run) -> Model:
    """Base and adapter of a run, with a predictor for each. Raises `AdapterError` where one cannot be loaded."""
    from lora_sam.core.scores import scores_of
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.runs.loading import load_adapted, load_base, predictors_for

    facts = run.facts
    adapted = load_adapted(run.directory.root)
    side = facts["image_size"]
    predictors: dict[str, Predictor]
    if adapted.reversible:
        of_base = facts["base"].get("scores")
        pair = predictors_for(adapted, side, scores=facts.get("scores"), base_scores=of_base)
        predictors = {"base": pair["base"], TORCH: pair["tuned"]}
    else:
        untouched = load_base(run.directory.root)
        scores = scores_of(facts.get("scores"))
        predictors = {
            "base": TorchPredictor(
                untouched.sam, side, scores=scores_of(facts["base"].get("scores", facts.get("scores")))
            ),
            TORCH: TorchPredictor(adapted.sam, side, scores=scores),
        }
    for predictor in predictors.values():
        predictor.remember(EMBEDDING_BYTES)
    return Model(run, side, adapted, predictors)


def measure(model: Model, name: str) -> tuple[float, float]:
    """Milliseconds to (encode an image, answer a prompt), measured once."""
    if name not in model.measured:
        from lora_sam.core.structures import Prompts

        predictor = model.predictor(name)
        side = model.image_size
        times: list[tuple[float, float]] = []
        for seed in range(2):  # the first one warms up
            noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
            marks = [time.perf_counter()]
            predictor.set_image(noise)
            marks.append(time.perf_counter())
            for _ in range(2):
                predictor.predict(noise, Prompts(boxes=np.array([[8, 8, side - 8, side - 8]], np.float32)))
                marks.append(time.perf_counter())
            times.append((1e3 * (marks[1] - marks[0]), 1e3 * (marks[3] - marks[2])))
        model.measured[name] = times[-1]
    return model.measured[name]


def weight_bytes(model: Model) -> int:
    """Size of base and adapter in memory."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.adapted.peft.parameters())
