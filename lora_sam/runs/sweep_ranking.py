"""The jobs of a sweep with their figures, ranked by the validation that chose their weights, never by the test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import read_json
from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.comparison import compare_means
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.over_seeds import clusters_in, gain_of, mean_over_seeds
from lora_sam.evaluation.result import held_out
from lora_sam.runs.sweep_sets import sets_of, validated_on

State = Literal["done", "failed", "running", "pruned", "missing", "interrupted", "killed", "changed"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a sweep. What is not known (yet) is None.

    Attributes:
        job: Its number.
        state: What became of it; `missing` has not begun, `changed` is done, but with other settings or data than now.
        directory: Its run directory, relative to that of the sweep.
        overrides: Its values, as `key=value`.
        error: Why it failed, in one line.
        validation: Validation IoU of the weights that it kept: what jobs are ranked by.
        validation_interval: Its 95 % interval over the validation images.
        validated: A digest of what its validation measured: images, labels, prompts.
        validation_set: Number, from 1, of the jobs that it is ranked among: those whose validation measured the same.
        behind: 95 % interval of what the best of these has more on the same validation images; around zero, it may be
            luck.
        held_out: Whether any image that validated did not train; without one it may be learnt by heart.
        better_than_base: Whether any validation beat the base.
        split: Split of the figures below, `test` unless `evaluate_split` says otherwise.
        test: IoU of the tuned model on that split. Nothing is chosen by it.
        test_delta: What tuning added there.
        test_delta_interval: Its 95 % interval.
        trained_parameters: Weights that were trained.
        adapter_bytes: Size of the adapter.
        seconds: Duration of the whole job.
    """

    job: Annotated[int, Field(ge=0)]
    state: State
    directory: str | None = None
    overrides: tuple[str, ...]
    error: str | None = None
    validation: float | None = None
    validation_interval: Interval | None = None
    validated: str | None = None
    validation_set: int | None = None
    behind: Interval | None = None
    held_out: bool | None = None
    better_than_base: bool | None = None
    split: str | None = None
    test: float | None = None
    test_delta: float | None = None
    test_delta_interval: Interval | None = None
    trained_parameters: int | None = None
    adapter_bytes: int | None = None
    seconds: float | None = None

    @property
    def values(self) -> dict[str, str]:
        """Its values by key."""
        return values_of(self.overrides)

    @property
    def without_seed(self) -> tuple[str, ...]:
        """Its values but the seed: its configuration."""
        return tuple(one for one in self.overrides if values_of([one]).keys() != {"seed"})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Jobs that differ in their seed only.

    Attributes:
        overrides: What they have in common.
        jobs: Numbers of those that are done.
        planned: How many there should be.
        validation_set: As of a job: seed by seed, configurations of a set have measured the same.
        validation: Mean validation IoU.
        validation_interval: Its 95 % interval over seeds and images.
        spread: Standard deviation of the validation IoU over seeds; None for one.
        test: Mean IoU on the split of the evaluation.
        test_delta: Mean of what tuning added there.
        test_delta_interval: Its 95 % interval over seeds and images.
    """

    overrides: tuple[str, ...]
    jobs: tuple[int, ...]
    planned: int
    validation_set: int = 1
    validation: float
    validation_interval: Interval
    spread: float | None
    test: float | None
    test_delta: float | None
    test_delta_interval: Interval | None

    @property
    def values(self) -> dict[str, str]:
        """What they have in common, by key."""
        return values_of(self.overrides)


def values_of(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides `key=value` by key."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}


def varied_keys(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Keys whose values differ among jobs, in the order in which they come."""
    tables: list[Mapping[str, str]] = [job.values for job in jobs]
    keys = dict.fromkeys(key for table in tables for key in table)
    return tuple(key for key in keys if len({table.get(key) for table in tables}) > 1)


def ranked(jobs: Iterable[Job]) -> list[Job]:
    """Jobs that are done, the highest validation first, of equal ones the smallest adapter; then the others.

    Jobs whose validation measured something else come one set after the other.
    """

    def place(job: Job) -> tuple[bool, int, float, float, int]:
        done = job.state == "done" and job.validation is not None
        figure = -(job.validation or 0.0) if done else 0.0
        return not done, job.validation_set or 0, figure, job.trained_parameters or math.inf, job.job

    return sorted(jobs, key=place)


def filled(jobs: Sequence[Job], directory: Path) -> list[Job]:
    """`jobs` with the figures of those that are done, the set that each is ranked in, and how far behind its best.

    Args:
        jobs: Jobs with what their `status.json` says.
        directory: Directory of the sweep.
    """
    reports = {job.job: report for job in jobs if (report := report_of(job, directory)) is not None}
    # those of an older version do not say what they were asked
    asked = all((report.get("validation") or {}).get("asked") for report in reports.values())
    found = [
        _with_figures(job, reports[job.job], validated_on(directory, job, reports[job.job], asked))
        if job.job in reports
        else job
        for job in jobs
    ]
    sets = sets_of(found)
    found = [replace(job, validation_set=sets.get(job.job)) for job in found]
    best: dict[int | None, Job] = {}
    for job in ranked(found):
        if job.job in reports:
            best.setdefault(job.validation_set, job)
    return [
        replace(job, behind=_behind(best[job.validation_set], job, reports))
        if job.job in reports and job is not best[job.validation_set]
        else job
        for job in found
    ]


def report_of(job: Job, directory: Path) -> dict[str, Any] | None:
    """`evaluation.json` of a job that is done; None where there is none, or it is damaged."""
    if job.state != "done" or job.directory is None:
        return None
    try:
        report = read_json(RunDirectory(directory / job.directory).evaluation, "")
        validate_report(report)
    except LoraSamError:
        return None
    return report


def _with_figures(job: Job, report: Mapping[str, Any], validated: str | None) -> Job:
    validation, delta = report.get("validation"), report["delta"]
    return replace(
        job,
        validated=validated,
        validation_interval=None if validation is None else tuple(validation["iou_interval"]),
        held_out=None if validation is None else held_out(report),
        better_than_base=None if validation is None or "init_from" in report else validation["kept_step"] > 0,
        split=report["split"],
        test=report["tuned"]["iou"],
        test_delta=delta["iou"],
        test_delta_interval=tuple(delta["iou_interval"]),
        trained_parameters=report["trainable_parameters"],
        adapter_bytes=report["adapter_bytes"],
    )


def _behind(best: Job, job: Job, reports: Mapping[int, Mapping[str, Any]]) -> Interval | None:
    """Interval of the difference of two validations; None where they did not measure the same."""
    first, other = reports[best.job].get("validation"), reports[job.job].get("validation")
    if first is None or other is None or best.validated != job.validated:
        return None
    groups = [image.get("group") for image in first["per_image"] if image["objects"]]
    seed = reports[job.job]["seed"]
    return compare_means(_per_object(other["per_image"]), _per_object(first["per_image"]), seed, groups).delta_interval


def _per_object(images: Sequence[Mapping[str, Any]]) -> list[NDArray[np.float64]]:
    """The mean of an image for each of its objects: sums over images are those of the objects."""
    return [np.full(image["objects"], image["iou"], np.float64) for image in images if image["objects"]]


def grouped(jobs: Sequence[Job], directory: Path) -> tuple[Group, ...]:
    """Configurations over their seeds, the highest mean validation first.

    Args:
        jobs: Jobs with their figures.
        directory: Directory of the sweep.
    """
    sets: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        sets.setdefault(job.without_seed, []).append(job)
    found = []
    for overrides, members in sets.items():
        done = [job for job in members if job.state == "done" and job.validation is not None]
        reports = [report_of(job, directory) for job in done]
        if done and all(report is not None and "validation" in report for report in reports):
            found.append(_group(overrides, done, len(members), [report for report in reports if report is not None]))
    return tuple(sorted(found, key=lambda group: (group.validation_set, -group.validation, group.jobs)))


def _group(overrides: tuple[str, ...], done: Sequence[Job], planned: int, reports: Sequence[dict[str, Any]]) -> Group:
    validations = [clusters_in(report["validation"]["per_image"], itemgetter("iou")) for report in reports]
    deltas = [clusters_in(report["per_image"], gain_of) for report in reports]
    validation, interval = mean_over_seeds(validations, 0)
    test_delta, test_interval = mean_over_seeds(deltas, 0)
    values = [job.validation for job in done if job.validation is not None]
    return Group(
        overrides=overrides,
        jobs=tuple(job.job for job in done),
        planned=planned,
        validation_set=done[0].validation_set or 1,
        validation=validation,
        validation_interval=interval,
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        test=float(np.mean([report["tuned"]["iou"] for report in reports])),
        test_delta=test_delta,
        test_delta_interval=test_interval,
    )


def pareto(jobs: Iterable[Job], cost: str) -> set[int]:
    """Numbers of the jobs that no other job beats in both: a higher validation at no more cost.

    Args:
        jobs: Jobs of a sweep.
        cost: `trained_parameters`, `adapter_bytes` or `seconds`.
    """
    known = [
        (float(getattr(job, cost)), job.validation, job.job)
        for job in jobs
        if job.state == "done" and job.validation is not None and getattr(job, cost) is not None
    ]
    front: set[int] = set()
    highest = -math.inf
    for _, validation, number in sorted(known, key=lambda one: (one[0], -one[1], one[2])):
        if validation > highest:
            front.add(number)
            highest = validation
    return front
