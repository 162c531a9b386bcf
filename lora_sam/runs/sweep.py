"""A sweep on disk: `sweep.json`, what became of its jobs, and which of them is best."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lora_sam.core.beside import alone_in
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import read_json, write_text
from lora_sam.core.run_directory import SWEEP, point_best_of_sweep, point_sweep
from lora_sam.runs.status import REFUSED, Status, is_gone, read_status, this_process
from lora_sam.runs.sweep_jobs import Group, Job
from lora_sam.runs.sweep_ranking import filled, grouped, ranked, varied_keys

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA_VERSION = 1
_writing = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Content of `sweep.json`.

    Attributes:
        schema_version: Version of this layout.
        state: Of the command: `running`, `finished`, or `interrupted` by a signal.
        command: What was typed after the program, without the directory of the sweep.
        overrides: The values that were typed, with all choices: what the jobs were made from.
        started: Seconds since 1970.
        process: Which process runs it.
        varied: Keys in which jobs differ, in the order in which they were typed.
        jobs: Every job that was planned or has begun, by number.
        groups: Configurations that ran with several seeds, best first; empty where the seed is not varied.
        best: Number of the best job by the validation; None where none is done, and where validations measured
            different images or prompts, so that none is better than the others.
    """

    schema_version: int = SCHEMA_VERSION
    state: Literal["running", "finished", "interrupted"]
    command: tuple[str, ...]
    overrides: tuple[str, ...]
    started: float
    process: dict[str, Any] = field(default_factory=this_process)
    varied: tuple[str, ...] = ()
    jobs: tuple[Job, ...] = ()
    groups: tuple[Group, ...] = ()
    best: int | None = None

    @property
    def failed(self) -> bool:
        """Whether a job is not done: the exit code of the command."""
        return any(job.state not in ("done", "pruned") for job in self.jobs)

    def ranking(self) -> list[Job]:
        """Jobs that are done, the best first; then the others by number."""
        return ranked(self.jobs)

    @property
    def validation_sets(self) -> list[int]:
        """Numbers of the sets of jobs that are ranked among each other; several where validations differ."""
        return sorted({job.validation_set for job in self.jobs if job.validation_set is not None})

    @property
    def only_base(self) -> bool:
        """Whether the best job is its base, and no other has beaten its own; bases differ where models do."""
        done = [job for job in self.jobs if job.state == "done"]
        return self.best is not None and all(job.better_than_base is False for job in done)

    def job(self, number: int) -> Job:
        """The job of that number."""
        return next(job for job in self.jobs if job.job == number)


@cache
def _adapter() -> TypeAdapter[Sweep]:
    from pydantic import TypeAdapter

    return TypeAdapter(Sweep)


def read_sweep(directory: Path) -> Sweep:
    """The `sweep.json` of a sweep, checked.

    Raises:
        AdapterError: it is missing, damaged, or of another schema version.
    """
    path = directory / SWEEP
    remedy = "give the directory of a sweep, or start a new one"
    values = read_json(path, remedy)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise AdapterError(
            f"{path}: schema version {values.get('schema_version')!r:.40}, this lora_sam reads {SCHEMA_VERSION}; "
            "use the version of lora_sam that wrote it"
        )
    try:
        return _adapter().validate_json(json.dumps(values))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise AdapterError(f"{path} is damaged ({reason:.200}); {remedy}") from error


def begin(
    directory: Path, command: Sequence[str], overrides: Sequence[str], planned: Sequence[Sequence[str]] | None
) -> None:
    """Note that a sweep begins, or goes on, in `directory`.

    Args:
        directory: Directory of the sweep.
        command: What was typed after the program.
        overrides: The values that were typed, with all choices.
        planned: The values of every job; None where a sweeper chooses them as it goes.

    Raises:
        ConfigError: another sweep is there, or this one runs now.
        TrainingError: the disk is full.
    """
    with alone_in(directory):  # of two commands at the same moment one has to see the other
        _begin(directory, command, overrides, planned)
    point_sweep(directory)


def _begin(
    directory: Path, command: Sequence[str], overrides: Sequence[str], planned: Sequence[Sequence[str]] | None
) -> None:
    before = read_sweep(directory) if (directory / SWEEP).exists() else None
    if before is not None:
        _check_same(directory, before, overrides)
    for path in (directory / REFUSED).glob("*/status.json"):
        path.unlink()
    jobs = [Job(job=number, state="missing", overrides=tuple(values)) for number, values in enumerate(planned or ())]
    started = time.time() if before is None else before.started
    sweep = Sweep(
        state="running", command=tuple(command), overrides=tuple(overrides), started=started, jobs=tuple(jobs)
    )
    write(directory, sweep)


def _check_same(directory: Path, before: Sweep, overrides: Sequence[str]) -> None:
    place = f"hydra.sweep.dir = {directory}"
    if before.state == "running" and not is_gone(before.process):
        raise ConfigError(
            f"{place}: this sweep runs now, in process {before.process.get('pid')} on "
            f"{before.process.get('host')}; wait for it, or name a new directory (if that process is gone, remove "
            f"{directory / SWEEP} and type this again: what is done stays)"
        )
    now, then = set(overrides), set(before.overrides)
    if now != then:
        more = ", ".join(sorted(now - then)) or "nothing more"
        less = ", ".join(sorted(then - now)) or "nothing more"
        raise ConfigError(
            f"{place}: holds a sweep of other values: {less} there, {more} now; type the same command, name a new "
            f"directory, or go on with that one: sweep={directory}"
        )
    if tuple(overrides) != before.overrides:
        raise ConfigError(
            f"{place}: the same values in another order number the jobs in another way; go on with sweep={directory}"
        )


def plan_jobs(directory: Path, jobs: Mapping[int, Sequence[str]]) -> None:
    """Note jobs that a sweeper has chosen, by number: those that are done are part of the sweep, whenever they were.

    Raises:
        AdapterError: there is no sweep.
        TrainingError: the disk is full.
    """
    with _writer():
        sweep = read_sweep(directory)
        known = {job.job for job in sweep.jobs}
        more = [
            Job(job=number, state="missing", overrides=tuple(values))
            for number, values in jobs.items()
            if number not in known
        ]
        write(directory, replace(sweep, jobs=(*sweep.jobs, *more)))


def collect(directory: Path, state: Literal["running", "finished", "interrupted"] | None = None) -> Sweep:
    """`sweep.json` as the directories of the jobs have it now.

    Args:
        directory: Directory of the sweep.
        state: Of the command; None for what is written there, or `interrupted` where its process is gone.

    Raises:
        AdapterError: there is no sweep.
    """
    written = read_sweep(directory)
    if state is None:
        dead = written.state == "running" and is_gone(written.process)
        state = "interrupted" if dead else written.state
    planned = {job.job: Job(job=job.job, state="missing", overrides=job.overrides) for job in written.jobs}
    jobs = dict(planned)
    for place, status in _statuses(directory):
        assert status.job is not None
        mine = status.job in planned or status.started >= written.started
        if mine and (status.job not in planned or set(status.overrides) == set(planned[status.job].overrides)):
            jobs[status.job] = _job(directory, place, status)
    for _, status in _statuses(directory / REFUSED):
        assert status.job is not None
        jobs[status.job] = _job(directory, None, status)
    found = filled([jobs[number] for number in sorted(jobs)], directory)
    varied = varied_keys(found)
    groups = grouped(found, directory) if "seed" in varied else ()
    order = [job for job in ranked(found) if job.state == "done" and job.validation is not None]
    best = order[0].job if order and len({job.validation_set for job in order}) == 1 else None
    if groups and best is not None:
        best = next(job.job for job in order if job.job in groups[0].jobs)
    return Sweep(
        state=state,
        command=written.command,
        overrides=written.overrides,
        started=written.started,
        process=written.process,
        varied=varied,
        jobs=tuple(found),
        groups=groups,
        best=best,
    )


def finish(directory: Path, sweep: Sweep) -> None:
    """Write `sweep.json`, and point `best` at the best job; where there is none, at none.

    Raises:
        TrainingError: the disk is full.
    """
    write(directory, sweep)
    best = None if sweep.best is None else sweep.job(sweep.best).directory
    point_best_of_sweep(directory, None if best is None else directory / best, last=sweep.state == "finished")


@contextmanager
def _writer() -> Iterator[None]:
    """The thread that watches jobs elsewhere may not write over what a sweeper has just planned."""
    held = _writing.acquire(timeout=5)  # whoever hangs keeps no other from noting that a signal came
    try:
        yield
    finally:
        if held:
            _writing.release()


def renew(directory: Path, state: Literal["running", "finished", "interrupted"]) -> Sweep:
    """`sweep.json` and `best` brought up to date. Raises as `collect` and `finish` do."""
    with _writer():
        sweep = collect(directory, state)
        finish(directory, sweep)
    return sweep


def write(directory: Path, sweep: Sweep) -> None:
    """Write `sweep.json`. Raises `TrainingError` if the disk is full."""
    write_text(directory / SWEEP, json.dumps(asdict(sweep), indent=1) + "\n")


def _statuses(directory: Path) -> list[tuple[Path, Status]]:
    """Directories of jobs with what became of them; at any depth, where the name of a job has a slash."""
    places = [path.parent for path in directory.glob("*/status.json") if not path.parent.is_symlink()]
    if not places:
        places = [path.parent for path in directory.rglob("status.json")]
    found = ((place, read_status(place)) for place in places)
    return [(place, status) for place, status in found if status is not None and status.job is not None]


def _job(directory: Path, place: Path | None, status: Status) -> Job:
    """What `status.json` says; figures come later."""
    state = "done" if status.status == "completed" else status.status
    assert status.job is not None
    return Job(
        job=status.job,
        state=state,  # type: ignore[arg-type]  # what else a file may say is refused when it is read
        directory=None if place is None else place.relative_to(directory).as_posix(),
        overrides=tuple(status.overrides),
        error=None if status.error is None else " | ".join(status.error.splitlines()),
        validation=status.objective,
        seconds=status.seconds,
    )
