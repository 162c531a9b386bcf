"""One job of the command line, alone or in a sweep: its directory, its `status.json`, its error when it happens."""

from __future__ import annotations

import atexit
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_sam.cli import BUG, at_work, full_errors, report
from lora_sam.cli.engines import (
    Watch,
    environment_of_jobs,
    in_this_process,
    is_elsewhere,
    is_taken_over,
    keep_engines_quiet,
    missing_engine,
    process_of_job,
    program,
    wait_for_another,
)
from lora_sam.cli.search import check_search
from lora_sam.cli.sweeping import forget_sweep, sweep_begins
from lora_sam.cli.sweeps import (
    begin_sweep,
    earlier_part,
    end_sweep,
    engine_choices,
    interrupt_sweep,
    note_job,
)
from lora_sam.core.calling import typed_word
from lora_sam.core.chosen import with_options
from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.moved import with_new_names
from lora_sam.runs.status import Status, read_status, refuse
from lora_sam.training.stopping import Pruned

# what a run makes that nobody wants to lose, and what a run that came to nothing has left
# (the best weights alone are those of the base, which are kept before the first step)
_RESULTS = ("checkpoints/last/state.safetensors", "adapter", "evaluation.json")
_REMAINS = ("checkpoints", "config.json", "splits.json", "metrics.jsonl", "prompts", "tensorboard")

Task = Callable[[dict[str, Any], Path, Sequence[str]], float]


def run_job(config: DictConfig, task: Task) -> float:
    """Run `task` for one composed configuration; called from the function that `hydra.main` decorates.

    Args:
        config: What Hydra composed.
        task: Called with the resolved configuration as plain values, the run directory, and the task overrides;
            returns the objective.

    Returns:
        The objective. In a sweep, NaN for a job that failed, after its error was printed, so that the others go on;
        callbacks and exit code get to know it from its `status.json`.

    Raises:
        SystemExit: the job failed and is not part of a sweep: 2 for a user's mistake, 1 for anything else.
    """
    hydra = HydraConfig.get()
    sweeping = hydra.mode == RunMode.MULTIRUN
    directory = Path(hydra.runtime.output_dir)
    # as they were typed: interpolations in them are those of the configuration
    overrides = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    job = int(hydra.job.num) if sweeping else None
    prefix = f"job {job}: " if sweeping else ""
    status = Status(status="running", job=job, overrides=overrides, started=time.time(), process=process_of_job())
    if sweeping and not process_number():
        try:
            wait_for_another(directory, lambda line: print(f"{prefix}{line}", flush=True))
        except LoraSamError as error:
            report(str(error).splitlines(), prefix)
            refuse(Path(hydra.sweep.dir), status.ended("failed", error=str(error)))
            return math.nan
    earlier = earlier_part(directory, status) if sweeping and not process_number() else None
    if sweeping:
        done = earlier is not None and earlier.status in ("completed", "pruned")
        begun = "" if earlier is None else " (done before)" if done else " (goes on)"
        print(f"{prefix}{' '.join(overrides)}{begun}", flush=True)
    if earlier is not None and earlier.status in ("completed", "pruned"):
        return _done_before(config, directory, earlier, prefix)
    if earlier is None and not process_number() and (taken := occupied(directory)) is not None:
        # nothing is written, or that run would have the status of this one
        code = report([taken], prefix)
        if sweeping:
            refuse(Path(hydra.sweep.dir), status.ended("failed", error=taken))
            return math.nan
        raise SystemExit(code)
    try:
        _write(status, directory)
        if sweeping and is_taken_over(Path(hydra.sweep.dir)):
            _write(status.ended("interrupted"), directory)
            return math.nan
        with at_work(partial(_stopped, status, directory)):
            objective = float(task(plain_with_options(config), directory, overrides))
        _write(status.ended("completed", objective=objective if math.isfinite(objective) else None), directory)
        return objective
    except Pruned as pruned:
        _write(status.ended("pruned", objective=pruned.best, error=str(pruned)), directory)
        print(f"{prefix}pruned {pruned}", flush=True)
        return pruned.best
    except Exception as error:
        reason = str(error) if isinstance(error, LoraSamError) else f"{type(error).__name__}: {error}"
        with suppress(LoraSamError):  # a full disk may be what failed
            _write(status.ended("failed", error=reason), directory)
        if full_errors():
            raise
        if isinstance(error, LoraSamError):
            code = report(reason.splitlines(), prefix)
        else:
            traceback.print_exc()
            code = BUG
    except SystemExit:  # a run that was asked to stop and has saved its state
        _stopped(status, directory)
        raise
    if sweeping:
        return math.nan
    raise SystemExit(code)


def _done_before(config: DictConfig, directory: Path, earlier: Status, prefix: str) -> float:
    """The objective of a job that is done, unless its settings or its data are others now: then NaN.

    What is there stays as it is, its `status.json` too.
    """
    from lora_sam.runs.unchanged import check_unchanged

    try:
        check_unchanged(directory, plain_with_options(config), earlier.overrides)
    except Exception as error:
        reason = str(error) if isinstance(error, LoraSamError) else f"{type(error).__name__}: {error}"
        report(reason.splitlines(), prefix)
        refuse(Path(HydraConfig.get().sweep.dir), earlier.ended("changed", error=reason))
        return math.nan
    assert earlier.objective is not None
    return earlier.objective


def occupied(directory: Path) -> str | None:
    """Why a new run may not use `directory`: an earlier one is there. Of one that came to nothing the rest goes."""
    found = [name for name in _RESULTS if (directory / name).exists()]
    if found:
        return (
            f"hydra.run.dir = {directory}: holds an earlier run ({', '.join(found)}), which is left as it is; leave it "
            f"out or name a new directory, or go on with that run in a new one: {typed_word('resume', directory)}"
        )
    if read_status(directory) is not None:  # else what has such a name may be anybody's
        for name in _REMAINS:
            path = directory / name
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return None


def _stopped(status: Status, directory: Path) -> str | None:
    """Note that a signal has ended the job; how to go on with it, None where it has saved nothing."""
    from lora_sam.core.run_directory import RunDirectory

    with suppress(LoraSamError):
        _write(status.ended("interrupted"), directory)
    if status.job is not None and is_elsewhere():  # the command of the sweep says the rest
        return f"job {status.job} goes on from its last saved state when the sweep does"
    if status.job is not None:
        return interrupt_sweep(Path(HydraConfig.get().sweep.dir), program())
    if not RunDirectory(directory).last.is_file():
        return None
    return f"what was trained is saved. Go on with: {program()} {typed_word('resume', directory)}"


def plain(config: DictConfig) -> dict[str, Any]:
    """`config` as plain mappings, lists and values, with interpolations resolved and `???` left in place.

    Settings classes that have moved are named where they are now, with a note on standard error.

    Raises:
        ConfigError: an interpolation names nothing, or a value that is not set.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{error.full_key or 'configuration'} cannot be resolved: {reason}") from error
    assert isinstance(values, dict)
    named, notes = with_new_names({str(key): value for key, value in values.items()})
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return named


def plain_with_options(config: DictConfig) -> dict[str, Any]:
    """`plain`, inside a function that `hydra.main` decorates, with the names that groups were chosen by."""
    return with_options(plain(config), HydraConfig.get().runtime.choices)


class Jobs(Callback):
    """Gives runs and sweeps directories of their own, and ends a sweep with a table and a page of its jobs.

    Named in `conf/hydra/callbacks/`; the base class is Hydra's interface and does nothing.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the run directory."""
        _claim(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the directory of the sweep, for its jobs as well."""
        for choice in engine_choices(config):
            if (missing := missing_engine(choice)) is not None:
                raise SystemExit(report([missing]))
        check_search(config)
        directory = _claim(config, "hydra.sweep.dir")
        if directory is not None:  # a job is composed anew, from overrides
            quoted = QuotedString(text=str(directory), quote=Quote.single).with_quotes()
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted}")
        if process_number():
            return
        begin_sweep(config)
        watch = None
        if not in_this_process(config):
            keep_engines_quiet()
            config.hydra.overrides.hydra.extend(environment_of_jobs(full_errors()))
            echo = "submitit" in str(config.hydra.launcher.get("_target_"))
            watch = Watch(Path(config.hydra.sweep.dir), note_job, echo=echo)
        sweep_begins(Path(config.hydra.sweep.dir), watch)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Bring the page of the sweep up to date."""
        if config.hydra.mode == RunMode.MULTIRUN and not process_number() and not is_elsewhere(config):
            note_job(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the jobs, the best first, and what to do next; exit with 1 if any job did not complete."""
        if not process_number():
            forget_sweep()
            end_sweep(Path(config.hydra.sweep.dir), program())


def _claim(config: DictConfig, key: str) -> Path | None:
    """Make the directory at `key`, numbered where another process has taken its name; None if it was left as it is.

    A directory that the user named is used as it is. Of several processes that train together only the first has a run
    directory; the others get one that is removed when they end.
    """
    if process_number():
        directory = Path(tempfile.mkdtemp(prefix="lora_sam."))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        config.hydra.output_subdir = None
        OmegaConf.update(config, key, str(directory))
        return directory
    if any(override.startswith(f"{key}=") for override in config.hydra.overrides.hydra):
        return None
    wanted = Path(str(OmegaConf.select(config, key)))
    with suppress(OSError):  # Hydra makes the directory next, and fails in the same way where it is seen
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            directory = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            with suppress(FileExistsError):
                directory.mkdir()
                OmegaConf.update(config, key, str(directory))
                return directory
    return None


def _write(status: Status, directory: Path) -> None:
    if not process_number():
        status.write(directory)


def process_number() -> int:
    """Number of this process among those that `torchrun` or `accelerate launch` started."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0
