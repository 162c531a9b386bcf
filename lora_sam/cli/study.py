"""The study of Optuna in the directory of a sweep: its journal, and whether the job that runs now is to be pruned."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

STUDY = "optuna.journal"
"""In the directory of the sweep: all that Optuna was asked and told, a line each."""

_NAME = "sweep"
_LOG = logging.getLogger(__name__)

ShouldStop: TypeAlias = "Callable[[int, float], str | None]"


def is_search(config: DictConfig) -> bool:
    """Whether Optuna chooses the values of a sweep."""
    return str(config.hydra.sweeper.get("_target_", "")).endswith(".OptunaSweeper")


def open_study(directory: Path, options: DictConfig) -> Study:
    """The study in the directory of a sweep, begun where there is none.

    Args:
        directory: That of the sweep.
        options: Those of the sweeper.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=options.startup_trials, n_warmup_steps=options.prune_warmup)
    storage = JournalStorage(JournalFileBackend(str(directory / STUDY)))
    return optuna.create_study(
        storage=storage,
        study_name=_NAME,
        direction="maximize",
        load_if_exists=True,
        pruner=pruner if options.prune else optuna.pruners.NopPruner(),
    )


def mend(path: Path) -> None:
    """Cut off a last line that a kill has left without its end: Optuna would read no further."""
    from optuna.storages.journal import JournalFileSymlinkLock

    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def pruning() -> ShouldStop | None:
    """Whether Optuna wants no more of the job that runs now; None where nobody is to be asked."""
    if not HydraConfig.initialized() or os.environ.get("WORLD_SIZE", "1") != "1":
        return None
    config: Any = HydraConfig.instance().cfg
    hydra = config.hydra
    if hydra.mode != RunMode.MULTIRUN or not is_search(config) or not hydra.sweeper.prune:
        return None
    return _Pruning(Path(str(hydra.sweep.dir)), int(hydra.job.num), hydra.sweeper)


class _Pruning:
    def __init__(self, directory: Path, job: int, options: DictConfig) -> None:
        self._directory, self._job, self._options = directory, job, options
        self._trial: Trial | None = None
        self._off = False

    def __call__(self, epoch: int, value: float) -> str | None:
        if self._off:
            return None
        try:
            return self._ask(epoch, value)
        except Exception as error:  # a full disk, say: no reason to lose a job
            self._off = True
            _LOG.warning("Optuna cannot be asked (%s): this job is not pruned", " ".join(str(error).split()))
            return None

    def _ask(self, epoch: int, value: float) -> str | None:
        from optuna.trial import Trial, TrialState

        if self._trial is None:
            study = open_study(self._directory, self._options)
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            found = next((trial for trial in running if trial.number == self._job), None)
            self._off = found is None  # one that failed before, which Optuna keeps as it is
            if found is None:
                return None
            self._trial = Trial(study, found._trial_id)
        known = self._trial.study.get_trials(deepcopy=False)[self._job].intermediate_values
        if epoch not in known:  # a job that goes on says some again
            self._trial.report(value, epoch)
        if not self._trial.should_prune():
            return None
        return f"at epoch {epoch}: validation IoU {value:.4f} is below the median of the other jobs there"
