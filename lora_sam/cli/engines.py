"""Jobs of a sweep that run in other processes than its command: what launchers need, and who may run which job."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lora_sam.core.calling import SCRIPT, training_called, typed_here
from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.extras import is_there, require_extra
from lora_sam.runs.status import Status, is_gone, read_status, this_process

TOKEN = "LORA_SAM_SWEEP"
"""In the environment of a job that runs elsewhere: which command it was started for."""

# extras of what is chosen
_NEEDS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=submitit_local": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/sweeper=optuna": "optuna",
}
_POLL_SECONDS = 0.5
_next_job = threading.Event()  # tells the thread that waits for a job of joblib that there is one


def missing_engine(choice: str) -> str | None:
    """Why a launcher or sweeper cannot be used, with the command that installs it; None where it is there.

    Args:
        choice: As it is typed, `hydra/launcher=joblib`.
    """
    if choice in _NEEDS:
        try:
            require_extra(_NEEDS[choice], choice)
        except ConfigError as error:
            return str(error)
    # without an extra of ours: it wants an older cloudpickle than joblib
    if choice == "hydra/launcher=ray" and not is_there("hydra_plugins.hydra_ray_launcher"):
        command = typed_here("pip install hydra-ray-launcher")
        return f"{choice}: needs the package hydra-ray-launcher, which is not installed: {command}"
    return None


def in_this_process(config: DictConfig) -> bool:
    """Whether the jobs of a sweep run one after the other in the process of its command."""
    return str(config.hydra.launcher.get("_target_", "")).endswith(".BasicLauncher")


def keep_engines_quiet() -> None:
    """Have Ray report to nobody, which it does unless told not to; what the user has set stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def environment_of_jobs(full_errors: bool) -> list[str]:
    """Gives every job the name of the command that starts it, through Hydra.

    Args:
        full_errors: Whether the user asked for tracebacks; this command asks Hydra for them in any case.
    """
    named = f"+hydra.job.env_set.{TOKEN}='{_token(this_process())}'"
    return [named] if full_errors else [named, "+hydra.job.env_set.HYDRA_FULL_ERROR=''"]


def is_elsewhere(config: DictConfig | None = None) -> bool:
    """Whether this process was started for a job by the launcher of a sweep.

    Args:
        config: That of the job, where the job is over and its environment gone.
    """
    return TOKEN in os.environ if config is None else TOKEN in config.hydra.job.env_set


def process_of_job() -> dict[str, Any]:
    """This process, with the command that it was started for."""
    token = os.environ.get(TOKEN)
    return this_process() if token is None else {**this_process(), "sweep": token}


def is_taken_over(sweep: Path) -> bool:
    """Whether the sweep that this job was started for was stopped, and another command goes on with it."""
    from lora_sam.runs.sweep import read_sweep

    token = os.environ.get(TOKEN)
    if token is None:
        return False
    try:
        return _token(read_sweep(sweep).process) != token
    except LoraSamError:  # nobody says so
        return False


@contextmanager
def ends_with_command() -> Iterator[None]:
    """Inside this context a job is at work; after it a process of joblib ends where its command was killed.

    It would wait for further jobs otherwise, for good and with a model in memory. Other launchers have a process for
    each job.
    """
    global _next_job
    token = os.environ.get(TOKEN)
    if token is None or not str(HydraConfig.get().launcher.get("_target_", "")).endswith(".JoblibLauncher"):
        yield
        return
    command = _process(token)
    _next_job.set()
    _end_where_gone(command)
    try:
        yield
    finally:
        _end_where_gone(command)
        _next_job = threading.Event()
        threading.Thread(target=_wait_for_next_job, args=(command, _next_job), daemon=True).start()


def _wait_for_next_job(command: Mapping[str, Any], next_job: threading.Event) -> None:
    while not next_job.wait(_POLL_SECONDS):
        _end_where_gone(command)


def _end_where_gone(command: Mapping[str, Any]) -> None:
    if is_gone(command):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # nobody waits for a result, and this may be any thread


def wait_for_another(directory: Path, say: Callable[[str], None]) -> None:
    """Wait where a process of an earlier command still runs the job in `directory`: nothing is run twice.

    A launcher's processes may outlive the command that was killed.

    Raises:
        ConfigError: it runs on another machine, where nobody here can tell whether it still does.
    """
    told = False
    while (status := read_status(directory)) is not None and _is_anothers(status):
        process = status.process
        if process.get("host") != platform.node():
            raise ConfigError(
                f"{directory}: runs in process {process.get('pid')} on {process.get('host')}; wait for it, then type "
                f"the same again (if that process is gone, remove {directory / 'status.json'} first)"
            )
        if not told:
            say(f"still runs in process {process.get('pid')} of a command that was stopped; waiting for its end")
            told = True
        time.sleep(_POLL_SECONDS)


def _is_anothers(status: Status) -> bool:
    if status.status != "running" or not status.process:
        return False
    mine = process_of_job()
    if {key: status.process.get(key) for key in ("host", "pid", "began")} == this_process():
        return False
    # a launcher starts a job for the second time only after the first process has ended, as a queue does
    return "sweep" not in mine or status.process.get("sweep") != mine["sweep"]


def _token(process: Mapping[str, Any]) -> str:
    return ":".join(str(process.get(key)) for key in ("host", "pid", "began"))


def _process(token: str) -> dict[str, Any]:
    """The process that `_token` names."""
    host, pid, began = token.rsplit(":", 2)
    return {"host": host, "pid": int(pid), "began": int(began) if began.isdigit() else None}


class Watch:
    """Brings the page of a sweep up to date while its jobs run elsewhere, and says what becomes of them.

    Attributes:
        directory: That of the sweep.
    """

    def __init__(self, directory: Path, note: Callable[[Path], None], *, echo: bool) -> None:
        """Start watching.

        Args:
            directory: That of the sweep.
            note: Writes `sweep.json` and page.
            echo: Whether what jobs print does not come here: say when each begins, and how it failed.
        """
        self.directory = directory
        self._note, self._echo = note, echo
        self._since = time.time()
        self._told: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Say what is left to be said, and end."""
        self._over.set()
        self._thread.join(timeout=10)
        with suppress(LoraSamError):
            self._tell()

    def _run(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            self._note(self.directory)
            with suppress(LoraSamError):
                self._tell()

    def _tell(self) -> None:
        from lora_sam.runs.sweep import collect

        if not self._echo:
            return
        for job in collect(self.directory, "running").jobs:
            before = self._told.get(job.job)
            if job.state in ("missing", before):
                continue
            self._told[job.job] = job.state
            if before is None:
                print(f"job {job.job}: {' '.join(job.overrides)}", flush=True)
            if job.state in ("failed", "changed"):
                print(f"job {job.job}: error: {job.error}", file=sys.stderr, flush=True)
            elif job.state in ("killed", "interrupted", "pruned"):
                print(f"job {job.job}: {job.state} {job.error or ''}".rstrip(), file=sys.stderr, flush=True)


def program() -> str:
    """How the training command was called: `python train.py`, or `lora-sam train` of an installed package."""
    known = training_called()
    # a process that a launcher began knows its words only
    return "lora-sam train" if known == SCRIPT and Path(sys.argv[0]).name.startswith("lora-sam") else known
