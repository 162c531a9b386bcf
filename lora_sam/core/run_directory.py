"""Where everything of a run lies, and how a run is found by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError
from lora_sam.core.files import read_json

LATEST = Path("outputs") / "latest"
STARTED = Path("outputs") / ".started"
LAST_SWEEP = Path("multirun") / "latest"
BEST = Path("multirun") / "best"
SWEEP = "sweep.json"
"""What makes a directory that of a sweep; its `best` is a link to the best job."""

_staying: list[bool] = []


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside one run's directory."""

    root: Path

    @property
    def saved_config(self) -> Path:
        """The composed configuration with nothing left to resolve: data, checked again whenever it is read."""
        return self.root / "config.json"

    @property
    def splits(self) -> Path:
        """Ids of the images of each split."""
        return self.root / "splits.json"

    def prompts(self, split: str) -> Path:
        """What prompted the objects of a split when it was evaluated."""
        return self.root / "prompts" / f"{split}.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: the source of truth for curves."""
        return self.root / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """State to resume from."""
        return self.root / "checkpoints" / "last" / "state.safetensors"

    @property
    def best(self) -> Path:
        """Weights with the highest validation IoU."""
        return self.root / "checkpoints" / "best" / "state.safetensors"

    @property
    def adapter(self) -> Path:
        """The result, in stock PEFT layout."""
        return self.root / "adapter"

    @property
    def evaluation(self) -> Path:
        """Base and tuned on the test split."""
        return self.root / "evaluation.json"

    @property
    def report(self) -> Path:
        """The page that explains the run."""
        return self.root / "report.html"

    @property
    def overlays(self) -> Path:
        """Best, median and worst cases as pictures."""
        return self.root / "overlays"

    @property
    def merged(self) -> Path:
        """Plain SAM weights with the adapter folded in."""
        return self.root / "merged"

    def openvino(self, precision: str) -> Path:
        """The two IR parts at `precision` (fp32, fp16, int8, ...)."""
        return self.root / "openvino" / precision

    @property
    def backends(self) -> Path:
        """All back ends on the same prompts."""
        return self.root / "backends.json"

    def point_latest_here(self) -> None:
        """Make `outputs/latest` a link to this run; a file system without links is left alone."""
        if not _staying:
            _point(LATEST, self.root)

    def note_start(self) -> None:
        """Note that this run has started, which `outputs/latest` does not say before it has saved something."""
        if not _staying:
            _point(STARTED, self.root)


@contextmanager
def latest_stays() -> Iterator[None]:
    """While it lasts, runs of this process do not become `latest`: those that are steps of something larger."""
    _staying.append(True)
    try:
        yield
    finally:
        _staying.pop()


def from_here(path: Path) -> str:
    """A path relative to where the command was given, if it lies there."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative


def last_started() -> RunDirectory | None:
    """The run that was started last here, whatever became of it."""
    return RunDirectory(STARTED.resolve()) if STARTED.is_dir() else None


def point_sweep(directory: Path) -> None:
    """Make `multirun/latest` a link to the sweep that begins."""
    _point(LAST_SWEEP, directory)


def point_best_of_sweep(directory: Path, job: Path | None, *, last: bool) -> None:
    """Make `best` in the directory of a sweep a link to its best job.

    Args:
        directory: Directory of the sweep.
        job: Run directory of its best job; None where it has none.
        last: Whether the sweep is finished: its best job is `multirun/best` and `outputs/latest` then. `multirun/best`
            of a sweep without a best job is the sweep itself, so that nobody takes that of an earlier one for it.
    """
    if job is None:
        with suppress(OSError):
            (directory / "best").unlink()
        if last:
            _point(BEST, directory)
        return
    _point(directory / "best", job)
    if last:
        _point(BEST, job)
        _point(LATEST, job)


def find_sweep(name: str) -> Path:
    """Directory of the sweep called `latest`, or at the path `name`.

    Raises:
        AdapterError: there is no such sweep.
    """
    path = LAST_SWEEP if name == "latest" else Path(name)
    if not (path / SWEEP).is_file():
        hint = "no sweep has been made here yet" if name == "latest" else "give the directory of a sweep, or latest"
        raise AdapterError(f"sweep={name}: no {SWEEP} in {path}; {hint}")
    return path.resolve()


def _point(link: Path, root: Path) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        target = os.path.relpath(root.resolve(), link.parent.resolve())
        temporary.symlink_to(target, target_is_directory=True)
        os.replace(temporary, link)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def _note_unfinished(sweep: Path) -> None:
    """Say once that a sweep is not finished, where its best job is asked for."""
    values = read_json(sweep / SWEEP, "give the directory of a run")
    jobs = values.get("jobs")
    if values.get("state") != "finished" and isinstance(jobs, list):
        done = sum(isinstance(job, dict) and job.get("state") == "done" for job in jobs)
        note(f"{sweep}: {done} of {len(jobs)} jobs of this sweep are done, and this is the best of them so far")


def _why_none_is_best(sweep: Path) -> str:
    jobs = read_json(sweep / SWEEP, "give the directory of a run").get("jobs")
    done = [job for job in jobs if job.get("state") == "done"] if isinstance(jobs, list) else []
    if not done:
        return f"no job of this sweep is done ({sweep / SWEEP}); go on with it: sweep={sweep}"
    return (
        "no job of this sweep is the best, because their validations measured different images or prompts, or none "
        f"({sweep / SWEEP}); name the directory of a job: {sweep / str(done[0].get('directory'))}"
    )


def find_run(name: str) -> RunDirectory:
    """The run called `latest` or `best`, or at the path `name`; of a sweep its best job.

    `best` is the best job of the sweep that was finished last.

    Raises:
        AdapterError: there is no such run.
    """
    path = {"latest": LATEST, "best": BEST}.get(name, Path(name))
    if (path / SWEEP).is_file():
        if not (path / "best").is_dir():
            raise AdapterError(f"{name}: {_why_none_is_best(path.resolve())}")
        _note_unfinished(path.resolve())
        path = path / "best"
    if not path.is_dir():
        hint = "no run has been made here yet" if name == "latest" else "give the path of a run, or latest"
        if name == "best":
            hint = "no sweep has been finished here yet"
        started = last_started()
        if name == "latest" and started is not None:
            hint = f"{started.root}, the run that was started last, has saved nothing"
        if path.is_symlink():
            hint = f"{os.readlink(path)}, which it points to, is gone: give the path of another run"
        raise AdapterError(f"{name}: no such run directory ({path}); {hint}")
    return RunDirectory(path.resolve())
