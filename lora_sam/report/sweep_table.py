"""The table of a sweep in the terminal, and the commands that are worth typing after it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.calling import quoted
from lora_sam.core.run_directory import from_here
from lora_sam.core.wording import duration, plural
from lora_sam.report.next_steps import step_of
from lora_sam.runs.sweep_jobs import Group, Job, values_of

BY_HEART = "the images that validated trained too, so the ranking flatters; give it a val split"
SETS = "A, B: validated on other images or prompts, so ranked apart"

if TYPE_CHECKING:
    from rich.table import Table

    from lora_sam.runs.sweep import Sweep


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last word of each key, or as many as tell it from the others: `method.rank` is `rank`."""
    names = {}
    for key in keys:
        words = key.split(".")
        for count in range(1, len(words) + 1):
            name = ".".join(words[-count:])
            if sum(other == name or other.endswith(f".{name}") for other in keys) == 1:
                break
        names[key] = name
    return names


def table(sweep: Sweep) -> Table:
    """Jobs, the best first, with a column for each key in which they differ; fits 80 columns.

    Where the seed is varied, a row is a configuration over its seeds.
    """
    from lora_sam.core.console import text_table

    keys = [key for key in sweep.varied if key != "seed" or not sweep.groups]
    names, test = short_names(keys), f"{split_of(sweep)} IoU"
    places = places_of(sweep)
    told = f"{test} chooses nothing" if chose_nothing(sweep) else f"{test} is of images that chose, and flatters"
    if sweep.groups:
        headings = ["", *names.values(), "seeds", "val IoU", "95 %", "± seeds", test]
        rows = [_group_cells(place, group, keys) for place, group in zip(places, sweep.groups, strict=True)]
        rows += _without_figures(sweep, keys)
        caption = f"validation IoU: mean of the seeds, 95 % interval over seeds and images; {told}"
    else:
        headings = ["", "job", *names.values(), "val IoU", "95 %", test, "time"]
        rows = [_job_cells(place, job, keys) for place, job in zip(places, sweep.ranking(), strict=True)]
        caption = (
            f"ranked by validation IoU, 95 % interval over its images; ≈: what the best has more may be luck; {told}"
        )
    if len(sweep.validation_sets) > 1:
        caption = f"{SETS}; {caption}"
    first = 1 if sweep.groups else 2
    folding = range(first, first + len(keys))
    return text_table(headings, rows, title=title_of(sweep), caption=caption, folding=folding, padding=0)


def split_of(sweep: Sweep) -> str:
    """The split that the jobs were evaluated on."""
    return "/".join(dict.fromkeys(job.split for job in sweep.jobs if job.split is not None)) or "test"


def chose_nothing(sweep: Sweep) -> bool:
    """Whether the images that the jobs were evaluated on are none of those that ranked them (evaluate_split=val)."""
    return all(job.split in (None, "test") for job in sweep.jobs)


def letter_of(validation_set: int | None) -> str:
    """How a set of jobs is called whose validations measured the same."""
    return (
        "" if validation_set is None else chr(ord("A") + (validation_set - 1) % 26) * (1 + (validation_set - 1) // 26)
    )


def places_of(sweep: Sweep) -> list[str]:
    """The place of each row of the table, within its set where there are several."""
    rows: Sequence[Job | Group] = sweep.groups or sweep.ranking()
    several, places = len(sweep.validation_sets) > 1, []
    for place, row in enumerate(rows, 1):
        before = sum(other.validation_set == row.validation_set for other in rows[:place])
        places.append(f"{letter_of(row.validation_set)}{before}" if several else str(place))
    return places


def title_of(sweep: Sweep) -> str:
    """How many jobs there are, and what became of them."""
    states = [job.state for job in sweep.jobs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    return f"sweep of {plural(len(sweep.jobs), 'job')}: {counts or 'none'}"


def _job_cells(place: str, job: Job, keys: Sequence[str]) -> list[str]:
    values = [f" {job.values.get(key, '-')}" for key in keys]
    if job.state != "done":
        return ["", f" {job.job}", *values, f" {job.state}", "", "", time_of(job)]
    close = "≈" if may_be_as_good(job) and place.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "1" else ""
    return [
        f"{place}{close}",
        f" {job.job}",
        *values,
        f" {figure(job.validation)}",
        " = base" if job.better_than_base is False else f" {interval(job.validation_interval)}",
        f" {figure(job.test)}",
        time_of(job),
    ]


def _group_cells(place: str, group: Group, keys: Sequence[str]) -> list[str]:
    values = values_of(group.overrides)
    seeds = str(len(group.jobs)) if len(group.jobs) == group.planned else f"{len(group.jobs)} of {group.planned}"
    return [
        place,
        *(f" {values.get(key, '-')}" for key in keys),
        f" {seeds}",
        f" {figure(group.validation)}",
        f" {interval(group.validation_interval)}",
        "" if group.spread is None else f" {group.spread:.4f}",
        f" {figure(group.test)}",
    ]


def _without_figures(sweep: Sweep, keys: Sequence[str]) -> list[list[str]]:
    """A row for each configuration of which no seed is done."""
    others: dict[tuple[str, ...], list[Job]] = {}
    ranked = {group.overrides for group in sweep.groups}
    for job in sweep.jobs:
        if job.without_seed not in ranked:
            others.setdefault(job.without_seed, []).append(job)
    return [
        [
            "",
            *(f" {jobs[0].values.get(key, '-')}" for key in keys),
            f" 0 of {len(jobs)}",
            " " + "/".join(dict.fromkeys(job.state for job in jobs)),
            *[""] * 3,
        ]
        for jobs in others.values()
    ]


def may_be_as_good(job: Job) -> bool:
    """Whether what the best has more than another job may be luck of the images, or nobody can tell."""
    return job.behind is None or job.behind[0] <= 0


def figure(value: float | None) -> str:
    """A figure, or nothing where it is not known."""
    return "" if value is None else f"{value:.4f}"


def interval(ends: tuple[float, float] | None, form: str = ".3f") -> str:
    """An interval in brackets, or nothing where it is not known."""
    return "" if ends is None else f"[{ends[0]:{form}}, {ends[1]:{form}}]"


def time_of(job: Job) -> str:
    """How long a job took, with a blank in front."""
    return "" if job.seconds is None else f" {duration(job.seconds)}"


def _chosen(values: Mapping[str, str], varied: Sequence[str]) -> str:
    return ", ".join(f"{key}={values[key]}" for key in varied if key in values) or "the only one"


def why_none_is_best(sweep: Sweep) -> str:
    """Why a sweep has no best job."""
    if len(sweep.validation_sets) > 1:
        return "no job is the best of all: they validated on different images or prompts"
    if any(job.state == "done" for job in sweep.jobs):
        return "no job was validated"
    return "no job is done"


def next_commands(sweep: Sweep, directory: Path, program: str) -> list[str]:
    """The best job in a sentence, and commands to type next."""
    place = from_here(directory)
    again = f"{program} {shlex.quote(f'sweep={place}')}"
    if sweep.best is None:
        lines = [why_none_is_best(sweep)]
        done = next((job for job in sweep.ranking() if job.state == "done"), None)
        if done is None or sweep.failed:
            lines[0] += f"; mend what failed, then: {again}"
        if done is not None and done.validation is not None:
            run = shlex.quote(f"run={quoted(f'{place}/{done.directory}')}")
            lines.append(f"next:   {step_of(program, 'deploy')} {run}")
        return lines
    best = sweep.job(sweep.best)
    lines = [f"best: job {best.job} with {best.validation:.4f} ({_chosen(best.values, sweep.varied)})"]
    if sweep.groups:
        group = sweep.groups[0]
        lines = [
            f"best: {_chosen(group.values, sweep.varied)} with {group.validation:.4f}, mean of "
            f"{plural(len(group.jobs), 'seed')}; of these job {best.job} has {best.validation:.4f}"
        ]
    if best.better_than_base is False:
        lines[0] += "; no job beat the base" if sweep.only_base else "; it is its base, which no training of it beat"
    if best.held_out is False:
        lines.append(f"note:   {BY_HEART}")
    if sweep.failed:
        lines.append(f"go on:  {again}")
    run = shlex.quote(f"run={quoted(place)}")
    lines.append(f"next:   {step_of(program, 'deploy')} {run}")
    return lines
