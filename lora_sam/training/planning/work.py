"""FLOPs of a training step, and the time they take; a multiplication and an addition count as two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lora_sam.models.vit import PATCH_SIZE
from lora_sam.training.planning.workload import Step, attending_tokens, grid_of, window_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lora_sam.models.vit import ViTSam

# Share of the measured rate of large matrix products that the parts of a step reach: the mask decoder is made of small
# products, and waits for memory. Measured on a CPU with AVX512-BF16 (encoder 0.6 to 0.8); on GPUs set by experience.
_ENCODER_EFFICIENCY = {"cpu": 0.6, "cuda": 0.35, "mps": 0.35}
_DECODER_EFFICIENCY = {"cpu": 0.25, "cuda": 0.05, "mps": 0.1}
# What each module costs however small its tensors are: the interpreter, and launches on a GPU.
_SECONDS_PER_BLOCK = 2e-3
_SECONDS_PER_DECODING = 1e-2
# One core reads, decodes, resizes and normalises an image, for an input of 1024 px; an object's mask and prompt.
_SECONDS_PER_IMAGE = 0.05
_SECONDS_PER_CACHED_IMAGE = 2e-3
_SECONDS_PER_OBJECT = 2e-3


@dataclass(frozen=True)
class Flops:
    """FLOPs of a forward pass.

    Attributes:
        linear: Of products with weights, convolutions included; as many again for the gradient of the input, and as
            many again for that of the weights.
        attention: Of products of activations; twice as many again for the gradients.
    """

    linear: float
    attention: float

    @property
    def forward(self) -> float:
        """All of them."""
        return self.linear + self.attention

    def backward(self, *, weights: bool) -> float:
        """FLOPs of the backward pass, with or without gradients of the weights."""
        return (2 if weights else 1) * self.linear + 2 * self.attention


def block_flops(model: ViTSam, block: int) -> Flops:
    """Of one block of the image encoder for one image: projections, MLP; attention with relative positions."""
    tokens, attending = grid_of(model) ** 2, attending_tokens(model, block)
    dim, window = model.embed_dim, window_of(model, block)
    linear = 2 * attending * 4 * dim**2 + 2 * tokens * 8 * dim**2
    return Flops(linear, 4 * attending * window**2 * dim + 2 * attending * 2 * window * dim)


def ends_flops(model: ViTSam) -> tuple[Flops, Flops]:
    """Of the patch embedding and of the neck for one image."""
    tokens, dim, out = grid_of(model) ** 2, model.embed_dim, model.prompt_embed_dim
    stem = 2 * tokens * dim * 3 * PATCH_SIZE**2
    return Flops(stem, 0), Flops(2 * tokens * (dim * out + 9 * out**2), 0)


def encoder_flops(model: ViTSam) -> float:
    """Of encoding one image."""
    return sum(part.forward for part in (*ends_flops(model), *_blocks(model, range(model.depth))))


def decoder_flops(model: ViTSam) -> float:
    """Of decoding one prompt: five projections of all pixels of D to D/2 channels and back, and the enlargement."""
    tokens, dim, queries = grid_of(model) ** 2, model.prompt_embed_dim, 7
    projections = 10 * tokens * dim**2
    enlargement = 3 * tokens * dim**2 + 8 * tokens * dim * 8
    attention = 5 * 2 * tokens * queries * dim
    of_tokens = 2 * queries * (2 * 2 * dim * model.decoder_mlp_dim + 20 * dim**2)
    return projections + enlargement + attention + of_tokens


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of the gradients of one image, forward and backward.

    Attributes:
        encoder: Of the image encoder.
        decoder: Of the mask decoder, all prompts.
    """

    encoder: float
    decoder: float

    @property
    def total(self) -> float:
        """Both."""
        return self.encoder + self.decoder


def step_flops(step: Step) -> StepFlops:
    """FLOPs per image of a step; blocks with checkpoints run forward twice."""
    model, trained = step.model, step.trained
    stem, neck = ends_flops(model)
    forward = stem.forward if step.frozen_blocks or not step.encoded else 0.0
    forward += sum(part.forward for part in _blocks(model, step.frozen_blocks))
    training = [*_blocks(model, step.training_blocks)]
    if trained.first_block is not None:
        training.append(neck)
    elif not step.encoded:
        forward += neck.forward
    encoder = forward + sum(part.forward + part.backward(weights=trained.whole_encoder) for part in training)
    encoder += stem.backward(weights=False) if trained.whole_encoder else 0.0
    again = set(step.training_blocks) & step.checkpointed
    encoder += sum(part.forward for part in _blocks(model, again))
    passes = 3 if trained.decoder else 2
    return StepFlops(encoder, passes * step.prompts * decoder_flops(model))


def seconds_per_image(step: Step, kind: Literal["cpu", "cuda", "mps"], rate: float, workers: int) -> float:
    """Time that training takes for an image; right within a factor of two where nothing else uses the machine.

    Args:
        step: What is computed.
        kind: Kind of device.
        rate: FLOP/s of large matrix products in the arithmetic of the step.
        workers: Processes that load images beside the one that computes.
    """
    flops = step_flops(step)
    computing = flops.encoder / (rate * _ENCODER_EFFICIENCY[kind]) + flops.decoder / (rate * _DECODER_EFFICIENCY[kind])
    blocks = len(step.frozen_blocks) + 3 * len(step.training_blocks)
    decodings = math.ceil(step.images * step.prompts / step.chunk)
    computing += (blocks * _SECONDS_PER_BLOCK + decodings * _SECONDS_PER_DECODING) / step.images
    loading = _SECONDS_PER_CACHED_IMAGE if step.encoded else _SECONDS_PER_IMAGE
    loading = (loading + step.prompts * _SECONDS_PER_OBJECT) * (step.model.image_size / 1024) ** 2
    return computing + loading if workers == 0 else max(computing, loading / workers)


def seconds_to_encode(model: ViTSam, kind: Literal["cpu", "cuda", "mps"], rate: float) -> float:
    """Time to encode an image for the embedding cache, `rate` as in `seconds_per_image`."""
    return encoder_flops(model) / (rate * _ENCODER_EFFICIENCY[kind]) + model.depth * _SECONDS_PER_BLOCK


def _blocks(model: ViTSam, blocks: Iterable[int]) -> list[Flops]:
    return [block_flops(model, block) for block in blocks]
