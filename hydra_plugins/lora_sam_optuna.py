"""`hydra/sweeper=optuna`: the plugin that Hydra finds by its place; what it does is in `lora_sam.cli.search`."""

# without `from __future__ import annotations`: Hydra executes a plugin before it is among the modules, where a
# dataclass looks for the names of its types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class OptunaConf:
    """Options of the sweeper.

    Attributes:
        n_trials: Jobs in all; a sweep that goes on runs those that are missing.
        batch_size: Jobs that are chosen at once, for launchers that run several at a time.
        seed: Of what is chosen: job n depends on it, on n, and on the jobs that were done before.
        startup_trials: Jobs that are drawn at random, and that have to be done before one is pruned.
        prune: End jobs whose validation IoU is below the median of the others at the same epoch.
        prune_warmup: Epochs in which no job is pruned.
    """

    _target_: str = "hydra_plugins.lora_sam_optuna.OptunaSweeper"
    n_trials: int = 20
    batch_size: int = 1
    seed: int = 0
    startup_trials: int = 5
    prune: bool = True
    prune_warmup: int = 2
    params: dict[str, str] | None = field(default=None)


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="lora_sam")


class OptunaSweeper(Sweeper):
    """Asks Optuna for values, job by job, and tells it the validation IoU."""

    def __init__(self, **options: Any) -> None:
        """Keep the options of `OptunaConf`."""
        self.options = options
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all jobs that are missing.

        Args:
            arguments: Overrides, some with a range of values.
        """
        from lora_sam.cli.search import run_search

        assert self.config is not None
        assert self.launcher is not None
        directory = Path(str(self.config.hydra.sweep.dir))
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")

        def launch(jobs: Sequence[Sequence[str]], first: int) -> Sequence[Any]:
            self.validate_batch_is_legal(jobs)
            assert self.launcher is not None
            return self.launcher.launch([list(job) for job in jobs], initial_job_idx=first)

        run_search(directory, self.config, arguments, launch)
