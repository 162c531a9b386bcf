"""Trackers of other projects beside TensorBoard: MLflow, Weights & Biases, trackio; the same keys, a sweep as a group.

Each is behind `guarded`: one that is down or fails is off for the rest of the run. A run that goes on is a new run of
the tracker, with its curves from the beginning.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.extras import require_extra
from lora_sam.core.run_directory import SWEEP
from lora_sam.training.tracking import Tracker, guarded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Name = Annotated[str, Field(min_length=1)]

# what reports home, and what would wait for minutes for a server that is down; what the user has set stays
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
}


def place_of(run_directory: Path) -> tuple[str, str | None]:
    """What a run is called, and its group: the sweep that it is a job of, or None."""
    directory = run_directory.resolve()
    inside = (directory.parent / SWEEP).is_file()
    sweep = "/".join(directory.parent.parts[-2:]) if inside else None
    name = directory.name if inside else "/".join(directory.parts[-2:])
    return name, sweep


@dataclass(frozen=True, kw_only=True)
class MLflow:
    """MLflow, by its client: `pip install mlflow-skinny`.

    Attributes:
        uri: Where it keeps runs: a directory, or the address of a server; null is MLflow's own choice.
        experiment: Name that runs are listed under.
    """

    uri: Name | None
    experiment: Name

    def require(self) -> None:
        """Raise `ConfigError` where the package is not installed."""
        require_extra("mlflow", "tracker=mlflow")

    def open(self, run_directory: Path) -> Tracker:
        """Begin a run of the tracker; where that fails, warn and track nothing."""
        return guarded("MLflow", lambda: _MLflowRun(self, *place_of(run_directory)))


@dataclass(frozen=True, kw_only=True)
class WandB:
    """Weights & Biases: `pip install wandb`.

    Attributes:
        project: Name that runs are listed under.
        mode: `offline` keeps runs on this machine, for `wandb sync`; `online` sends them to the server.
    """

    project: Name
    mode: Literal["offline", "online"]

    def require(self) -> None:
        """Raise `ConfigError` where the package is not installed."""
        require_extra("wandb", "tracker=wandb")

    def open(self, run_directory: Path) -> Tracker:
        """Begin a run of the tracker; where that fails, warn and track nothing."""

        def start() -> Tracker:
            wandb = _module("wandb")
            settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, init_timeout=30)
            return _Wandb(wandb, run_directory, self.project, dir=str(run_directory), mode=self.mode, settings=settings)

        return guarded("Weights & Biases", start)


@dataclass(frozen=True, kw_only=True)
class Trackio:
    """trackio, which keeps runs on this machine and speaks as Weights & Biases does: `pip install trackio`.

    Attributes:
        project: Name that runs are listed under.
    """

    project: Name

    def require(self) -> None:
        """Raise `ConfigError` where the package is not installed."""
        require_extra("trackio", "tracker=trackio")

    def open(self, run_directory: Path) -> Tracker:
        """Begin a run of the tracker; where that fails, warn and track nothing."""
        return guarded("trackio", lambda: _Wandb(_module("trackio"), run_directory, self.project))


def _module(name: str) -> Any:
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    return importlib.import_module(name)


class _MLflowRun:
    def __init__(self, options: MLflow, name: str, group: str | None) -> None:
        mlflow = _module("mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=options.uri)
        known = self._client.get_experiment_by_name(options.experiment)
        experiment = self._client.create_experiment(options.experiment) if known is None else known.experiment_id
        tags = {"mlflow.runName": name, **({} if group is None else {"lora_sam.sweep": group})}
        self._run = self._client.create_run(experiment, tags=tags).info.run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._client.log_metric(self._run, key, float(value), step=step)

    def image(self, step: int, name: str, array: NDArray[np.uint8]) -> None:
        # ids of images may hold anything
        file = re.sub(r"[^\w.-]", "_", name)
        self._client.log_image(self._run, array, artifact_file=f"pictures/{file}/{step:06d}.png")

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        for key, value in config.items():
            self._client.log_param(self._run, key, str(value)[:500])
        for key, value in metrics.items():
            self._client.log_metric(self._run, key, float(value))

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _Wandb:
    """Weights & Biases, and what speaks as it does."""

    def __init__(self, module: Any, run_directory: Path, project: str, **more: Any) -> None:
        self._module = module
        name, group = place_of(run_directory)
        self._run = module.init(project=project, name=name, group=group, **more)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, array: NDArray[np.uint8]) -> None:
        self._run.log({name: self._module.Image(array)}, step=step)

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        for key, value in config.items():
            self._run.config[key] = value
        self._run.log(dict(metrics))

    def close(self) -> None:
        self._run.finish()
