"""Everything a run needs to go on exactly where it stopped, as one safetensors file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError
from lora_sam.core.files import atomic_path
from lora_sam.data.reading.paths import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from lora_sam.training.averaging import RunningMean

SCHEMA_VERSION = 1


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: Optimiser steps done.
        epoch: Current epoch, from 0.
        batch: Micro-batches of this epoch that are done.
        best: Highest validation IoU so far, that of the base included, or None before the first validation.
        best_step: The step it was measured at; 0 is the base.
        base: Validation IoU of the base, measured before the first step; None in states that are older than this field.
        base_sums: What it is the mean of, by `chance.ClusterSums`; empty where that was not kept.
        trained: Highest validation IoU so far after a step, which early stopping counts from; None before the first.
        validations_without_gain: Consecutive ones, for early stopping.
        nonfinite: Steps skipped so far because of NaN or infinity.
        seconds: Time spent training, earlier parts of a resumed run included.
        finished: Whether the limits or early stopping have ended the run.
        sums: Losses since the last line of the log, so that a resumed log continues the same means.
        arithmetic: How the run computes, `Arithmetic` as plain values; empty in states that are older than this field.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_step: int = 0
    base: float | None = None
    base_sums: list[list[float]] = field(default_factory=list)
    trained: float | None = None
    validations_without_gain: int = 0
    nonfinite: int = 0
    seconds: float = 0.0
    finished: bool = False
    sums: dict[str, float] = field(default_factory=dict)
    arithmetic: dict[str, Any] = field(default_factory=dict)


def save_state(
    path: Path,
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer | None = None,
    mean: RunningMean | None = None,
) -> None:
    """Write weights, their running mean, optimiser, random state and progress to one safetensors file, atomically.

    Without an optimiser only weights and progress are written (the best checkpoint).

    Raises:
        TrainingError: the disk is full or read-only.
    """
    tensors = {f"model.{name}": parameter.detach() for name, parameter in parameters.items()}
    if mean is not None:
        tensors.update({f"mean.{name}": value for name, value in mean.weights.items()})
    if optimizer is not None:
        tensors["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
    contiguous = {key: value.contiguous().cpu() for key, value in tensors.items()}
    metadata = {"format": "pt", "schema_version": str(SCHEMA_VERSION), "progress": json.dumps(asdict(progress))}
    metadata["sha256"] = _digest(contiguous, metadata["progress"])
    data = save(contiguous, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_state(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer | None = None,
    mean: RunningMean | None = None,
) -> Progress:
    """The inverse of `save_state`, in place.

    Raises:
        AdapterError: the file is missing or damaged, or belongs to another model or method.
    """
    tensors, progress = _read(path)
    saved = {key.removeprefix("model.") for key in tensors if key.startswith("model.")}
    if saved != parameters.keys():
        odd = sorted(saved ^ set(parameters))[0]
        raise AdapterError(
            f"{path}: was saved by another model or method ({odd} is only on one side); "
            "resume with the configuration of that run"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            value = tensors[f"model.{name}"]
            if value.shape != parameter.shape:
                raise AdapterError(
                    f"{path}: {name} has shape {list(value.shape)}, the model needs {list(parameter.shape)}; "
                    "resume with the configuration of that run"
                )
            parameter.copy_(value)
    if mean is not None:
        _load_mean(path, tensors, mean)
    if optimizer is not None:
        _load_optimizer(path, tensors, parameters, optimizer)
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])
    return progress


def read_progress(path: Path) -> Progress:
    """The progress stored in a state file, without its tensors. Raises `AdapterError` as `load_state` does."""
    return _read(path, tensors=False)[1]


def _read(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], Progress]:
    if not path.is_file():
        raise AdapterError(f"{path} is missing: nothing was saved there yet; start a new run without resume=")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names = file.keys() if tensors else []
            found = {key: file.get_tensor(key) for key in names}
        if metadata.get("schema_version") != str(SCHEMA_VERSION):
            raise AdapterError(
                f"{path}: schema version {metadata.get('schema_version')}, this lora_sam reads {SCHEMA_VERSION}; "
                "use the version of lora_sam that wrote it"
            )
        if tensors:
            _check_saved(path, found, metadata)
        values: dict[str, Any] = json.loads(metadata["progress"])
        unknown = sorted(values.keys() - {one.name for one in fields(Progress)})
        if unknown:
            raise AdapterError(
                f"{path}: has {shown(unknown[0])} in its progress, which this lora_sam does not know; use the version "
                "of lora_sam that wrote it"
            )
        return found, Progress(**values)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise AdapterError(f"{path} is damaged ({error}); start a new run without resume=") from error


def _check_saved(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raise `AdapterError` if tensors or progress are not what was saved; without a digest a note says so."""
    recorded = metadata.get("sha256")
    if recorded is None:
        note(f"{path}: made without a digest, so that nobody can tell whether it is what was saved")
    elif _digest(tensors, metadata["progress"]) != recorded:
        raise AdapterError(f"{path} is damaged (it is not what was saved); start a new run without resume=")


def _digest(tensors: Mapping[str, Tensor], progress: str) -> str:
    """SHA-256 of progress and of all tensors: names, types, shapes and values."""
    digest = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load_mean(path: Path, tensors: Mapping[str, Tensor], mean: RunningMean) -> None:
    for name, value in mean.weights.items():
        saved = tensors.get(f"mean.{name}")
        if saved is None or saved.shape != value.shape:
            raise AdapterError(f"{path} holds no running mean of {name}; resume with the configuration of that run")
        value.copy_(saved)


def _load_optimizer(
    path: Path, tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> None:
    if "rng.cpu" not in tensors:
        raise AdapterError(f"{path} holds weights only; resume from checkpoints/last")
    for name, parameter in parameters.items():
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }
