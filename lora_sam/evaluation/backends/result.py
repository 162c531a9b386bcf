"""`backends.json`: what was measured of every back end, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import FIGURES, digest_of, read_json, write_text
from lora_sam.core.groups import Groups
from lora_sam.core.version import __version__
from lora_sam.evaluation.backends.host import Host
from lora_sam.evaluation.backends.names import BACK_ENDS
from lora_sam.evaluation.backends.threshold import TunedThreshold
from lora_sam.evaluation.layout_parts import Count, Difference, Share
from lora_sam.evaluation.metrics import METRICS

_DIGEST = "digest"
SCHEMA_VERSION = 1

Milliseconds = Annotated[float, Field(ge=0, le=1e10)]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One back end.

    Attributes:
        runtime: What computes: torch or openvino.
        weights: How weights are stored.
        execution: Arithmetic, as what computes reports it: f32, bf16, ...
        iou: Mean IoU per object with its truth.
        iou_interval: Its 95 % interval, from resampling images.
        dice: Mean Dice coefficient per object.
        dice_interval: Its 95 % interval.
        f1: F1 of the pixels of all objects together.
        f1_interval: Its 95 % interval.
        boundary_f1: Mean F-measure of the contours per object.
        boundary_f1_interval: Its 95 % interval.
        map: COCO's mask average precision, IoU 0.50 to 0.95.
        map_50: The same at IoU 0.50.
        map_75: The same at IoU 0.75.
        iou_with_torch: Mean IoU of its masks with those of `tuned`; None where that was not measured.
        encoder_ms: Median milliseconds to encode an image; see `lora_sam.evaluation.backends.latency`.
        encoder_ms_range: Shortest and longest.
        decoder_ms: Median milliseconds to decode one prompt.
        decoder_ms_range: Shortest and longest.
        first_prompt_ms: Median milliseconds from a new image of the split and a prompt to a mask.
        first_prompt_ms_range: Shortest and longest.
        next_prompt_ms: Median milliseconds for another prompt on that image.
        next_prompt_ms_range: Shortest and longest.
        bytes: Size of all files that it needs.
        peak_memory_bytes: Most memory that a process of its own held to load it and segment one image; None where that
            process failed.
        against: The back end it is compared with; None where there is none.
        iou_difference: Its `iou` minus that of `against`.
        iou_difference_interval: 95 % interval of that, from resampling the same images for both.
    """

    runtime: Literal["torch", "openvino"]
    weights: Annotated[str, Field(max_length=20)]
    execution: Annotated[str, Field(max_length=20)]
    iou: Share
    iou_interval: tuple[Share, Share]
    dice: Share
    dice_interval: tuple[Share, Share]
    f1: Share
    f1_interval: tuple[Share, Share]
    boundary_f1: Share
    boundary_f1_interval: tuple[Share, Share]
    map: Share
    map_50: Share
    map_75: Share
    iou_with_torch: Share | None
    encoder_ms: Milliseconds
    encoder_ms_range: tuple[Milliseconds, Milliseconds]
    decoder_ms: Milliseconds
    decoder_ms_range: tuple[Milliseconds, Milliseconds]
    first_prompt_ms: Milliseconds
    first_prompt_ms_range: tuple[Milliseconds, Milliseconds]
    next_prompt_ms: Milliseconds
    next_prompt_ms_range: tuple[Milliseconds, Milliseconds]
    bytes: Count
    peak_memory_bytes: Count | None
    against: str | None
    iou_difference: Difference | None
    iou_difference_interval: tuple[Difference, Difference] | None


MEASURED_METRICS = tuple(name for name in METRICS if name in Measured.__annotations__)
"""The metrics that `backends.json` keeps of each back end."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Content of `backends.json`.

    Attributes:
        schema_version: Version of this layout.
        lora_sam: Version of the package that wrote it.
        made_from: SHA-256 of what was measured: adapter, base, data, and each back end's files.
        settings: Options that were asked for.
        split: Split that was measured.
        images: Number of its images that were measured.
        objects: Number of their objects.
        groups: What they are parts of; None where each is a whole.
        seed: Seed of prompts and bootstrap.
        prompt: Settings that made the prompts.
        multimask: Whether masks are the best of the three for ambiguous prompts.
        mask_threshold: Logit above which a pixel belongs to a mask, the same for all.
        tuned_threshold: How it was chosen, and by which back end; None where it was given.
        tuned_by: Name of that back end.
        repeats: Counted turns of the latency measurement.
        image_size: (height, width) in pixels of the image on which prompts were timed.
        host: The machine.
        fail_under: Least mean IoU that was asked of every back end but base; None for no limit.
        backends: What was measured, by name.
    """

    schema_version: int = SCHEMA_VERSION
    lora_sam: str = __version__
    made_from: Mapping[str, str]
    settings: Mapping[str, Any]
    split: str
    images: Count
    objects: Count
    seed: Count
    prompt: Mapping[str, Any]
    multimask: bool
    mask_threshold: Annotated[float, Field(allow_inf_nan=False)]
    tuned_threshold: TunedThreshold | None
    tuned_by: str | None
    repeats: Count
    image_size: tuple[Count, Count]
    host: Host
    fail_under: Share | None
    backends: Mapping[str, Measured]
    groups: Groups | None = None

    @property
    def failed(self) -> tuple[str, ...]:
        """Back ends that do not reach `fail_under`; the base does not have to."""
        if self.fail_under is None:
            return ()
        return tuple(name for name, found in self.backends.items() if name != "base" and found.iou < self.fail_under)


def write_backends(path: Path, comparison: Comparison) -> None:
    """Write `backends.json` atomically, with its SHA-256. Raises `TrainingError` if the directory cannot be written."""
    content = json.loads(json.dumps(asdict(comparison), allow_nan=False))
    content[_DIGEST] = {"of": sorted(content), "sha256": digest_of(content)}
    write_text(path, json.dumps(content, indent=2) + "\n", FIGURES)


def read_backends(path: Path, remedy: str) -> Comparison:
    """`backends.json`, checked.

    Args:
        path: The file.
        remedy: Command that writes it again.

    Raises:
        AdapterError: it is missing or damaged, has another schema version, or a value of the wrong type or range.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: not there yet; make it with: {remedy}")
    values = read_json(path, f"make it again with: {remedy}")
    if values.get("schema_version") != SCHEMA_VERSION:
        raise AdapterError(
            f"{path}: schema version {values.get('schema_version')!r:.40}, this lora_sam reads {SCHEMA_VERSION}; "
            f"make it again with: {remedy}"
        )
    recorded = values.pop(_DIGEST, None)
    try:
        # as JSON, in which lists may become tuples
        comparison = TypeAdapter(Comparison).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AdapterError(f"{path}: {where:.99}: {first['msg']}; make it again with: {remedy}") from error
    unknown = [name for name in comparison.backends if name not in BACK_ENDS]
    if unknown or not comparison.backends:
        reason = f"unknown back end {unknown[0]!r:.40}" if unknown else "no back end"
        raise AdapterError(f"{path}: {reason}; make it again with: {remedy}")
    if recorded is not None and not _is_digest_of(recorded, values):
        raise AdapterError(f"{path} is not what was written (its SHA-256 is another); make it again with: {remedy}")
    return comparison


def _is_digest_of(recorded: Any, values: Mapping[str, Any]) -> bool:
    """Whether `recorded` is that of the keys that it names; a later version may have more, and names them."""
    names = recorded.get("of") if isinstance(recorded, dict) else None
    if not isinstance(names, list) or not {"backends", "split"} <= set(map(str, names)):
        return False
    return bool(recorded.get("sha256") == digest_of({str(name): values.get(str(name)) for name in names}))


def verdicts(comparison: Comparison) -> tuple[str, ...]:
    """One sentence for each deployed back end: whether its IoU is lower than that of what it was made from."""
    return tuple(
        _verdict(name, found)
        for name, found in comparison.backends.items()
        if BACK_ENDS[name].deployed and found.against is not None
    )


def _verdict(name: str, found: Measured) -> str:
    assert found.iou_difference is not None
    assert found.iou_difference_interval is not None
    points = 100 * found.iou_difference
    low, high = (100 * end for end in found.iou_difference_interval)
    if low > 0:
        return f"{name} gains {points:.2f} points of IoU over {found.against} ({_interval(low, high, '.2f')})"
    if high < 0:
        return f"{name} loses {-points:.2f} points of IoU against {found.against} ({_interval(-high, -low, '.2f')})"
    if low == high == 0:
        return f"{name} loses nothing against {found.against}: every image has the same IoU"
    return (
        f"{name} loses nothing measurable against {found.against}: IoU {points:+.2f} points "
        f"({_interval(low, high, '+.2f')})"
    )


def _interval(low: float, high: float, form: str) -> str:
    return f"95 % interval {low:{form}} to {high:{form}}"


def speeds(comparison: Comparison) -> str | None:
    """One line: how fast each back end encodes, as a multiple of tuned in torch; None where that was not measured."""
    tuned = comparison.backends.get("tuned")
    others = {name: found for name, found in comparison.backends.items() if BACK_ENDS[name].deployed}
    if tuned is None or not others:
        return None
    times = ", ".join(f"{name} {tuned.encoder_ms / max(found.encoder_ms, 1e-9):.2f}" for name, found in others.items())
    return f"speed of encoding, tuned is 1: {times}"
