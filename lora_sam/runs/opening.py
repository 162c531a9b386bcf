"""The model that predicts: the run's back end as `backend=` and `adapter=` name it, and what identifies it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import ConfigError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.unknown import nearest_of
from lora_sam.evaluation.backends.names import BACK_ENDS, TORCH
from lora_sam.runs.backends import RunBackEnds

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor


def back_end_of(backend: str, *, adapter: bool) -> str:
    """The name in `BACK_ENDS`. Raises `ConfigError` where there is none, or the adapter cannot be left out."""
    if backend != TORCH and backend not in BACK_ENDS:
        near = nearest_of(backend, [TORCH, *BACK_ENDS])
        raise ConfigError(
            f"backend = {backend}: must be one of {', '.join([TORCH, *BACK_ENDS])}"
            + (f"; did you mean {near}?" if near else "")
        )
    if backend == TORCH:
        return "tuned" if adapter else "base"
    if not adapter and backend != "base":
        raise ConfigError(
            f"adapter = false: the weights of backend = {backend} have the adapter in them; only backend=torch "
            "can leave it out"
        )
    return backend


def check_device(name: str, device: str) -> None:
    """Raise `ConfigError` where the device is not there, or a back end cannot compute on it."""
    if BACK_ENDS[name].runtime == "torch":
        from lora_sam.models.device import pick_device

        try:
            pick_device(device)
        except ConfigError as error:
            raise ConfigError(str(error).replace("trainer.device", "device", 1)) from error
    elif device not in ("auto", "cpu"):
        raise ConfigError(
            f"device = {device}: backend = {name} computes on the CPU here; leave it out, or backend=torch"
        )


def identity(run: RunDirectory, name: str, base: Path | None) -> dict[str, str]:
    """SHA-256 of everything that decides what a back end predicts.

    Raises:
        AdapterError: it is not there, not whole, or not of this run; names the command that makes it.
    """
    origin = RunBackEnds(run, base)
    origin.require([name])
    found = origin.digests([name])
    wanted = {"base": ("base",), "tuned": ("adapter", "base")}.get(name, tuple(found))
    return {key: found[key] for key in wanted}


def open_model(run: RunDirectory, name: str, *, base: Path | None, device: str, threads: int | None) -> Predictor:
    """The predictor.

    Raises:
        AdapterError: files are missing or damaged.
        CheckpointError: the base weights are not found.
        ConfigError: the device is not there.
    """
    if BACK_ENDS[name].runtime == "openvino":
        return RunBackEnds(run, base).open([name], threads=threads)[name]
    from lora_sam.models.device import pick_device

    opened: Any = RunBackEnds(run, base).open([name], threads=threads)[name]
    opened.sam.to(pick_device(device))
    return opened  # type: ignore[no-any-return]
