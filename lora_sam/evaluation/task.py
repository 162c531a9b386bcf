"""What is measured: a split of images with their prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lora_sam.core.seeds import drawn_places
from lora_sam.data.contents import digest_of_source
from lora_sam.data.sources import SampleSource
from lora_sam.data.splits import Splits, Subset

if TYPE_CHECKING:
    from lora_sam.core.structures import Prompts, Sample
    from lora_sam.prompts import PromptSource


Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Task:
    """Images and prompts.

    Attributes:
        splits: The labelled images.
        split: Which of them are measured.
        prompt: How prompts are made.
        seed: Of prompts, bootstrap, and the draw of images.
        max_images: Most images of a split that are looked at; None for all.
    """

    splits: Splits
    split: Split
    prompt: PromptSource
    seed: int
    max_images: int | None = None

    def images(self, split: Split) -> SampleSource:
        """The images of a split, or `max_images` of them, in their order."""
        source: SampleSource = getattr(self.splits, split)
        chosen = drawn_places(len(source), self.max_images, self.seed, "evaluate")
        return source if chosen is None else Subset(source, tuple(chosen.tolist()))

    def prompts_for(self, sample: Sample) -> Prompts:
        """One prompt per object, always the same."""
        return self.prompt.evaluation_prompts(sample, self.seed)

    def digest(self) -> str:
        """SHA-256 that stands for the images that are measured: their names, pixels and labels."""
        return digest_of_source(self.images(self.split))
