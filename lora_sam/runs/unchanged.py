"""Whether a job of a sweep that was begun earlier is still the one that is asked for: same settings, same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import read_json
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.places import check_contents, check_weights
from lora_sam.runs.resuming import completed, flat, resumed_config

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits
    from lora_sam.training.settings import Settings

# what changes no figure of a run
FREE = (
    "trainer.workers",
    "trainer.log_every_steps",
    "trainer.save_every_steps",
    "trainer.overlays",
    "trainer.memory_gb",
    "cache.directory",
    "cache.max_gb",
    "tracker",
)
_opened: dict[str, Splits] = {}  # the jobs of a sweep mostly share their data
_weights: dict[str, str | None] = {}  # and their base


def check_unchanged(directory: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise unless the run in `directory` was made from these settings and these data.

    Args:
        directory: Run directory of the job.
        config: The configuration composed now.
        overrides: Its task overrides.

    Raises:
        AdapterError: its files are damaged, or the base weights differ.
        ConfigError: a setting differs.
        DataError: the data differ, or cannot be read.
    """
    from lora_sam.training.settings import settings_from

    now = resumed_config(config, overrides)
    check_config(directory, now)
    settings = settings_from(now)
    run = RunDirectory(directory)
    check_contents(str(directory), run, _data_of(settings))
    check_weights(str(directory), run, _weights_of(settings))


def check_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if a setting that could change a figure is not that of the run in `directory`.

    Args:
        directory: Run directory of the job.
        config: Its whole configuration now.
    """
    path = RunDirectory(directory).saved_config
    if not path.is_file():
        raise AdapterError(f"{path} is missing, so that nobody can tell what this job was; remove {directory}")
    saved, _ = completed(read_json(path, f"remove {directory}, and the job is run again"))
    before, now = flat(saved), flat(config)
    other = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not any(key == free or key.startswith(f"{free}.") for free in FREE)
    ]
    if other:
        key, more = other[0], len(other) - 1
        raise ConfigError(
            f"{directory}: {key} was {before.get(key)!r} when this job was run and is {now.get(key)!r} now"
            + (f" ({more} more differ)" if more else "")
            + "; its result stays. Put that back, or name a new hydra.sweep.dir"
        )


def _data_of(settings: Settings) -> Splits:
    """The data of a job, read once for all jobs with the same."""
    key = repr(settings.data_key)
    if key not in _opened:
        _opened.clear()  # one set at a time: jobs with other data come one after the other
        _opened[key] = settings.open_data()
    return _opened[key]


def _weights_of(settings: Settings) -> str | None:
    """SHA-256 of the base of a job, read once for all jobs with the same file."""
    from lora_sam.models.checkpoints import sha256_now

    key = repr(settings.model)
    if key not in _weights:
        _weights.clear()
        _weights[key] = sha256_now(settings.model)
    return _weights[key]
