"""Go on with an interrupted run: its configuration, its state, in a new directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_sam.artifacts import RunDirectory, find_run
from lora_sam.errors import AdapterError, ConfigError

# what may differ between a run and its continuation
FREE_TO_CHANGE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.workers",
    "trainer.log_every_steps",
    "trainer.save_every_steps",
    "trainer.overlays",
    "evaluate_split",
    "tracker",
)


def resumed_config(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run named by `config["resume"]`, with the changes that a continuation may make.

    Args:
        config: The configuration composed now; returned unchanged if it resumes nothing.
        overrides: What the user typed, as Hydra's task overrides (`key=value`).

    Raises:
        AdapterError: there is no such run, or it has saved no state.
        ConfigError: something other than limits and logging differs.
    """
    name = config.get("resume")
    if name is None:
        return dict(config)
    saved = _saved_config(str(name))
    now, before = _flat(config), _flat(saved)
    typed = {override.partition("=")[0].lstrip("+~") for override in overrides} - {"resume"}
    # with nothing but free keys typed, the run's own configuration counts; otherwise what was composed has to agree
    keys = typed if all(_is_free(key) for key in typed) else now.keys() | before.keys()
    changed = [key for key in sorted(keys) if key != "resume" and now.get(key) != before.get(key)]
    refused = [key for key in changed if not _is_free(key)]
    if refused:
        key, more = refused[0], len(refused) - 1
        raise ConfigError(
            f"resume={name}: {key} was {before.get(key)!r} in that run and is {now.get(key)!r} now"
            + (f" ({more} more differ)" if more else "")
            + f"; a resumed run may only change {', '.join(FREE_TO_CHANGE)}. Leave the others out"
        )
    result: dict[str, Any] = json.loads(json.dumps(saved))
    for key in keys:
        if _is_free(key):
            _copy_key(key, config, result)
    result["resume"] = str(name)
    return result


def copy_state(name: str, output_dir: Path) -> Path:
    """Copy record and checkpoints of the run `name` into `output_dir`; the old directory stays as it is.

    Returns:
        The state file to resume from.

    Raises:
        AdapterError: that run has saved no state.
    """
    old, new = find_run(name), RunDirectory(output_dir)
    if not old.last.is_file():
        raise AdapterError(f"resume={name}: {old.last} is missing: that run ended before it saved anything")
    for source, target in ((old.metrics, new.metrics), (old.best, new.best), (old.last, new.last)):
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return new.last


def _saved_config(name: str) -> dict[str, Any]:
    path = find_run(name).saved_config
    if not path.is_file():
        raise AdapterError(f"resume={name}: {path} is missing: that run ended before its first step")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AdapterError(f"resume={name}: {path} is damaged ({error}); start a new run without resume=") from error
    if not isinstance(saved, dict):
        raise AdapterError(f"resume={name}: {path} is damaged (not a mapping); start a new run without resume=")
    return saved


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def _copy_key(key: str, source: Mapping[str, Any], target: dict[str, Any]) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if parent not in source or not isinstance(target.get(parent), dict):
            return
        source, target = source[parent], target[parent]
    if last in source:
        target[last] = source[last]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
