"""FLOPs of a training step, and the time they take; a multiplication and an addition count as two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from lora_sam.training.planning.workload import Step, grid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from lora_sam.models.block_shape import BlockShape
    from lora_sam.models.family import SamModel

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


@cache
def _counted(model: SamModel) -> tuple[Flops, dict[BlockShape, Flops], Flops, Flops]:
    """Of one image: what comes before the blocks, a block by its shape, and neck; of one prompt: the mask decoder.

    Counted by torch on the modules of the upstream package, on its device without memory.
    """
    import torch

    from lora_sam.models.family import family_of

    with torch.device("meta"), torch.no_grad():
        sam = model.empty()
        encoder, dim, grid = sam.image_encoder, model.prompt_embed_dim, grid_of(model)
        family, prompt = family_of(encoder), torch.empty(1, dim, grid, grid)
        embedding = torch.empty(1, *family.shape(encoder, None))
        stem = _count(lambda: family.enter(encoder, torch.empty(1, 3, model.image_size, model.image_size)))
        steps = family.blocks(encoder)
        kinds = {model.block_shape(number): number for number in range(model.depth)}
        blocks = {shape: _count(partial(steps[number], _tokens(encoder, number))) for shape, number in kinds.items()}
        neck = _count(lambda: family.leave(encoder, _tokens(encoder, model.depth)))
        corners = torch.empty(1, 2, dim)
        decoder = _count(
            lambda: sam.mask_decoder(embedding, prompt, corners, dense_prompt_embeddings=prompt, multimask_output=False)
        )
    return stem, blocks, neck, decoder


def _tokens(encoder: nn.Module, block: int) -> Any:
    import torch

    from lora_sam.models.family import family_of

    family = family_of(encoder)
    return family.as_made(encoder, block, torch.empty(1, *family.shape(encoder, block)))


def _count(run: Callable[[], object]) -> Flops:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    found = counter.get_flop_counts()["Global"]
    products = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)
    attention = sum(
        number for product, number in found.items() if product in products or "dot_product_attention" in str(product)
    )
    return Flops(sum(found.values()) - attention, attention)


def encoder_flops(model: SamModel) -> float:
    """Of encoding one image."""
    stem, _, neck, _ = _counted(model)
    return sum(part.forward for part in (stem, neck, *_blocks(model, range(model.depth))))


def decoder_flops(model: SamModel) -> float:
    """Of decoding one prompt."""
    return _counted(model)[3].forward


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
    stem, _, neck, _ = _counted(model)
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


def seconds_to_encode(model: SamModel, kind: Literal["cpu", "cuda", "mps"], rate: float) -> float:
    """Time to encode an image for the embedding cache, `rate` as in `seconds_per_image`."""
    return encoder_flops(model) / (rate * _ENCODER_EFFICIENCY[kind]) + model.depth * _SECONDS_PER_BLOCK


def _blocks(model: SamModel, blocks: Iterable[int]) -> list[Flops]:
    counted = _counted(model)[1]
    return [counted[model.block_shape(block)] for block in blocks]
