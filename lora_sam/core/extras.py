"""Packages that only a part of the product needs, as in pyproject.toml, and what to type where one is missing."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from lora_sam.core.errors import ConfigError

EXTRAS: dict[str, tuple[str, ...]] = {
    "app": ("gradio",),
    "deploy": ("openvino", "nncf"),
    "onnx": ("onnx",),
    "joblib": ("hydra-joblib-launcher",),
    "submitit": ("hydra-submitit-launcher", "submitit"),
    "optuna": ("optuna",),
    "mlflow": ("mlflow-skinny",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Packages of each extra, by the name under which they are installed."""

_MODULES = {
    "hydra-joblib-launcher": "hydra_plugins.hydra_joblib_launcher",
    "hydra-submitit-launcher": "hydra_plugins.hydra_submitit_launcher",
    "mlflow-skinny": "mlflow",
}
"""Where that is not the name under which they are imported."""


def require_extra(extra: str, purpose: str) -> None:
    """Raise `ConfigError` where a package of the extra is not installed; nothing is imported.

    Args:
        extra: Key of `EXTRAS`.
        purpose: What needs it, the beginning of the message.
    """
    missing = [name for name in EXTRAS[extra] if not is_there(_MODULES.get(name, name))]
    if missing:
        packages, verb = ("package", "is") if len(missing) == 1 else ("packages", "are")
        raise ConfigError(
            f"{purpose}: needs the {packages} {' and '.join(missing)}, which {verb} not installed: "
            f"{typed_here(' '.join(['pip install', *missing]))}"
        )


def typed_here(command: str) -> str:
    """A command of this environment as it has to be typed: with its path where the shell would take another."""
    name, *words = command.split(" ")
    own = Path(sysconfig.get_path("scripts"), name)
    if not own.exists() or Path(shutil.which(name) or os.devnull).absolute() == own:
        return command
    shown = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    return " ".join([str(shown), *words])


def is_there(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
