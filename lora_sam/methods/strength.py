"""An adapter between the base and beyond: scaled in place, where it is a difference to the base."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from lora_sam.core.errors import AdapterError
from lora_sam.models.inserted import describe


class Strength:
    """Scales an adapter in place: W + a (W' - W), for LoRA layers and for whole parts that were trained.

    Args:
        peft: The model with its adapter, at full strength.
        started: Whether the adapter started as a part of the base.

    Raises:
        AdapterError: the adapter is not a difference to the base: DoRA, or trained biases of the base.
    """

    def __init__(self, peft: PeftModel, *, started: bool = False) -> None:
        configs = list(peft.peft_config.values())
        for config in configs:
            if config.peft_type != "LORA":
                tuner = str(config.peft_type).rpartition(".")[2].lower()
                raise AdapterError(
                    f"an adapter of the tuner {tuner} cannot be scaled or combined, only LoRA and parts that were "
                    "trained whole can. Merge it alone, with alpha=1"
                )
        obstacles = [text for config in configs for text in _not_differences(config)]
        if (layers := describe(peft)) is not None:
            obstacles.append(f"layers of its own (method {layers.kind})")
        if started:
            obstacles.append("a start that was taken out of the base (method.init)")
        if obstacles:
            raise AdapterError(
                f"an adapter with {' and '.join(obstacles)} cannot be scaled or combined: it is not a difference that "
                "is added to the base. Merge it alone, with alpha=1"
            )
        self._scalings: list[tuple[dict[str, float], dict[str, float]]] = [
            (module.scaling, dict(module.scaling)) for module in peft.modules() if isinstance(module, LoraLayer)
        ]
        self._parts: list[tuple[nn.Parameter, Tensor, Tensor]] = [
            (trained, base.detach(), trained.detach().clone())
            for module in peft.modules()
            if isinstance(module, ModulesToSaveWrapper)
            for copy in module.modules_to_save.values()
            for trained, base in zip(copy.parameters(), module.original_module.parameters(), strict=True)
        ]
        self.alpha = 1.0

    def set(self, alpha: float) -> None:
        """Let the model compute at strength `alpha`; image embeddings made before are no longer its own."""
        for scaling, trained in self._scalings:
            scaling.update({name: alpha * value for name, value in trained.items()})
        with torch.no_grad():
            for parameter, base, full in self._parts:
                # exactly the trained weights at 1
                parameter.copy_(full if alpha == 1 else torch.lerp(base, full, alpha))
        self.alpha = alpha


def _not_differences(config: PeftConfig) -> Iterator[str]:
    """What an adapter has, in the words of `conf/method/`, that is not added to weights of the base."""
    if getattr(config, "use_dora", False):
        yield "DoRA (method.dora=true)"
    bias = getattr(config, "bias", "none")
    if bias != "none":
        yield f"trained biases of the base (method.bias={bias})"
