"""Training as a function: the same settings, checks, files and errors as `train.py`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.runs.run import Run

if TYPE_CHECKING:
    from lora_sam.runs.status import Status

_ONE_AT_A_TIME = threading.RLock()  # Hydra, and torch's random numbers, are those of the whole process


def train(
    data: str | PathLike[str] | None = None, *, output: str | PathLike[str] | None = None, **overrides: Any
) -> Run:
    """Fine-tune on labelled images, compare with the base, and return the run; what `train.py` does.

    Threads may call it; they train one after the other.

    Args:
        data: Directory of labelled images, as `data.root=`. Without it and without overrides, the demo.
        output: Directory of the run; None makes a new one below `outputs/`.
        overrides: As on the command line: `model="nano"`, `method="decoder"`. Keys with dots have `__` for the dot
            (`trainer__max_epochs=3`), or come as a mapping (`trainer={"max_epochs": 3}`).

    Returns:
        The run.

    Raises:
        LoraSamError: what the command says, found before training starts where possible.
        KeyboardInterrupt: it was interrupted, once its state is saved; `resume="latest"` goes on.
    """
    with _ONE_AT_A_TIME:
        return _trained(data, output, overrides)


def _trained(data: str | PathLike[str] | None, output: str | PathLike[str] | None, overrides: Mapping[str, Any]) -> Run:
    from lora_sam.cli.train import DEMO, fine_tune

    words = [*_words("data.root", data), *(word for key, value in overrides.items() for word in _words(key, value))]
    config, directory = _composed(words or [DEMO])
    directory = Path(output) if output is not None else _made(directory)
    _refuse_occupied(directory)
    status = _begun(directory, words)
    try:
        objective = fine_tune(config, directory, words)
    except SystemExit as ended:  # asked to stop, and everything is saved
        status.ended("interrupted").write(directory)
        raise KeyboardInterrupt(f"interrupted; train(resume={str(directory)!r}) goes on") from ended
    except BaseException as error:
        kind = "failed" if isinstance(error, Exception) else "interrupted"
        with suppress(LoraSamError):  # a full disk may be what failed
            status.ended(kind, error=str(error) or type(error).__name__).write(directory)
        raise
    status.ended("completed", objective=objective if math.isfinite(objective) else None).write(directory)
    return Run(directory)


def _words(key: str, value: Any) -> Iterator[str]:
    """Overrides as they are typed; a mapping gives several, None for what was left out none."""
    from lora_sam.core.calling import quoted

    name = key.replace("__", ".")
    if isinstance(value, Mapping):
        for inner, one in value.items():
            yield from _words(f"{name}.{inner}", one)
    elif key != "data.root" or value is not None:
        yield f"{name}={_typed(value, quoted)}"


def _typed(value: Any, quoted: Any) -> str:
    if getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | PathLike):
        return str(quoted(fspath(value)))
    if isinstance(value, Sequence):
        return "[" + ",".join(_typed(one, quoted) for one in value) + "]"
    return repr(value)


def _composed(words: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """The configuration as plain values, and the directory that Hydra would give the run.

    Raises:
        ConfigError: as the command says it.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from lora_sam.cli.jobs import plain
    from lora_sam.cli.overrides import explain
    from lora_sam.core.chosen import with_options
    from lora_sam.core.conf_files import conf_directory

    conf = conf_directory()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
            hydra = compose("train", overrides=list(words), return_hydra_config=True).hydra
            directory = Path(str(hydra.run.dir))
            config = compose("train", overrides=list(words))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError("\n".join(explain(error, list(words), conf, "train"))) from error
    return with_options(plain(config), hydra.runtime.choices), directory


def _made(wanted: Path) -> Path:
    """A new directory, numbered where another run has taken its name."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        directory = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with suppress(FileExistsError):
            directory.mkdir()
            return directory
    raise AssertionError


def _refuse_occupied(directory: Path) -> None:
    from lora_sam.cli.jobs import occupied

    reason = occupied(directory)
    if reason is not None:
        raise ConfigError(reason.replace("hydra.run.dir = ", "output = ", 1))


def _begun(directory: Path, words: Sequence[str]) -> Status:
    from lora_sam.runs.status import Status

    directory.mkdir(parents=True, exist_ok=True)
    status = Status(status="running", job=None, overrides=list(words), started=time.time())
    status.write(directory)
    return status
