"""Layers that a method puts into a SAM: where they are, how a file describes them, how they fold into weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lora_sam.models.inserted_layers import KINDS

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

NAME = "inserted"
"""The layer in the module that has it and what it is put around; PEFT trains it as a module of that name."""

KEY = "layers"
"""Of the description in the metadata of an adapter's weights."""

MOST_PLACES = 4096
_PLACE = re.compile(r"image_encoder(\.\w{1,60}){1,12}")


class Inserted(nn.Module):
    """A module of SAM and the layer that is put around it."""

    def __init__(self, base: nn.Module, layer: nn.Module, kind: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.base = base
        self.inserted = layer
        self.kind, self.options = kind, dict(options)

    def forward(self, x: Tensor) -> Tensor:
        """What the module gives, changed by the layer."""
        y: Tensor = self.inserted(self.base, x)
        return y


@dataclass(frozen=True)
class Description:
    """Which layers a SAM has, as kept beside their weights.

    Attributes:
        kind: As in `KINDS`.
        options: Of the kind.
        places: Names of the modules in the split SAM.
    """

    kind: str
    options: Mapping[str, Any]
    places: tuple[str, ...]

    @property
    def folds(self) -> bool:
        """Whether the layers can become part of the weights."""
        return hasattr(KINDS[self.kind].make, "fold")

    def to_json(self) -> dict[str, Any]:
        """For a file's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, tensors: Mapping[str, Sequence[int]]) -> Description:
        """Read what `to_json` gave, which may come from elsewhere.

        Args:
            value: The parsed JSON.
            tensors: Shapes of the layers' tensors, by place and name of the parameter.

        Raises:
            ValueError: it is no such description, or does not fit the tensors.
        """
        if not isinstance(value, dict) or value.keys() != {"kind", "options", "places"}:
            raise ValueError("the description of the layers is damaged")
        others = ("factors", "settled")  # LoRA in files, or another kind
        known = [name for name, one in KINDS.items() if not any(hasattr(one.make, other) for other in others)]
        if not isinstance(value["kind"], str) or value["kind"] not in known:
            raise ValueError(f"layers of the kind {value['kind']!r:.60} are not known (known are {', '.join(known)})")
        kind, places = KINDS[value["kind"]], value["places"]
        listed = isinstance(places, list) and 0 < len(places) <= MOST_PLACES
        if not listed or not all(isinstance(place, str) and _PLACE.fullmatch(place) for place in places):
            raise ValueError(f"places of layers must be 1 to {MOST_PLACES} modules of the image encoder")
        options = _checked(value["kind"], value["options"])
        of_places = {place: [name for name in tensors if name.startswith(f"{place}.")] for place in places}
        if len(of_places) != len(places) or sum(map(len, of_places.values())) != len(tensors):
            raise ValueError("the tensors of the layers are not those of the described places")
        for name, (parameter, axis) in kind.sizes.items():
            for place in places:
                shape = tensors.get(f"{place}.{parameter}", ())
                if len(shape) <= axis or options[name] != shape[axis]:
                    raise ValueError(f"{name} = {options[name]} does not fit the tensors of {place}")
        return cls(value["kind"], options, tuple(places))


def _checked(kind: str, options: Any) -> dict[str, Any]:
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    adapter: TypeAdapter[Any] = TypeAdapter(with_config(ConfigDict(extra="forbid"))(KINDS[kind].options))
    try:
        return asdict(adapter.validate_json(json.dumps(options), strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def put_in(sam: Sam, description: Description) -> None:
    """Put layers, which change nothing yet, into a split SAM, in place.

    Draws initial values from the global torch generator.

    Raises:
        ValueError: a place is not there, or is nothing that such a layer is put around.
    """
    kind = KINDS[description.kind]
    options = kind.options(**description.options)
    for place in description.places:
        try:
            base = sam.get_submodule(place)
        except AttributeError as error:
            raise ValueError(f"{place} is no module of this model") from error
        if not _fits(base, place, kind.around):
            raise ValueError(f"{place} is nothing that layers of the kind {description.kind} are put around")
        made = Inserted(base, kind.make(base, options), description.kind, description.options)
        _replace(sam, place, made.train(base.training))


def _fits(module: nn.Module, place: str, around: Sequence[str]) -> bool:
    projections = (getattr(module, name, None) for name in ("q", "k", "v", "proj"))
    return (
        ("linear" in around and isinstance(module, nn.Linear))
        or ("norm" in around and isinstance(module, nn.LayerNorm))
        or ("attention" in around and all(isinstance(one, nn.Linear) for one in projections))
        or ("mlp" in around and place.endswith(".mlp"))
    )


def find(sam: nn.Module) -> dict[str, Inserted]:
    """The modules with a layer, by their names."""
    return {name: module for name, module in sam.named_modules() if isinstance(module, Inserted)}


def describe(sam: nn.Module) -> Description | None:
    """Which layers a SAM has; None where it has none."""
    found = find(sam)
    if not found:
        return None
    first = next(iter(found.values()))
    return Description(first.kind, first.options, tuple(found))


def take_out(sam: Sam) -> dict[str, Tensor]:
    """Take the layers out of a SAM, in place; returns their tensors by place and name of the parameter."""
    tensors: dict[str, Tensor] = {}
    for place, module in find(sam).items():
        tensors |= {f"{place}.{name}": value for name, value in module.inserted.state_dict().items()}
        _replace(sam, place, module.base)
    return tensors


def put_back(sam: Sam, description: Description, tensors: Mapping[str, Tensor]) -> None:
    """Put layers with their tensors into a split SAM, in place.

    Raises:
        ValueError: as `put_in`, or a tensor has another name or shape.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw weights that are overwritten at once
        put_in(sam, description)
    for place, module in find(sam).items():
        own = {name.removeprefix(f"{place}."): value for name, value in tensors.items() if name.startswith(f"{place}.")}
        try:
            module.inserted.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise ValueError(f"the layer at {place} does not fit its tensors") from error


@torch.no_grad()
def fold(sam: Sam) -> None:
    """Let the layers that can become part of the weights, in place; the others stay, as what they are once trained.

    Raises:
        ValueError: a module has no weight that would take its layer.
    """
    for place, module in find(sam).items():
        layer: Any = module.inserted
        if hasattr(layer, "fold"):
            layer.fold(module.base)
            _replace(sam, place, module.base)
        elif hasattr(layer, "settled"):
            _replace(sam, place, Inserted(module.base, *layer.settled(module.base)))


def _replace(sam: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(sam.get_submodule(parent), own, module)
