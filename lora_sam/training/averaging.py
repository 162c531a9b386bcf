"""The running mean of the weights, which is better than the last ones where steps are noisy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RunningMean:
    """Exponential moving average of weights (Polyak and Juditsky, 1992; warm-up as in Tarvainen and Valpola, 2017).

    Attributes:
        decay: Share that the mean keeps in a step, once it has seen some steps.
        weights: The mean, by name of the parameter.
    """

    decay: float
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, decay: float, parameters: Mapping[str, nn.Parameter]) -> RunningMean:
        """Begin with the weights as they are."""
        return cls(decay, {name: parameter.detach().clone() for name, parameter in parameters.items()})

    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the weights after `step` steps: decay min(decay, (1 + step) / (10 + step))."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in parameters.items():
                self.weights[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Inside this context the model has the mean for its weights."""
        last = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        _copy(self.weights, parameters)
        try:
            yield
        finally:
            _copy(last, parameters)


def _copy(values: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
