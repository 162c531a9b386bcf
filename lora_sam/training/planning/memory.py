"""Peak memory of a training step, estimated from shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lora_sam.models.attention.split import MASK_BYTES
from lora_sam.training.planning.workload import Step, attending_tokens, grid_of, window_of

if TYPE_CHECKING:
    from lora_sam.models.device import Precision
    from lora_sam.models.vit import ViTSam

_FP32 = 4
# Kept for the backward pass, in maps of (pixels of the embedding x its channels) numbers, counted with
# `torch.autograd.graph.saved_tensors_hooks`: numbers of fp32, and numbers in the arithmetic of the step.
_NECK = (2.8, 3.0)
_DECODER = (8.1, 7.5)
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
        step.trained.held * _FP32,
        step.trained.trainable * _FP32 * copies,
        int(max(phases) * _HOLES[kind][step.precision]) + _SCRATCH,
    )


def forward_peak(model: ViTSam, images: int = 1, number: int = _FP32) -> int:
    """Bytes of activations of encoding without gradients; the bias of attention is made for a part of the heads."""
    tokens, dim = images * grid_of(model) ** 2 * model.embed_dim, model.embed_dim
    largest = 0
    for block in range(model.depth):
        attending, window = images * attending_tokens(model, block), window_of(model, block)
        bias = attending * window**2 * model.num_heads * number
        if window == grid_of(model):
            bias = max(min(bias, MASK_BYTES), window**4 * number)
        attention = bias + attending * (model.num_heads * 2 * window + 5 * dim) * number
        largest = max(largest, attention, 9 * tokens * number)
    return largest + 2 * tokens * _FP32


def frozen_forward(step: Step) -> int:
    """Bytes of activations of the frozen part of the image encoder."""
    return forward_peak(step.model, step.images, _number(step)) if step.frozen_blocks else 0


def kept_by_encoder(step: Step) -> int:
    """Bytes that the image encoder keeps for its backward pass; of blocks with checkpoints their input."""
    if step.trained.first_block is None:
        return 0
    model = step.model
    entry = step.images * grid_of(model) ** 2 * model.embed_dim * _FP32
    blocks = (entry if block in step.checkpointed else kept_by_block(step, block) for block in step.training_blocks)
    return sum(blocks) + _maps(step, _NECK, step.images)


def kept_by_block(step: Step, block: int) -> int:
    """Bytes that a block keeps for its backward pass.

    Inputs of both norms (the residual stream is fp32) and of the activation function; what attention needs to compute
    its probabilities again; inputs of Linears with an adapter or with weights that train, of which autocast makes a
    copy for each; and the copies that it makes of weights.
    """
    model, number = step.model, _number(step)
    dim, window = model.embed_dim, window_of(model, block)
    tokens = step.images * grid_of(model) ** 2
    attending = step.images * attending_tokens(model, block)
    inputs = {"q", "k", "v", "proj", "lin1", "lin2"} if step.trained.whole_encoder else step.trained.adapted
    projected = len(inputs & {"q", "k", "v"})
    if step.precision == "fp32":
        projected = min(1, projected)
    sizes = {"proj": attending * dim, "lin1": tokens * dim, "lin2": 4 * tokens * dim}
    numbers = 4 * tokens * dim + projected * attending * dim + sum(sizes.get(name, 0) for name in inputs)
    if step.attention == "tiled":
        numbers += 3 * attending * dim + model.num_heads * attending * 2 * window
    else:  # queries, keys, values and result, each with the channels of the relative positions
        channels = dim // model.num_heads + 2 * window
        numbers += 4 * model.num_heads * attending * (channels + -channels % 8)
    if step.trained.whole_encoder:  # queries, for the gradient of the relative positions
        numbers += attending * dim
    if step.precision == "bf16":
        numbers += 12 * dim**2
    return 2 * tokens * dim * _FP32 + numbers * number


def backward(step: Step) -> int:
    """Bytes that the backward pass through one block takes beside what is kept: a block made again, gradients."""
    model, number = step.model, _number(step)
    largest = 0
    for block in step.training_blocks:
        tokens = step.images * grid_of(model) ** 2 * model.embed_dim
        attending = step.images * attending_tokens(model, block) * model.embed_dim
        again = kept_by_block(step, block) if block in step.checkpointed else 0
        mlp = 9 * tokens * number
        attention = 8 * attending * number + 2 * attending * _FP32
        largest = max(largest, again + max(mlp, attention) + 2 * tokens * _FP32)
    return largest


def kept_by_decoder(step: Step) -> int:
    """Bytes of activations, logits and targets of the prompts that are decoded together."""
    prompts, side = step.decoded_together, step.model.image_size
    compared = side if step.input_loss else side // 4
    of_loss = prompts * (_LOSS * compared**2 + side**2) * _FP32
    return _maps(step, _DECODER, prompts) + of_loss


def _maps(step: Step, maps: tuple[float, float], count: int) -> int:
    wide, narrow = maps
    numbers = count * grid_of(step.model) ** 2 * step.model.prompt_embed_dim
    return int(numbers * (wide * _FP32 + narrow * _number(step)))


def _number(step: Step) -> int:
    """Bytes of a number in the arithmetic of the step."""
    return 2 if step.precision == "bf16" else _FP32
