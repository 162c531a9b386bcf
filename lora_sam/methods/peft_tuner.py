"""Any other tuner of stock PEFT on the Linears, or norms, of the image encoder; see `lora_sam.methods.tuners`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.core.unknown import unknown_key
from lora_sam.methods.blocks import block_indices, check_blocks
from lora_sam.methods.tuners import REFUSED, TUNERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segment_anything.modeling import Sam
    from torch import nn

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class PeftTuner:
    """A tuner of stock PEFT, which reads the adapter that is saved.

    Attributes:
        tuner: Its name, that of a file in `conf/method/`.
        targets: What of a block it changes: any of q, k, v, proj (attention), mlp (both layers; of IA3 the second), or
            norm alone, the LayerNorms.
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
        options: What the tuner itself may be told, by PEFT's names.
    """

    tuner: str
    targets: Annotated[tuple[Literal["q", "k", "v", "proj", "mlp", "norm"], ...], Field(min_length=1)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """That of the tuner."""
        return self.tuner

    def check(self) -> None:
        """Raise `ConfigError` where the tuner is not known, or is told what it cannot be."""
        if self.tuner in REFUSED:
            raise ConfigError(f"method.tuner = {self.tuner}: {REFUSED[self.tuner]}")
        if self.tuner not in TUNERS:
            raise ConfigError(f"method.tuner = {self.tuner!r:.60}: must be one of {', '.join(TUNERS)}")
        check_blocks(self.blocks)
        tuner = TUNERS[self.tuner]
        for name, value in self.options.items():
            if name not in tuner.fields:
                raise ConfigError(
                    unknown_key(f"method.options.{name}", [f"method.options.{known}" for known in tuner.fields])
                )
            if problem := tuner.fields[name](value):
                raise ConfigError(f"method.options.{name} = {str(value)[:60]}: {problem}")
        norms = [target for target in self.targets if target == "norm"]
        if self.tuner == "ln_tuning" and len(norms) < len(self.targets):
            raise ConfigError(f"method.targets = {list(self.targets)}: ln_tuning trains norms; give [norm]")
        if self.tuner != "ln_tuning" and norms:
            raise ConfigError(f"method.targets = {list(self.targets)}: only ln_tuning trains norms; leave norm out")
        if tuner.flat and "mlp" in self.targets:
            raise ConfigError(
                f"method.targets = {list(self.targets)}: {self.tuner} takes the tokens that the MLP gets for an image "
                "of a convolution; leave mlp out"
            )

    def check_depth(self, depth: int) -> None:
        """Raise `ConfigError` where `blocks` names blocks that an encoder of `depth` blocks does not have."""
        block_indices(self.blocks, depth)

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        import peft

        from lora_sam.methods.adapted import insert
        from lora_sam.models.family import family_of

        self.check()
        why = family_of(sam.image_encoder).cannot.get("flat")
        if TUNERS[self.tuner].flat and why:
            raise ConfigError(f"method.tuner = {self.tuner}: {why}; take another, like method=lora")
        tuner, names = TUNERS[self.tuner], sorted(self._names(sam.image_encoder))
        more: dict[str, Any] = {}
        if self.tuner == "ia3":  # of the MLP it scales what is between its layers
            more["feedforward_modules"] = _any_of(name for name in names if _linear(sam, name) == "lin2") or "none"
        config = getattr(peft, tuner.config)(
            target_modules=_any_of(names),
            modules_to_save=["mask_decoder"] if self.decoder == "train" else None,
            **self.options,
            **tuner.fixed,
            **more,
        )
        return insert(sam, config, trains_encoder=True)

    def _names(self, encoder: nn.Module) -> Iterator[str]:
        """Full names of the modules that the tuner changes."""
        from lora_sam.methods.places import linears, norms
        from lora_sam.models.family import family_of

        if self.targets[0] == "norm":
            yield from norms(encoder, self.blocks)
            return
        family = family_of(encoder)
        for name in linears(encoder, self.blocks, self.targets):
            if not (self.tuner == "ia3" and _second(family, name) is False):
                yield name


def _second(family: Any, name: str) -> bool | None:
    """Whether a Linear is the second of an MLP; None where it is of no MLP."""
    linear = family.linear_of(f"{name}.weight")
    return None if linear not in ("lin1", "lin2") else linear == "lin2"


def _linear(sam: Sam, name: str) -> Any:
    from lora_sam.models.family import family_of

    return family_of(sam.image_encoder).linear_of(f"{name}.weight")


def _any_of(names: Any) -> str:
    """A regular expression, which PEFT stores as it is."""
    return "|".join(re.escape(name) for name in names)
