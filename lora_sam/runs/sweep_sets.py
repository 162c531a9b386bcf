"""Which jobs of a sweep may be ranked against each other: those whose validation measured the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import digest_of, read_json
from lora_sam.core.run_directory import RunDirectory

if TYPE_CHECKING:
    from lora_sam.runs.sweep_jobs import Job


def validated_on(directory: Path, job: Job, report: Mapping[str, Any], asked: bool) -> str | None:
    """A digest of the images, labels and prompts that the validation of a job measured; None where there was none.

    Args:
        directory: Directory of the sweep.
        job: A job that is done.
        report: Its `evaluation.json`.
        asked: Whether prompts count: all jobs know theirs.
    """
    assert job.directory is not None
    try:
        contents = read_json(RunDirectory(directory / job.directory).splits, "").get("contents")
    except LoraSamError:
        contents = None
    return measured(report, contents.get("val") if isinstance(contents, dict) else None, asked=asked)


def measured(report: Mapping[str, Any], contents: Any = None, *, asked: bool = True) -> str | None:
    """A digest of what the validation of a run measured: its images and their objects, and the prompts.

    Args:
        report: An `evaluation.json`.
        contents: Digests of images and labels, where these count.
        asked: Whether prompts count.
    """
    validation = report.get("validation")
    if validation is None:
        return None
    return digest_of(
        {
            "images": [[image["id"], image["objects"]] for image in validation["per_image"]],
            "contents": contents,
            "asked": validation.get("asked") if asked else None,
        }
    )[:16]


def sets_of(jobs: Sequence[Job]) -> dict[int, int]:
    """Number, from 1, of the set of each job that is done, by its number.

    Configurations are of one set if they measured the same seed by seed; seeds may each have drawn their own images.
    """
    configurations: dict[tuple[tuple[str, ...], int], dict[str | None, Job]] = {}
    seen: Counter[tuple[str, ...]] = Counter()
    for job in jobs:
        if job.state == "done":
            again = seen[job.overrides]  # the same values may be typed twice
            configurations.setdefault((job.without_seed, again), {})[job.values.get("seed")] = job
            seen[job.overrides] += 1
    known: list[dict[str | None, str | None]] = []
    sets: dict[int, int] = {}
    for members in configurations.values():
        measured = {seed: job.validated for seed, job in members.items()}
        fitting = (one for one in known if all(one.get(seed, value) == value for seed, value in measured.items()))
        if (same := next(fitting, None)) is None:
            known.append(same := {})
        same.update(measured)
        number = next(place for place, one in enumerate(known, 1) if one is same)
        sets.update({job.job: number for job in members.values()})
    return sets
