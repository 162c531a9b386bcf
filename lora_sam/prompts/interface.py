"""What every source of prompts offers."""

from __future__ import annotations

from typing import Protocol

from lora_sam.core.structures import Corrections, Prompts, Sample


class PromptSource(Protocol):
    """How prompts are made from a labelled sample; a pure function of its arguments."""

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """One prompt per object; may differ from epoch to epoch."""
        ...

    def evaluation_prompts(self, sample: Sample, seed: int) -> Prompts:
        """One prompt per object, always the same for a sample."""
        ...


class CorrectingSource(PromptSource, Protocol):
    """A source whose prompts are corrected where the prediction is wrong, in rounds."""

    def corrections(self, sample: Sample, seed: int, epoch: int) -> Corrections:
        """The draws that decide the corrections after the first round of training."""
        ...
