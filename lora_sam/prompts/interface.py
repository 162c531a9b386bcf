"""What every source of prompts offers."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from lora_sam.core.structures import Corrections, Prompts, Sample

Kind: TypeAlias = Literal["box", "point", "clicks", "everything"]
"""What a run can be trained for: boxes, points, correcting clicks, masks without a prompt."""


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


def by_share(point_share: float) -> tuple[Kind, ...]:
    """Kinds of a source that gives this share of the objects a point and the others a box."""
    return (*(("box",) if point_share < 1 else ()), *(("point",) if point_share > 0 else ()))


def trained_kinds(source: PromptSource) -> tuple[Kind, ...]:
    """Which kinds of prompts a source trains for, as its `trained_kinds` says; none where it says nothing."""
    kinds: tuple[Kind, ...] = getattr(source, "trained_kinds", ())
    return kinds
