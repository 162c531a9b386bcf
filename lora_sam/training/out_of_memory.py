"""How many images and prompts go through the model at once, and fewer of both where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from lora_sam.core.errors import TrainingError

T = TypeVar("T")

REMEDIES = (
    "method.blocks=last:3, a smaller model.image_size, trainer.checkpointing=all, trainer.precision=bf16 "
    "or trainer.frozen=bf16"
)
_PHRASES = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass
class Room:
    """What fits into memory at once, as far as is known; neither changes a gradient beyond rounding.

    Attributes:
        images: Images that go through the image encoder together.
        prompts: Prompts that are decoded together.
    """

    images: int
    prompts: int

    def parts(self, examples: Sequence[T]) -> Iterator[Sequence[T]]:
        """The examples in order, at most `images` at once."""
        for first in range(0, len(examples), self.images):
            yield examples[first : first + self.images]

    def shrink(self, images: int, prompts: int) -> str:
        """Halve the images at once, or the prompts where it is one image already.

        Args:
            images: How many images there were; more room than that was of no use.
            prompts: How many prompts these had.

        Returns:
            What has changed, in words.

        Raises:
            TrainingError: it was one image and one prompt already.
        """
        before = min(self.images, images)
        if before > 1:
            self.images = before // 2
            return f"{self.images} of {before} images at once from here on"
        self.images = 1
        before = min(self.prompts, prompts)
        if before > 1:
            self.prompts = before // 2
            return f"{self.prompts} of {before} prompts decoded at once from here on"
        raise TrainingError(
            "one image with one prompt at a time does not fit into memory; take less of it with "
            f"{REMEDIES}, or close what else uses it"
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory: of CUDA, of the CPU's allocator, of Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES)


def tried(work: Callable[[], T]) -> T | None:
    """What `work` returns, or None where memory ran out; by then, what it held is free again."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # only here, where the error and the frames it refers to are gone, are the activations, too
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
