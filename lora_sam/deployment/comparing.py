"""One comparison of back ends, from files, images and prompts to the content of `backends.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lora_sam.core.config import plain_fields
from lora_sam.core.console import progress
from lora_sam.core.errors import ConfigError
from lora_sam.core.groups import groups_in
from lora_sam.deployment.peak_memory import peak_memory_of
from lora_sam.evaluation.backends.host import this_host
from lora_sam.evaluation.backends.latency import Timing, measure_latency
from lora_sam.evaluation.backends.names import BACK_ENDS, reference_of
from lora_sam.evaluation.backends.quality import Quality, measure_quality
from lora_sam.evaluation.backends.result import MEASURED_METRICS, Comparison, Measured
from lora_sam.evaluation.backends.threshold import TunedThreshold, tune_threshold
from lora_sam.evaluation.comparison import compare, summarize
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.evaluation.task import Task
    from lora_sam.runs.backends import Origin


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        mask_threshold: Logit above which a pixel belongs to a mask; `tune` chooses it on the validation split.
        multimask: As in `Predictor.predict`.
        repeats: How often every latency is measured.
        threads: Threads to compute with; None leaves it to torch and OpenVINO.
        base: Checkpoint of the base weights; None takes the file that the run used.
    """

    mask_threshold: float | Literal["tune"]
    multimask: bool
    repeats: int
    threads: int | None
    base: Path | None


def measure(
    origin: Origin,
    names: tuple[str, ...],
    task: Task,
    options: Options,
    *,
    made_from: Mapping[str, str],
    settings: Mapping[str, Any],
    fail_under: float | None,
) -> Comparison:
    """Measure `names` side by side.

    Args:
        origin: Where the back ends are; they were checked.
        names: Which ones, in order.
        task: Images and prompts.
        options: How.
        made_from: See `Comparison`.
        settings: See `Comparison`.
        fail_under: See `Comparison`.

    Raises:
        AdapterError: files are damaged.
        CheckpointError: the base weights are not found.
        ConfigError: `multimask` with a back end that gives single masks only; a threshold that the images which are
            measured would choose.
        DataError: an image cannot be read.
    """
    source = task.images(task.split)
    if options.mask_threshold == "tune":
        _check_held_out(task)
    predictors = origin.open(names, threads=options.threads)
    _check_multimask(predictors, options.multimask)
    tuned, tuned_by, threshold = None, None, options.mask_threshold
    if threshold == "tune":
        tuned_by = "tuned" if "tuned" in names else names[0]
        tuned = _tuned_threshold(predictors[tuned_by], task, options.multimask)
        threshold = tuned.threshold
    with progress(f"measuring {len(names)} back ends on {len(source)} images", "images") as on_image:
        quality = measure_quality(
            predictors,
            source,
            task.prompts_for,
            reference="tuned" if "tuned" in names else None,
            multimask=options.multimask,
            threshold=threshold,
            on_image=on_image,
        )
    sample = source[0]
    with progress(f"timing each {options.repeats} times, in turns", "turns") as on_turn:
        latency = measure_latency(predictors, sample.image, task.prompts_for(sample), options.repeats, on_turn=on_turn)
    execution = {
        name: predictor.execution if isinstance(predictor, OpenVINOPredictor) else "f32"
        for name, predictor in predictors.items()
    }
    predictors.clear()
    memory = _memory(origin, names, sample.size, options)
    scores = quality.evaluation.scores
    return Comparison(
        made_from=made_from,
        settings=settings,
        split=task.split,
        images=len(source),
        objects=sum(len(image.object_ids) for image in scores[names[0]]),
        groups=groups_in([image.group for image in scores[names[0]]], task.splits.parts),
        seed=task.seed,
        prompt=plain_fields(task.prompt),
        multimask=options.multimask,
        mask_threshold=threshold,
        tuned_threshold=tuned,
        tuned_by=tuned_by,
        repeats=options.repeats,
        image_size=sample.size,
        host=this_host(options.threads),
        fail_under=fail_under,
        backends={
            name: Measured(
                runtime=BACK_ENDS[name].runtime,
                weights=BACK_ENDS[name].weights,
                execution=execution[name],
                bytes=_bytes_of(origin, name),
                peak_memory_bytes=memory[name],
                **_quality_of(name, quality, task.seed),
                **_latency_of(latency[name]),
            )
            for name in names
        },
    )


def _tuned_threshold(predictor: Predictor, task: Task, multimask: bool) -> TunedThreshold:
    source = task.images("val")
    with progress(f"choosing the threshold on {len(source)} validation images", "images") as on_image:
        return tune_threshold(predictor, source, task.prompts_for, multimask=multimask, on_image=on_image)


def _check_held_out(task: Task) -> None:
    """The threshold is chosen on validation images: where these are measured, it is the best for them, not for others.

    Raises:
        ConfigError: some of them are.
    """
    measured, choose = task.images(task.split).ids, set(task.images("val").ids)
    both = sum(one in choose for one in measured)
    if both:
        raise ConfigError(
            f"mask_threshold = tune: the validation images would choose it, and {both} of the {len(measured)} images "
            f"that are measured (split {task.split}) are among them; measure others (split=...), or give a number"
        )


def _check_multimask(predictors: Mapping[str, Predictor], multimask: bool) -> None:
    for name, predictor in predictors.items():
        if multimask and isinstance(predictor, OpenVINOPredictor) and not predictor.offers_all_masks:
            raise ConfigError(
                f"multimask = true: {name} gives single masks only; export it again with multimask=true, or name the "
                "back ends to measure without it"
            )


def _memory(origin: Origin, names: tuple[str, ...], size: tuple[int, int], options: Options) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    with progress("loading each in a process of its own", "back ends") as on_back_end:
        for name in names:
            found[name] = peak_memory_of(
                BACK_ENDS[name], origin.place(name), size, base=options.base, threads=options.threads
            )
            on_back_end(len(found), len(names))
    return found


def _bytes_of(origin: Origin, name: str) -> int:
    return sum(path.stat().st_size for path in origin.files(name))


def _quality_of(name: str, quality: Quality, seed: int) -> dict[str, Any]:
    """The fields of `Measured` that say how good the masks are."""
    scores = quality.evaluation.scores
    against = reference_of(name, scores)
    figures = summarize(scores[name], seed)
    delta = None if against is None else compare(scores[against], scores[name], seed)["delta"]
    return {
        **{metric: figures[metric] for metric in MEASURED_METRICS},
        **{f"{metric}_interval": tuple(figures[f"{metric}_interval"]) for metric in MEASURED_METRICS},
        **dataclasses.asdict(quality.average_precision[name]),
        "iou_with_torch": quality.agreement.get(name),
        "against": against,
        "iou_difference": None if delta is None else delta["iou"],
        "iou_difference_interval": None if delta is None else tuple(delta["iou_interval"]),
    }


def _latency_of(latency: Mapping[str, Timing]) -> dict[str, Any]:
    medians = {f"{what}_ms": timing.median for what, timing in latency.items()}
    return {**medians, **{f"{what}_ms_range": (timing.low, timing.high) for what, timing in latency.items()}}
