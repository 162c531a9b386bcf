"""Packages that only a part of the product needs, as in pyproject.toml, and what to type where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from lora_sam.core.calling import typed_here
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


def is_there(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
