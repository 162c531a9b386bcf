"""Methods that put layers of their own into SAM: they train as PEFT's `modules_to_save`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peft import LoraConfig

from lora_sam.core.errors import ConfigError
from lora_sam.methods.adapted import check_free, insert
from lora_sam.methods.peft_config import NO_TARGETS
from lora_sam.models.family import family_of
from lora_sam.models.inserted import NAME, Description, put_in

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


def insert_layers(
    sam: Sam,
    kind: str,
    options: Mapping[str, Any],
    places: Iterable[str],
    *,
    train_decoder: bool,
    parts: Sequence[str] = (),
) -> AdaptedSam:
    """Freeze `sam` and put layers around its modules, in place.

    Args:
        sam: The base, split.
        kind: As in `lora_sam.models.inserted_layers.KINDS`.
        options: Of the kind.
        places: Full names of the modules.
        train_decoder: Whether the mask decoder trains whole.
        parts: What else of it trains, where it does not.
    """
    check_free(sam)
    put_in(sam, Description(kind, options, tuple(places)))
    modules = [NAME, "mask_decoder"] if train_decoder else [NAME, *parts]
    config = LoraConfig(target_modules=NO_TARGETS, modules_to_save=modules)
    return insert(sam, config, trains_encoder=True, layers=True)


def check_family(sam: Sam, what: str, method: str) -> None:
    """Raise `ConfigError` where the family of a model cannot do `what`, with its reason."""
    why = family_of(sam.image_encoder).cannot.get(what)
    if why:
        raise ConfigError(f"method = {method}: {why}; take another, like method=lora")
