"""Whether the content of an `evaluation.json` that was read back is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_sam.core.errors import AdapterError
from lora_sam.evaluation.metrics import METRICS, PER_OBJECT_METRICS, SIZES

SCHEMA_VERSION = 1

_COUNTS = ("trainable_parameters", "total_parameters", "adapter_bytes", "images", "objects", "seed")
_CLASS_FIGURES = ("iou", "dice", "f1")

# No count or duration is larger; a number beyond would overflow where it is shown.
_LARGEST_COUNT, _LONGEST_SECONDS = 2**63 - 1, 1e10


def validate_report(data: object) -> None:
    """Check the content of an `evaluation.json` that was read back.

    Unknown keys are allowed, so that a later version may add some.

    Raises:
        AdapterError: it has another schema version, a key is missing, or a value has the wrong type or range; names it.
    """
    report = _mapping(data, "the whole file")
    version = _get(report, "schema_version", "")
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise AdapterError(
            f"evaluation.json has schema_version {version!r}, and this version of lora_sam reads {SCHEMA_VERSION}. "
            "Install the version that wrote it, or evaluate again."
        )
    if not isinstance(_get(report, "split", ""), str):
        raise _bad("split", report["split"], "a string")
    for key in _COUNTS:
        _count(report, key, "")
    if _get(report, "peak_memory_bytes", "") is not None:
        _count(report, "peak_memory_bytes", "")
    _number(report, "seconds", "", 0, _LONGEST_SECONDS)
    _mapping(_get(report, "prompt", ""), "prompt")
    for part, low in (("base", 0.0), ("tuned", 0.0), ("delta", -1.0)):
        _check_figures(_mapping(_get(report, part, ""), part), f"{part}.", low)
    _check_images(report)
    if "classes" in report:
        _check_classes(_mapping(report["classes"], "classes"))
    if "rounds" in report:
        rounds = _mapping(report["rounds"], "rounds")
        for key in ("trained", "evaluated"):
            _count(rounds, key, "rounds.")


def _check_figures(part: Mapping[str, Any], prefix: str, low: float) -> None:
    for name in (*METRICS, *(f"{name}_median" for name in PER_OBJECT_METRICS)):
        _number(part, name, prefix, low, 1)
    for name in METRICS:
        _interval(part, f"{name}_interval", prefix, low)
    by_size = _mapping(_get(part, "by_size", prefix), f"{prefix}by_size")
    for size in SIZES:
        place = f"{prefix}by_size.{size}."
        figures = _mapping(_get(by_size, size, f"{prefix}by_size."), place[:-1])
        _count(figures, "objects", place)
        for name in ("iou", "dice"):
            if _get(figures, name, place) is not None:
                _number(figures, name, place, low, 1)
            elif figures["objects"]:
                raise _bad(place + name, None, f"a number, since there are {figures['objects']} objects")


def _check_images(report: Mapping[str, Any]) -> None:
    images = _get(report, "per_image", "")
    if not isinstance(images, list) or len(images) != report["images"]:
        raise _bad("per_image", images, f"a list of {report['images']} images")
    for index, image in enumerate(images):
        place = f"per_image[{index}]."
        if not isinstance(_get(_mapping(image, place[:-1]), "id", place), str):
            raise _bad(f"{place}id", image["id"], "a string")
        _count(image, "objects", place)
        _number(image, "base_iou", place, 0, 1)
        _number(image, "tuned_iou", place, 0, 1)
    if (total := sum(image["objects"] for image in images)) != report["objects"]:
        raise _bad("objects", report["objects"], f"{total}, the sum over per_image")


def _check_classes(classes: Mapping[str, Any]) -> None:
    listed = _get(classes, "classes", "classes.")
    if not isinstance(listed, list) or not listed:
        raise _bad("classes.classes", listed, "a list of classes")
    for index, one in enumerate(listed):
        place = f"classes.classes[{index}]."
        one = _mapping(one, place[:-1])
        if not isinstance(_get(one, "name", place), str):
            raise _bad(f"{place}name", one["name"], "a string")
        for key in ("images", "objects"):
            _count(one, key, place)
        for key in _CLASS_FIGURES:
            figure = _mapping(_get(one, key, place), place + key)
            for name, low in (("base", 0.0), ("tuned", 0.0), ("delta", -1.0)):
                _number(figure, name, f"{place}{key}.", low, 1)
                _interval(figure, f"{name}_interval", f"{place}{key}.", low)
        _check_both(one, "pooled_dice", place)
    for key in (*(f"mean_{name}" for name in _CLASS_FIGURES), "pooled_dice"):
        _check_both(classes, key, "classes.")


def _check_both(data: Mapping[str, Any], key: str, prefix: str) -> None:
    both = _mapping(_get(data, key, prefix), prefix + key)
    for name in ("base", "tuned"):
        _number(both, name, f"{prefix}{key}.", 0, 1)


def _interval(data: Mapping[str, Any], key: str, prefix: str, low: float) -> None:
    interval = _get(data, key, prefix)
    ends = dict(zip(("low", "high"), interval, strict=True)) if _is_pair(interval) else None
    if ends is None:
        raise _bad(prefix + key, interval, "[low, high]")
    for end in ends:
        _number(ends, end, f"{prefix}{key}.", low, 1)
    if ends["low"] > ends["high"]:
        raise _bad(prefix + key, interval, "[low, high] with low <= high")


def _get(data: Mapping[str, Any], key: str, prefix: str) -> Any:
    if key not in data:
        raise AdapterError(f"evaluation.json lacks the key {prefix}{key}. Evaluate again.")
    return data[key]


def _mapping(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(place, value, "an object")
    return value


def _count(data: Mapping[str, Any], key: str, prefix: str) -> None:
    value = _get(data, key, prefix)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_COUNT:
        raise _bad(prefix + key, value, "a whole number, 0 or more")


def _number(data: Mapping[str, Any], key: str, prefix: str, low: float, high: float) -> None:
    value = _get(data, key, prefix)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _bad(prefix + key, value, f"a number from {low:g} to {high:g}")  # NaN fails every comparison


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _bad(place: str, value: object, allowed: str) -> AdapterError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return AdapterError(f"evaluation.json: {place} is {shown}, allowed is {allowed}. Evaluate again.")
