"""Parts of the layout of `evaluation.json`: shares, intervals, figures of both, and what is said of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field


def in_order(ends: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval; `ValueError` where low is above high."""
    if ends[0] > ends[1]:
        raise ValueError("low is above high")
    return ends


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Difference = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
# no count or duration is larger; a number beyond would overflow where it is shown
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
Interval = Annotated[tuple[Share, Share], AfterValidator(in_order)]
DifferenceInterval = Annotated[tuple[Difference, Difference], AfterValidator(in_order)]


@dataclass(frozen=True)
class Both:
    """A figure of base and tuned."""

    base: Share
    tuned: Share


@dataclass(frozen=True)
class Paired(Both):
    """A figure of base and tuned, their difference, and 95 % intervals."""

    delta: Difference
    base_interval: Interval
    tuned_interval: Interval
    delta_interval: DifferenceInterval
    independent: Count | None = None


@dataclass(frozen=True)
class Thin:
    """See `lora_sam.evaluation.thinness.Thinness`; `width` in pixels."""

    objects: Annotated[int, Field(ge=1, lt=2**63)]
    of_objects: Annotated[int, Field(ge=1, lt=2**63)]
    width: Annotated[float, Field(ge=1, le=1e9, allow_inf_nan=False)]
    cldice: Paired
    boundary_f1: Paired


@dataclass(frozen=True)
class Class:
    """See `lora_sam.evaluation.classes.OfClass`."""

    name: str
    images: Count
    objects: Count
    iou: Paired
    dice: Paired
    f1: Paired
    pooled_dice: Both


@dataclass(frozen=True)
class Classes:
    """See `lora_sam.evaluation.classes.Classes`."""

    classes: Annotated[list[Class], Field(min_length=1)]
    mean_iou: Both
    mean_dice: Both
    mean_f1: Both
    pooled_dice: Both


@dataclass(frozen=True)
class ClassHead:
    """See `lora_sam.evaluation.naming.Naming`."""

    names: Annotated[list[str], Field(min_length=2)]
    objects: Annotated[int, Field(ge=1, lt=2**63)]
    most_common: Share
    accuracy: Share
    accuracy_interval: Interval


@dataclass(frozen=True)
class Precision:
    """COCO's average precision: mean over IoU 0.50 to 0.95, and at 0.50."""

    map: Share
    map_50: Share


@dataclass(frozen=True)
class PrecisionOfClass(Precision):
    """That of one class, and how many objects it has."""

    name: str
    objects: Annotated[int, Field(ge=1, lt=2**63)]


@dataclass(frozen=True)
class OfBothAgnostic:
    """That of all masks as one class."""

    tuned: Precision
    base: Precision = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ClassPrecision(Precision):
    """See `lora_sam.evaluation.class_precision.ClassPrecision`."""

    agnostic: OfBothAgnostic
    classes: Annotated[list[PrecisionOfClass], Field(min_length=1)]


@dataclass(frozen=True)
class ClassPrecisions:
    """With the prompts of the run, and without prompts."""

    prompted: ClassPrecision = None  # type: ignore[assignment]
    automatic: ClassPrecision = None  # type: ignore[assignment]
