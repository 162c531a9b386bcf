"""Peak memory of a training step, estimated from shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lora_sam.models.attention.split import MASK_BYTES
from lora_sam.models.family import Linear
from lora_sam.training.planning.workload import Step, grid_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from lora_sam.models.block_shape import BlockShape
    from lora_sam.models.device import Precision
    from lora_sam.models.family import SamModel

_FP32 = 4
# Numbers of fp32 that the losses keep for a pixel of the logits.
_LOSS = 11
# What allocators take beyond what is asked for, by the precision: holes between tensors that live differently long.
# glibc takes tensors below 32 MiB from a heap that shrinks at its end only; in fp32 more of them are alive at once.
_HOLES: dict[str, dict[Precision, float]] = {
    "cpu": {"fp32": 1.45, "bf16": 1.2},
    "cuda": {"fp32": 1.1, "bf16": 1.1},
    "mps": {"fp32": 1.1, "bf16": 1.1},
}
_SCRATCH = 80 << 20  # of libraries, for the shapes they have met


@dataclass(frozen=True)
class Peak:
    """The most memory that training takes, in bytes.

    Attributes:
        process: Of the process beside the model.
        weights: Of the model with its adapter.
        optimizer: Of gradients, moments and the running mean.
        activations: Of the largest phase of a step: forward, decoding, backward.
    """

    process: int
    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.process + self.weights + self.optimizer + self.activations


def peak_of(step: Step, kind: Literal["cpu", "cuda", "mps"], process: int, *, running_mean: bool = False) -> Peak:
    """The peak of training with steps like this one.

    Args:
        step: What is computed at once.
        kind: Kind of device.
        process: Bytes that the process holds beside the model.
        running_mean: Whether a running mean of the weights is kept.
    """
    kept = kept_by_encoder(step)
    phases = (frozen_forward(step), kept + kept_by_decoder(step), kept + backward(step))
    copies = 3 + 2 * running_mean  # gradient and two moments; the mean, and the weights while it is validated
    return Peak(
        process,
        step.trained.weight_bytes,
        step.trained.trainable * _FP32 * copies,
        int(max(phases) * _HOLES[kind][step.precision]) + _SCRATCH,
    )


def forward_peak(model: SamModel, images: int = 1, number: int = _FP32) -> int:
    """Bytes of activations of encoding without gradients; the bias of attention is made for a part of the heads."""
    largest = images * model.stem[0] * number
    for shape in map(model.block_shape, range(model.depth)):
        attending, window, dim = images * shape.attending, shape.window, shape.channels
        tokens = images * shape.tokens * dim
        bias = attending * window**2 * shape.heads * number if shape.relative else 0
        if window == shape.side:
            bias = max(min(bias, MASK_BYTES), window**4 * number)
        positions = shape.heads * 2 * window if shape.relative else 0
        attention = bias + attending * (positions + 5 * dim) * number
        largest = max(largest, max(attention, 9 * tokens * number) + 2 * tokens * _FP32)
    return largest


def frozen_forward(step: Step) -> int:
    """Bytes of activations of the frozen part of the image encoder."""
    return forward_peak(step.model, step.images, _number(step)) if step.frozen_blocks else 0


def kept_by_encoder(step: Step) -> int:
    """Bytes that the image encoder keeps for its backward pass; of blocks with checkpoints their input."""
    if step.trained.first_block is None:
        return 0
    model = step.model
    blocks = (
        _tokens(step, model.block_shape(block)) * _FP32 if block in step.checkpointed else kept_by_block(step, block)
        for block in step.training_blocks
    )
    stem = step.images * model.stem[1] * _number(step) if step.trained.whole_encoder else 0
    return stem + sum(blocks) + _maps(step, model.kept_by_neck, step.images)


def kept_by_block(step: Step, block: int) -> int:
    """Bytes that a block keeps for its backward pass.

    Inputs of both norms (the residual stream is fp32) and of the activation function; what attention needs to compute
    its probabilities again; inputs of Linears with an adapter or with weights that train, of which autocast makes a
    copy for each; and the copies that it makes of weights, unless those are held in bf16. Of what is lean the input
    alone (`lora_sam.models.lean`).
    """
    number, shape = _number(step), step.model.block_shape(block)
    tokens = step.images * shape.tokens
    numbers = shape.convolutions * tokens * shape.channels
    if not ((shape.lean_mlp or step.trained.lean_mlp) and step.trained.attention_alone):
        sizes = {"lin1": tokens * shape.channels, "lin2": tokens * shape.hidden}
        numbers += tokens * shape.hidden + sum(sizes.get(name, 0) for name in _kept_inputs(step))
        numbers += 2 * shape.hidden * shape.channels if _copies_weights(step) else 0
    of_tokens, mixed = number if shape.narrow else _FP32, _tokens(step, shape)
    if shape.lean_attention:
        side, channels = shape.then
        mixed = step.images * side**2 * channels
    else:
        numbers += kept_by_attention(step, shape)
    return (_tokens(step, shape) + mixed) * of_tokens + numbers * number


def kept_by_attention(step: Step, shape: BlockShape) -> int:
    """Numbers that attention keeps beside its input, and the step to the next stage."""
    dim, window, heads = shape.channels, shape.window, shape.heads
    attending = step.images * shape.attending
    inputs = _kept_inputs(step)
    projected = len(inputs & {"q", "k", "v"})
    if step.precision == "fp32":
        projected = min(1, projected)
    numbers = (projected + ("proj" in inputs)) * attending * dim + step.images * shape.stepping
    if not shape.relative:  # queries, keys, values and result
        numbers += 4 * attending * dim
    elif step.attention == "tiled":
        numbers += 3 * attending * dim + heads * attending * 2 * window
    else:  # those, each with the channels of the relative positions
        channels = dim // heads + 2 * window
        numbers += 4 * heads * attending * (channels + -channels % 8)
    if step.trained.whole_encoder and shape.relative:  # queries, for the gradient of the relative positions
        numbers += attending * dim
    return numbers + (4 * dim**2 if _copies_weights(step) else 0)


def _copies_weights(step: Step) -> bool:
    """Whether autocast makes copies of the weights of blocks that gradients go through."""
    return step.precision == "bf16" and not step.trained.halved


def _kept_inputs(step: Step) -> AbstractSet[Linear]:
    """Linears of a block whose input is kept."""
    return frozenset(get_args(Linear)) if step.trained.whole_encoder else step.trained.adapted


def backward(step: Step) -> int:
    """Bytes that the backward pass through one block takes beside what is kept: a block made again, gradients.

    Lean attention counts as made again whole. On processors it is made in bands, between which the heap has holes.
    """
    number, largest = _number(step), 0
    for block in step.training_blocks:
        shape = step.model.block_shape(block)
        tokens = _tokens(step, shape)
        attending = step.images * shape.attending * shape.channels
        again = kept_by_attention(step, shape) * number if shape.lean_attention else 0
        if block in step.checkpointed:
            again += kept_by_block(step, block)
        mlp = 9 * tokens * number
        attention = 8 * attending * number + 2 * attending * _FP32
        largest = max(largest, again + max(mlp, attention) + 2 * tokens * _FP32)
    return largest


def kept_by_decoder(step: Step) -> int:
    """Bytes of activations, logits and targets of the prompts that are decoded together."""
    prompts, side = step.decoded_together, step.model.image_size
    compared = side if step.input_loss else step.model.frame.mask_side
    of_loss = prompts * (_LOSS * compared**2 + side**2) * _FP32
    return _maps(step, step.model.kept_by_decoding, prompts) + of_loss


def _maps(step: Step, maps: tuple[float, float], count: int) -> int:
    wide, narrow = maps
    numbers = count * grid_of(step.model) ** 2 * step.model.prompt_embed_dim
    return int(numbers * (wide * _FP32 + narrow * _number(step)))


def _tokens(step: Step, shape: BlockShape) -> int:
    """Numbers that a block gets of the images of the step."""
    return step.images * shape.tokens * shape.channels


def _number(step: Step) -> int:
    """Bytes of a number in the arithmetic of the step."""
    return 2 if step.precision == "bf16" else _FP32
