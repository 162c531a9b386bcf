"""LoRA on the projections of SAM's image encoder, by stock PEFT, with or without training the mask decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.methods.blocks import block_indices, check_blocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import nn

    from lora_sam.methods.adapted import AdaptedSam

_DECODER = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "proj": "out_proj", "mlp": "mlp.lin[12]"}


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adaptation, W + (alpha / rank) B A (Hu et al., 2022, equation 3).

    Attributes:
        rank: Rank r of the update.
        alpha: Scale of the update: alpha / r, or alpha / sqrt(r) with `rslora`.
        dropout: Dropout on the adapter's input.
        targets: Which Linears of a block get an adapter: any of q, k, v, proj (attention) and mlp (both layers).
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, is trained whole (`train`), or gets adapters in its attention (`lora`).
        bias: Which biases train: `none`, `all`, or `lora_only` (those of the adapted Linears).
        rslora: Rank-stabilised scaling (Kalajdzievski, 2023).
        dora: Weight-decomposed LoRA (Liu et al., 2024).
        init: How A starts where B is zero: `kaiming` (uniform), `gaussian`, or `eva`, the directions in which the
            layer's inputs vary most on training images (Paischer et al., 2024; every layer has the same rank). `pissa`
            (Meng et al., 2024) and `olora` (Büyükakyüz, 2024) start as a part of the weight, which is taken out of the
            base.
    """

    rank: Annotated[int, Field(ge=1, le=4096)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Annotated[tuple[Literal["q", "k", "v", "proj", "mlp"], ...], Field(min_length=1)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train", "lora"]
    bias: Literal["none", "all", "lora_only"]
    rslora: bool
    dora: bool
    init: Literal["kaiming", "gaussian", "eva", "pissa", "olora"]

    @property
    def name(self) -> str:
        """`lora`."""
        return "lora"

    def check(self) -> None:
        """Raise `ConfigError` if `blocks` is not one of its forms."""
        check_blocks(self.blocks)
        if self.dora and self.init in ("pissa", "olora"):
            raise ConfigError(
                f"method.dora = true: not with method.init={self.init}, which starts as a part of the weight"
            )

    def check_depth(self, depth: int) -> None:
        """Raise `ConfigError` where `blocks` names blocks that an encoder of `depth` blocks does not have."""
        self.block_indices(depth)

    def block_indices(self, depth: int) -> tuple[int, ...]:
        """Indices of the adapted blocks of an image encoder with `depth` blocks.

        Raises:
            ConfigError: `blocks` names blocks that are not there.
        """
        return block_indices(self.blocks, depth)

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft import LoraConfig

        from lora_sam.methods.adapted import insert

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # PEFT computes with it as a float and stores it as given
            lora_dropout=self.dropout,
            target_modules=self._target_pattern(sam.image_encoder),
            modules_to_save=["mask_decoder"] if self.decoder == "train" else None,
            bias=self.bias,
            use_rslora=self.rslora,
            use_dora=self.dora,
            # the directions of EVA come from images, which nobody has here
            init_lora_weights=True if self.init in ("kaiming", "eva") else self.init,  # type: ignore[arg-type]
        )
        return insert(sam, config, trains_encoder=True, eva=self.init == "eva")

    def _target_pattern(self, encoder: nn.Module) -> str:
        """A regular expression over full module names, which PEFT stores as it is."""
        from lora_sam.models.family import family_of

        family = family_of(encoder)
        pattern = family.target_pattern(encoder, self.block_indices(len(family.blocks(encoder))), self.targets)
        if self.decoder == "lora":
            decoder = "|".join(_DECODER[target].replace(".", r"\.") for target in self.targets)
            pattern = rf"{pattern}|mask_decoder\.transformer\.(.+\.)?({decoder})"
        return pattern
