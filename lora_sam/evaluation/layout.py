"""The layout of `evaluation.json`: what it holds, and whether a file that was read back is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from lora_sam.core.errors import AdapterError
from lora_sam.core.groups import Groups
from lora_sam.evaluation.further_rows import ROWS as FURTHER
from lora_sam.evaluation.layout_parts import (
    Classes,
    ClassHead,
    ClassPrecisions,
    Count,
    Difference,
    DifferenceInterval,
    Interval,
    Paired,
    Seconds,
    Share,
    Thin,
    in_order,
)
from lora_sam.evaluation.metrics import METRICS, PER_OBJECT_METRICS, SIZES

SCHEMA_VERSION = 1


def _there(mean: float | None, info: ValidationInfo) -> float | None:
    if mean is None and info.data.get("objects"):
        raise ValueError(f"there are {info.data['objects']} objects")
    return mean


def _figures(name: str, value: Any, interval: Any) -> type[Any]:
    """What `lora_sam.evaluation.metrics.compare` says of one predictor, or of the difference of two."""
    mean = Annotated[value | None, AfterValidator(_there)]
    of_size = make_dataclass(f"{name}OfSize", [("objects", Count), ("iou", mean), ("dice", mean)], frozen=True)
    by_size = make_dataclass(f"{name}BySize", [(size, of_size) for size in SIZES], frozen=True)
    return make_dataclass(
        name,
        [
            *((metric, value) for metric in METRICS),
            *((f"{metric}_median", value) for metric in PER_OBJECT_METRICS),
            *((f"{metric}_interval", interval) for metric in METRICS),
            ("by_size", by_size),
        ],
        frozen=True,
    )


_Figures = _figures("Figures", Share, Interval)
_Rise = _figures("Rise", Difference, DifferenceInterval)


@dataclass(frozen=True)
class _Image:
    """Mean IoU of the objects of one image."""

    id: str
    objects: Count
    base_iou: Share
    tuned_iou: Share
    group: str | None = None


Clicks = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
DifferenceOfClicks = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


@dataclass(frozen=True)
class _PairedClicks:
    base: Clicks
    tuned: Clicks
    delta: DifferenceOfClicks
    base_interval: Annotated[tuple[Clicks, Clicks], AfterValidator(in_order)]
    tuned_interval: Annotated[tuple[Clicks, Clicks], AfterValidator(in_order)]
    delta_interval: Annotated[tuple[DifferenceOfClicks, DifferenceOfClicks], AfterValidator(in_order)]
    independent: Count | None = None


_Clicking = make_dataclass(
    "Clicking",
    [
        *((name, Count) for name in ("images", "of_images", "objects", "most")),
        *(
            (row.name, _PairedClicks if row.name.startswith("noc") else Paired)
            for row in FURTHER
            if row.section == "clicks"
        ),
    ],
    frozen=True,
)

_Automatic = make_dataclass(
    "Automatic",
    [
        *((name, Count) for name in ("images", "of_images", "objects", "fitted_on", "points_per_side")),
        *((name, Mapping[str, Any]) for name in ("scores", "empty")),
        *((row.name, Paired) for row in FURTHER if row.section == "automatic"),
        *((name, Paired) for name in ("precision_50", "recall_50")),
    ],
    frozen=True,
)


@dataclass(frozen=True)
class _Kind:
    """See `lora_sam.evaluation.kinds`."""

    name: str
    trained: bool
    figure: str
    compared: Paired


@dataclass(frozen=True)
class _Rounds:
    trained: Count
    evaluated: Count


@dataclass(frozen=True)
class _ValidationImage:
    id: str
    objects: Count
    iou: Share
    group: str | None = None


@dataclass(frozen=True)
class _CrossValidation:
    base: Share
    trained: Share


@dataclass(frozen=True)
class _Validation:
    base: Share
    trained: Share | None
    kept_step: Count
    iou: Share
    iou_interval: Interval
    per_image: Annotated[list[_ValidationImage], Field(min_length=1)]
    asked: str | None = None
    trained_on: Count = 0
    cross_validation: _CrossValidation | None = None


def _all_listed(images: list[_Image], info: ValidationInfo) -> list[_Image]:
    if len(images) != (wanted := info.data.get("images")):
        raise ValueError(f"a list of {wanted} images is needed")
    return images


def _sum(objects: int, info: ValidationInfo) -> int:
    if (total := sum(image.objects for image in info.data.get("per_image", ()))) != objects:
        raise ValueError(f"per_image has {total}")
    return objects


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Content of `evaluation.json`; docs/metrics.md has what the figures mean. Unknown keys are ignored.

    Attributes:
        schema_version: Version of this layout.
        split: Split that was measured.
        prompt: Settings that made the prompts.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of the tuned model.
        adapter_bytes: Size of the adapter's weights on disk.
        images: Number of images that were measured.
        per_image: Each of them.
        groups: What they are parts of, as slices of volumes; absent where each is a whole.
        objects: Number of their objects.
        seed: Seed of the run; it also draws the bootstrap.
        peak_memory_bytes: Most memory held while training; None where it cannot be told.
        seconds: Wall time of the training.
        base: Figures of the base.
        tuned: Figures with the adapter.
        delta: Their difference.
        classes: Figures of each class; absent where there are not several.
        class_head: How often the class of an object is told right; absent where there are not several.
        class_precision: COCO's average precision of each class, with prompts and without; absent likewise.
        validation: Validation IoU of the base, the highest after a step, the step whose weights were kept (0: those of
            the base), and theirs of each image; `asked`: a digest of the prompts, by which validations are told apart;
            `trained_on`: how many of these images trained too; `cross_validation`: IoU of all of them by weights of
            step 0 and by such as were trained without them. Absent where the base was not measured.
        init_from: The run that this one began with, whose adapter step 0 of `validation` is then; absent for none.
        rounds: In how many rounds the prompts of training were corrected, and those of the evaluation; absent for one.
        trained_on: How many of the images were trained on; absent for none.
        chosen_on: How many of the images chose the weights, and the thresholds of `automatic`; absent for none.
        automatic: Masks without a prompt, see `lora_sam.evaluation.further`; absent where they were not measured.
        clicks: Correcting clicks; absent where they were not measured.
        kinds: Base and tuned with other kinds of prompts; absent where none was measured.
        thin: clDice and outlines of thin objects; absent where fewer than half of the objects are thin.
    """

    schema_version: int
    split: str
    prompt: Mapping[str, Any]
    trainable_parameters: Count
    total_parameters: Count
    adapter_bytes: Count
    images: Count
    per_image: Annotated[list[_Image], AfterValidator(_all_listed)]
    objects: Annotated[Count, AfterValidator(_sum)]
    seed: Count
    peak_memory_bytes: Count | None
    seconds: Seconds
    base: _Figures  # type: ignore[valid-type]  # made from the list of metrics
    tuned: _Figures  # type: ignore[valid-type]
    delta: _Rise  # type: ignore[valid-type]
    # may be absent, but not null
    groups: Groups = None  # type: ignore[assignment]
    classes: Classes = None  # type: ignore[assignment]
    class_head: ClassHead = None  # type: ignore[assignment]
    class_precision: ClassPrecisions = None  # type: ignore[assignment]
    rounds: _Rounds = None  # type: ignore[assignment]
    validation: _Validation = None  # type: ignore[assignment]
    init_from: str = None  # type: ignore[assignment]
    trained_on: Count = None  # type: ignore[assignment]
    chosen_on: Count = None  # type: ignore[assignment]
    automatic: _Automatic = None  # type: ignore[valid-type]
    clicks: _Clicking = None  # type: ignore[valid-type]
    kinds: list[_Kind] = None  # type: ignore[assignment]
    thin: Thin = None  # type: ignore[assignment]


def validate_report(data: object) -> EvaluationReport:
    """The content of an `evaluation.json`, checked.

    Raises:
        AdapterError: it has another schema version, a key is missing, or a value has the wrong type or range; names it.
    """
    if not isinstance(data, Mapping):
        raise AdapterError(f"evaluation.json: the whole file is {_shown(data)}, not an object. Evaluate again.")
    version = data.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise AdapterError(
            f"evaluation.json has schema_version {version!r}, and this version of lora_sam reads {SCHEMA_VERSION}. "
            "Install the version that wrote it, or evaluate again."
        )
    try:
        # as JSON, in which lists may become tuples
        return _adapter().validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place: list[int | str] = list(first["loc"])
    if first["type"] == "missing" and isinstance(place[-1], str):
        raise AdapterError(f"evaluation.json lacks the key {_dotted(place)}. Evaluate again.")
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ").replace(" after validation", "")
    value: Any = data
    for key in place[:-1] if first["type"] == "missing" else place:
        value = value[key]
    raise AdapterError(f"evaluation.json: {_dotted(place)} is {_shown(value)}: {reason}. Evaluate again.")


@cache
def _adapter() -> TypeAdapter[EvaluationReport]:
    return TypeAdapter(EvaluationReport)


def _dotted(place: list[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
