"""A predictor with several adapters on one base, of which one at a time computes."""

from __future__ import annotations

import copy
import math
import threading
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import read_json
from lora_sam.core.scores import scores_of
from lora_sam.core.structures import Masks, Prompts
from lora_sam.core.unknown import known_name
from lora_sam.methods.peft_config import FILE
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.adapter_files import adapter_directory, check_base, read_facts

if TYPE_CHECKING:
    import torch

    from lora_sam.core.predictor import AllMasks, Picture, Worth
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel

BASE, FIRST = "base", "tuned"
MOST_ALPHA = 1.5


class AdapterPredictor(TorchPredictor):
    """Predicts with one of several adapters, or with the base.

    Each adapter has a model of its own that shares the base's weights, so that what `use` chooses computes bit for bit
    what a predictor of that adapter alone computes, and an adapter takes its own few weights of memory.

    Threads may share one, `use` included: a call computes with what was chosen when it began.

    Args:
        base: The base of all adapters; its model is frozen, and moved.
        device: Where it computes.
    """

    def __init__(self, base: BaseModel, device: torch.device) -> None:
        self._base = base
        self._device = device
        base.sam.to(device).eval().requires_grad_(False)
        super().__init__(base.sam, base.image_size, scores=base.scores)
        self._changing = threading.Lock()
        self._architecture: dict[str, Any] | None = None
        self._models: dict[str, tuple[AdaptedSam, Any]] = {}
        self._predictors: dict[str, TorchPredictor] = {
            BASE: TorchPredictor(base.sam, base.image_size, scores=base.scores)
        }
        self._choose(BASE, 1.0, self._predictors[BASE])

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that `use` takes, `base` first."""
        return tuple(self._predictors)

    @property
    def used(self) -> tuple[str, float]:
        """Name and alpha of what computes now."""
        return self._used

    @property
    def current(self) -> TorchPredictor:
        """What computes now, and goes on to whatever `use` chooses: for whoever asks several times for one answer."""
        return self._current

    def add(self, name: str, path: str | PathLike[str]) -> None:
        """Put a further adapter beside those that are there; what computes stays.

        Args:
            name: What `use` is to call it.
            path: `latest`, a run directory, or an adapter directory, tuned from the same base.

        Raises:
            AdapterError: nothing usable is at `path`, or it was tuned from another base.
            ConfigError: the name is taken.
        """
        directory = adapter_directory(path)
        with self._changing:
            if not name or name in self._predictors:
                raise ConfigError(
                    f"name = {name!r:.99}: must be one that is not taken, and {', '.join(self._predictors)} are; "
                    "give another"
                )
            facts = read_facts(directory)
            check_base(facts, self._base, directory)
            if facts["architecture"] != (self._architecture or facts["architecture"]):
                raise AdapterError(
                    f"{directory} was tuned at another size or with other parts than {', '.join(self._models)}; "
                    "load it with lora_sam.load instead"
                )
            self._architecture = facts["architecture"]
            model = self._loaded(directory, facts)
            scores = scores_of(facts.get("scores"))
            self._models[name] = model, scores
            self._predictors[name] = TorchPredictor(model.sam, self._base.image_size, scores=scores)

    def use(self, name: str, *, alpha: float = 1.0) -> None:
        """Compute with this adapter from the next call on.

        Args:
            name: One of `adapters`; `base` is the model without any.
            alpha: Strength of the adapter: 0 is the base, 1 is as trained, up to 1.5 exaggerates.

        Raises:
            AdapterError: an alpha other than 1 with an adapter that is not a difference to the base.
            ConfigError: no such adapter, or no such alpha.
        """
        with self._changing:
            try:
                known_name(self._predictors)(name)
            except ValueError as error:
                raise ConfigError(f"name = {name!r:.99}: {error}; add it with predictor.add(name, path)") from error
            if not (isinstance(alpha, int | float) and math.isfinite(alpha) and 0 <= alpha <= MOST_ALPHA):
                raise ConfigError(f"alpha = {alpha!r:.40}: must be a number from 0 to {MOST_ALPHA}")
            if alpha == 1:
                self._choose(name, 1.0, self._predictors[name])
                return
            if name == BASE:
                raise ConfigError(f"alpha = {alpha}: the base has no strength; leave alpha out")
            model, scores = self._models[name]
            # of its own: a call that computes with another strength goes on undisturbed
            scaled = _sharing(model)
            scaled.strength().set(float(alpha))
            self._choose(name, float(alpha), TorchPredictor(scaled.sam, self._base.image_size, scores=scores))

    def _choose(self, name: str, alpha: float, predictor: TorchPredictor) -> None:
        self._used = name, alpha
        self.sam, self.scores, self.embedder = predictor.sam, predictor.scores, predictor.embedder
        self._current = predictor

    def _loaded(self, directory: Path, facts: dict[str, Any]) -> AdaptedSam:
        from lora_sam.methods import adapted

        # trained biases are those of the base itself: such an adapter gets a base of its own
        apart = read_json(directory / FILE, "train again or restore the file").get("bias", "none") != "none"
        sam = copy.deepcopy(self._base.sam, {} if apart else _weights_of(self._base.sam))
        before = _versions(self._base.sam)
        model = adapted.load(sam, directory, trains_encoder=facts["trains_encoder"])
        if _versions(self._base.sam) != before:
            raise AdapterError(f"{directory}: this adapter changes weights of the base; load it alone")
        model.sam.to(self._device).eval().requires_grad_(False)
        return model

    # --- what `Predictor` has, of what was chosen when a call begins

    @property
    def encoded(self) -> int:
        """See `Predictor`."""
        return sum(
            one.encoded for one in {id(one): one for one in (*self._predictors.values(), self._current)}.values()
        )

    def set_image(self, image: Picture) -> None:
        """See `Predictor`."""
        self._current.set_image(image)

    def embedding(self, image: Picture) -> NDArray[np.float32]:
        """See `Predictor`."""
        return self._current.embedding(image)

    def forget(self) -> None:
        """See `Predictor`; of all adapters."""
        for predictor in (*self._predictors.values(), self._current):
            predictor.forget()

    def remember(self, most_bytes: int) -> None:
        """See `Predictor`; of each adapter."""
        for predictor in (*self._predictors.values(), self._current):
            predictor.remember(most_bytes)

    def predict(self, image: Picture, prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0) -> Masks:
        """See `Predictor`."""
        return self._current.predict(image, prompts, multimask=multimask, threshold=threshold)

    def predict_all(self, image: Picture, prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        """See `Predictor`."""
        return self._current.predict_all(image, prompts, worth=worth)

    def segment(self, image: Picture, **given: Any) -> Masks:
        """See `Predictor`."""
        return self._current.segment(image, **given)


def _weights_of(module: torch.nn.Module) -> dict[int, Any]:
    """Parameters and buffers, as what a copy is to share."""
    return {id(value): value for value in (*module.parameters(), *module.buffers())}


def _versions(module: torch.nn.Module) -> list[int]:
    """How often each weight was changed in place."""
    return [value._version for value in module.parameters()]


def _sharing(model: AdaptedSam) -> AdaptedSam:
    """A copy of an adapted model whose strength can be set apart; what the adapter does not train is shared."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    own: set[int] = set()
    for module in model.peft.modules():
        if isinstance(module, ModulesToSaveWrapper):
            own |= {id(value) for value in module.modules_to_save.parameters()}
        elif isinstance(module, BaseTunerLayer):
            base = {id(value) for value in module.get_base_layer().parameters()}
            own |= {id(value) for value in module.parameters()} - base
    shared = {key: value for key, value in _weights_of(model.peft).items() if key not in own}
    return copy.deepcopy(model, shared)
