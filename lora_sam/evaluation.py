"""Measuring predictors side by side on the same images with the same prompts, and reporting it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_sam.errors import AdapterError, DataError
from lora_sam.metrics import METRICS, NO_IMAGE, PER_OBJECT_METRICS, SIZES, ImageScores, compare, score_image
from lora_sam.seeds import drawn_places
from lora_sam.structures import Sample

if TYPE_CHECKING:
    from rich.table import Table

    from lora_sam.data.splits import SampleSource
    from lora_sam.predictors import Predictor
    from lora_sam.structures import Masks, Prompts

SCHEMA_VERSION = 1

# With fewer images than this, percentile intervals are too narrow: with 10, 95 % intervals cover the truth in 89 %.
FEW_IMAGES = 10

_COUNTS = ("trainable_parameters", "total_parameters", "adapter_bytes", "images", "objects", "seed")

# No count or duration is larger; a number beyond would overflow where it is shown.
_LARGEST_COUNT, _LONGEST_SECONDS = 2**63 - 1, 1e10


@dataclass(frozen=True)
class Case:
    """An image worth showing.

    Attributes:
        id: Id of the sample.
        index: Its place in the source that was measured.
        objects: Number of its objects.
        base_iou: Mean IoU of its objects before.
        tuned_iou: Mean IoU of its objects after.
    """

    id: str
    index: int
    objects: int
    base_iou: float
    tuned_iou: float

    @property
    def delta(self) -> float:
        """How much the mean IoU rose."""
        return self.tuned_iou - self.base_iou

    def caption(self, name: str) -> str:
        """One line for the picture of the case called `name`."""
        return (
            f"{name}: {self.id}, mean IoU of {_plural(self.objects, 'object')} "
            f"{self.base_iou:.3f} -> {self.tuned_iou:.3f}"
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores of several predictors on the same images and prompts; no masks, so it stays small.

    Attributes:
        scores: Scores of all images, in the order of the source, by name of the predictor.
    """

    scores: Mapping[str, tuple[ImageScores, ...]]

    def per_image(self, base: str = "base", tuned: str = "tuned") -> list[Case]:
        """Mean IoU of every image with both predictors, in the order of the source."""
        pairs = zip(self.scores[base], self.scores[tuned], strict=True)
        return [
            Case(one.id, index, len(one.object_ids), one.mean_iou, other.mean_iou)
            for index, (one, other) in enumerate(pairs)
        ]

    def cases(self, base: str = "base", tuned: str = "tuned") -> dict[str, Case]:
        """`best`, `median` and `worst` image by the rise of its mean IoU from `base` to `tuned`.

        The median is the lower one of an even number. With fewer than three images some cases are the same image.
        """
        ranked = sorted(self.per_image(base, tuned), key=lambda case: (case.delta, case.id))
        return {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}


def evaluate(
    predictors: Mapping[str, Predictor],
    source: SampleSource,
    prompts_for: Callable[[Sample], Prompts],
    *,
    multimask: bool = False,
    threshold: float = 0.0,
    on_masks: Callable[[str, Sample, Masks], None] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every predictor on every image of `source`, which is read once, all with the same prompts.

    Args:
        predictors: What to measure, by name.
        source: Labelled images.
        prompts_for: Makes one prompt per object of a sample, in pixels of its image.
        multimask: As in `Predictor.predict`.
        threshold: As in `Predictor.predict`.
        on_masks: Called with the name of the predictor, the sample and what was predicted, which it must not keep.
        on_image: Called with (images done, all images) after each image.

    Raises:
        DataError: `source` is empty, or one of its images cannot be used.
    """
    count = len(source)
    if not count:
        raise DataError(NO_IMAGE)
    scores: dict[str, list[ImageScores]] = {name: [] for name in predictors}
    for index in range(count):
        sample = source[index]
        found = score_sample(
            predictors, sample, prompts_for(sample), multimask=multimask, threshold=threshold, on_masks=on_masks
        )
        for name in predictors:
            scores[name].append(found[name])
        if on_image is not None:
            on_image(index + 1, count)
    return Evaluation({name: tuple(images) for name, images in scores.items()})


def score_sample(
    predictors: Mapping[str, Predictor],
    sample: Sample,
    prompts: Prompts,
    *,
    multimask: bool = False,
    threshold: float = 0.0,
    on_masks: Callable[[str, Sample, Masks], None] | None = None,
) -> dict[str, ImageScores]:
    """Score every predictor on one image with the same prompts, one per object; arguments as in `evaluate`."""
    assert len(prompts) == len(sample.masks), f"{len(prompts)} prompts for {len(sample.masks)} objects"
    scores = {}
    for name, predictor in predictors.items():
        # held for one predictor at a time: masks of 300 objects in a photograph take gigabytes
        predicted = predictor.predict(sample.image, prompts, multimask=multimask, threshold=threshold)
        scores[name] = score_image(sample.id, sample.object_ids, predicted.masks, sample.masks)
        if on_masks is not None:
            on_masks(name, sample, predicted)
        del predicted
    return scores


def some_objects(sample: Sample, most: int | None, seed: int) -> Sample:
    """`sample` with at most `most` of its objects, a draw that depends on `seed` and its id only; None for all."""
    rows = drawn_places(len(sample.masks), most, seed, "validation", sample.id)
    return sample if rows is None else sample.only(rows)


def evaluation_report(
    evaluation: Evaluation,
    *,
    split: str,
    prompt: Mapping[str, Any],
    seed: int,
    trainable_parameters: int,
    total_parameters: int,
    adapter_bytes: int,
    seconds: float,
    peak_memory_bytes: int | None,
) -> dict[str, Any]:
    """Content of `evaluation.json` from an evaluation of `base` and `tuned`; see docs/metrics.md for the figures.

    Args:
        evaluation: Scores of the two predictors named `base` and `tuned`.
        split: Name of the split that was measured.
        prompt: Settings that made the prompts, ready for JSON.
        seed: Seed of the run; it also draws the bootstrap.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of the tuned model.
        adapter_bytes: Size of the adapter's weights on disk.
        seconds: Wall time of the training.
        peak_memory_bytes: Most memory held while training, or None where it cannot be told.
    """
    report = {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        **compare(evaluation.scores["base"], evaluation.scores["tuned"], seed),
        "trainable_parameters": trainable_parameters,
        "total_parameters": total_parameters,
        "adapter_bytes": adapter_bytes,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes,
        "images": len(evaluation.scores["base"]),
        "objects": sum(len(image.object_ids) for image in evaluation.scores["base"]),
        "prompt": dict(prompt),
        "seed": seed,
        "per_image": [
            {"id": case.id, "objects": case.objects, "base_iou": case.base_iou, "tuned_iou": case.tuned_iou}
            for case in evaluation.per_image()
        ],
    }
    validate_report(report)
    return report


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


def verdict(report: Mapping[str, Any]) -> str:
    """One sentence: whether tuning made the IoU per object better, worse, or neither measurably.

    Neither when the 95 % interval of the paired difference contains zero.
    """
    delta, (low, high) = report["delta"]["iou"], report["delta"]["iou_interval"]
    if low > 0:
        claim = "Tuned is better than base"
    elif high < 0:
        claim = "Tuned is worse than base"
    else:
        claim = "No measurable difference between base and tuned"
    images, objects = report["images"], report["objects"]
    sentence = (
        f"{claim}: IoU per object {report['base']['iou']:.3f} -> {report['tuned']['iou']:.3f}, difference {delta:+.3f} "
        f"(95 % interval {low:+.3f} to {high:+.3f}), on {_plural(objects, 'object')} in {_plural(images, 'image')}"
    )
    if images < FEW_IMAGES:
        sentence += ", too few images to trust the interval"
    return sentence + "."


def render_table(report: Mapping[str, Any]) -> Table:
    """The base, tuned and difference rows of a report as a table for the terminal (fits 80 columns)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"base vs tuned, split {report['split']}"),
        caption=Text("\n".join(_caption(report))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0),
    )
    for heading in _HEADINGS:
        # two lines, the second for the last word or the interval
        first, _, rest = heading.partition(" ")
        table.add_column(Text(f"{first}\n{rest}"), justify="right" if heading else "left", no_wrap=True)
    for name, cells in _rows(report):
        table.add_row(Text(name), *(Text(cell.replace(" [", "\n[")) for cell in cells))
    return table


def markdown_table(report: Mapping[str, Any]) -> str:
    """The same table as GitHub-flavoured Markdown, with its caption below; ends with a newline."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|---" + "|---:" * (len(_HEADINGS) - 1) + "|"]
    lines += ["| " + " | ".join((name, *cells)) + " |" for name, cells in _rows(report)]
    return "\n".join([*lines, "", " ".join(_caption(report)).replace("|", r"\|")]) + "\n"


_HEADINGS = ("", "IoU [95 % interval]", "IoU median", "Dice", "F1 (pooled)", "Boundary F1", "IoU S", "IoU M", "IoU L")


def _rows(report: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    rows = []
    for key, name, form in (("base", "base", ".3f"), ("tuned", "tuned", ".3f"), ("delta", "difference", "+.3f")):
        part = report[key]
        low, high = part["iou_interval"]
        sizes = [part["by_size"][size]["iou"] for size in SIZES]
        cells = (
            f"{part['iou']:{form}} [{low:{form}}, {high:{form}}]",
            *(f"{part[figure]:{form}}" for figure in ("iou_median", "dice", "f1", "boundary_f1")),
            *("-" if iou is None else f"{iou:{form}}" for iou in sizes),
        )
        rows.append((name, cells))
    return rows


def _caption(report: Mapping[str, Any]) -> list[str]:
    share = report["trainable_parameters"] / max(1, report["total_parameters"])
    sizes = [report["base"]["by_size"][size]["objects"] for size in SIZES]
    memory = report["peak_memory_bytes"]
    return [
        f"{_plural(report['images'], 'image')}, {_plural(report['objects'], 'object')} "
        f"(S {sizes[0]:,}, M {sizes[1]:,}, L {sizes[2]:,}; limits 32² and 96² px);",
        f"{report['trainable_parameters']:,} trainable parameters ({share:.2%}), "
        f"adapter {_bytes(report['adapter_bytes'])};",
        f"training {_duration(report['seconds'])}, peak memory {'unknown' if memory is None else _bytes(memory)}.",
    ]


def _check_figures(part: Mapping[str, Any], prefix: str, low: float) -> None:
    for name in (*METRICS, *(f"{name}_median" for name in PER_OBJECT_METRICS)):
        _number(part, name, prefix, low, 1)
    for name in METRICS:
        key = f"{name}_interval"
        interval = _get(part, key, prefix)
        ends = dict(zip(("low", "high"), interval, strict=True)) if _is_pair(interval) else None
        if ends is None:
            raise _bad(prefix + key, interval, "[low, high]")
        for end in ends:
            _number(ends, end, f"{prefix}{key}.", low, 1)
        if ends["low"] > ends["high"]:
            raise _bad(prefix + key, interval, "[low, high] with low <= high")
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


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _bytes(count: int) -> str:
    """Decimal units, as adapters are compared in MB: 1,250,000 is 1.25 MB."""
    power = min(3, int(math.log10(max(1, count))) // 3)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.2f} {('kB', 'MB', 'GB')[power - 1]}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
