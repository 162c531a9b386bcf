"""The jobs of a sweep with their figures, ranked by the validation that chose their weights, never by the test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import read_json
from lora_sam.core.groups import clusters_of
from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.comparison import compare_means
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.over_seeds import clusters_in, gain_of, mean_over_seeds
from lora_sam.evaluation.result import held_out
from lora_sam.runs.sweep_jobs import Group, Interval, Job
from lora_sam.runs.sweep_sets import sets_of, validated_on


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
    """Interval of the difference of two validations; None where they did not measure the same, or one image alone."""
    first, other = reports[best.job].get("validation"), reports[job.job].get("validation")
    if first is None or other is None or best.validated != job.validated:
        return None
    groups = [image.get("group") for image in first["per_image"] if image["objects"]]
    if len(set(clusters_of(groups).tolist())) < 2:  # its objects have one mean, so that nothing would seem to be luck
        return None
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
    validation, interval = mean_over_seeds(validations, 0, least=0.0)
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
