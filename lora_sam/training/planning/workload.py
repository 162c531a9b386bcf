"""What a training step has to do: the facts that its memory and its time follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from lora_sam.models.family import family_of
from lora_sam.models.held import held_in
from lora_sam.models.inserted import NAME
from lora_sam.models.lean_vit import LeanBlock

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.device import Precision
    from lora_sam.models.family import Family, Linear, SamModel


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What of a model trains.

    Attributes:
        trainable: Parameters that train.
        total: Parameters of the model with its adapter.
        held: Parameters in memory: those, and the base beside parts that train whole.
        first_block: First block of the image encoder that gradients reach; the number of its blocks for the neck
            alone; None where the whole image encoder is frozen.
        whole_encoder: Whether the weights of the image encoder train themselves.
        adapted: Which Linears of a block have an adapter: some of q, k, v, proj, lin1, lin2.
        attention_alone: Whether nothing of the image encoder trains but adapters of q, k, v and proj.
        decoder: Whether weights of the mask decoder train.
        halved: Of the parameters in memory those that are held in bf16.
        lean_mlp: Whether MLPs keep their input alone where the model's own would not (`lora_sam.models.lean_vit`).
    """

    trainable: int
    total: int
    held: int
    first_block: int | None
    whole_encoder: bool
    adapted: frozenset[Linear]
    attention_alone: bool
    decoder: bool
    halved: int = 0
    lean_mlp: bool = False

    @property
    def weight_bytes(self) -> int:
        """What the parameters take in memory."""
        return 4 * self.held - 2 * self.halved


def _linear(name: str, family: Family) -> Linear | None:
    """The Linear whose input a parameter of an adapter needs kept; a layer around an MLP needs that of its first."""
    around = {f".mlp.{NAME}.": "lin1", f".attn.{NAME}.": "q"}
    for part, linear in around.items():
        if part in name:
            return cast("Linear", linear)
    return family.linear_of(name) if ".lora_" in name or f".{NAME}." in name else None


def trained_in(adapted: AdaptedSam) -> Trained:
    """What trains in a model, read off its parameters."""
    names = list(adapted.trainable())
    trainable, total = adapted.count()
    stage, family = adapted.frozen_stage, family_of(adapted.sam.image_encoder)
    return Trained(
        trainable=trainable,
        total=total,
        held=sum(parameter.numel() for parameter in adapted.peft.parameters()),
        first_block=0 if stage is None else stage.block,
        whole_encoder=any("image_encoder.modules_to_save" in name for name in names),
        adapted=frozenset(linear for name in names if (linear := _linear(name, family)) is not None),
        attention_alone=all(
            family.linear_of(name) in ("q", "k", "v", "proj") for name in names if "image_encoder." in name
        ),
        decoder=any("mask_decoder" in name for name in names),
        halved=held_in(adapted.sam),
        lean_mlp=any(isinstance(module, LeanBlock) for module in adapted.sam.image_encoder.modules()),
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """The gradients of some images.

    Attributes:
        model: The architecture.
        trained: What trains.
        precision: Arithmetic of the forward pass.
        images: Images that go through the model together.
        prompts: Prompts that are decoded for an image, on average; each round of correction counts.
        most_prompts: The most prompts of an image in one round.
        chunk: Prompts that are decoded together at most.
        checkpointed: Blocks whose activations are made again instead of kept.
        encoded: Whether the frozen part of the image encoder is read from the embedding cache.
        attention: How blocks that train attend: in tiles, or with the relative positions as additional channels.
        input_loss: Whether the loss compares masks at the size of the input.
    """

    model: SamModel
    trained: Trained
    precision: Precision
    images: int
    prompts: float
    most_prompts: int
    chunk: int
    checkpointed: frozenset[int] = frozenset()
    encoded: bool = False
    attention: Literal["tiled", "channels"] = "tiled"
    input_loss: bool = False

    @property
    def training_blocks(self) -> range:
        """Blocks that gradients go through."""
        first = self.trained.first_block
        return range(0) if first is None else range(first, self.model.depth)

    @property
    def frozen_blocks(self) -> range:
        """Blocks that run without gradients at every step."""
        first = self.trained.first_block
        return range(0) if self.encoded else range(self.model.depth if first is None else first)

    @property
    def decoded_together(self) -> int:
        """Prompts that are decoded together."""
        return max(1, min(self.chunk, self.images * self.most_prompts))


def grid_of(model: SamModel) -> int:
    """Pixels along a side of the image embedding."""
    return model.frame.grid
