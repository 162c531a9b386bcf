"""LoRA-FA: LoRA whose A stays as it was drawn (Zhang et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.methods.blocks import OfBlocks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


@dataclass(frozen=True, kw_only=True)
class LoRAFA(OfBlocks):
    """W + (alpha / rank) B A, of which B trains; saved as LoRA, folds like it.

    The inputs of the layers need not be kept for the backward pass, only what A makes of them.

    Attributes:
        rank: Rank of the update.
        alpha: Scale of the update: alpha / rank.
        targets: Which Linears of a block: any of q, k, v, proj (attention) and mlp (both layers).
        blocks: Which blocks of the image encoder: `all`, `first:n`, `last:n`, or a list of indices.
        decoder: The mask decoder is `frozen`, or is trained whole (`train`).
    """

    rank: Annotated[int, Field(ge=1, le=4096)]
    alpha: Annotated[float, Field(gt=0)]
    targets: Annotated[tuple[Literal["q", "k", "v", "proj", "mlp"], ...], Field(min_length=1)]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    decoder: Literal["frozen", "train"]

    @property
    def name(self) -> str:
        """`lora_fa`."""
        return "lora_fa"

    def apply(self, sam: Sam) -> AdaptedSam:
        """See `lora_sam.methods.Method.apply`."""
        from peft.tuners.lora import LoraLayer

        from lora_sam.methods.lora import LoRA

        lora = LoRA(
            rank=self.rank,
            alpha=self.alpha,
            dropout=0.0,
            targets=self.targets,
            blocks=self.blocks,
            decoder=self.decoder,
            bias="none",
            rslora=False,
            dora=False,
            init="kaiming",
        )
        adapted = lora.apply(sam)
        for module in adapted.peft.modules():
            if isinstance(module, LoraLayer):
                first: Any = module.lora_A["default"]
                # a buffer, since PEFT lets parameters train again whenever the adapter was switched off
                value = first.weight.detach()
                del first.weight
                first.register_buffer("weight", value)
        return adapted
