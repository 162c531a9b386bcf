"""Go on with an interrupted run: its configuration, its state, in a new directory."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_sam.artifacts import RunDirectory, find_run
from lora_sam.errors import AdapterError, ConfigError
from lora_sam.files import atomic_path, read_json

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
    now, before = flat(config), flat(saved)
    keys = now.keys() | before.keys()
    typed = {override.partition("=")[0].lstrip("+~") for override in overrides} - {"resume"}
    # What was typed counts, all else comes from the run. But an option that is no key itself, such as experiment=, may
    # have set anything: then everything composed now has to agree.
    roots = typed if all(any(_within(key, root) for key in keys) for root in typed) else {*config, *saved} - {"resume"}
    compared = sorted(key for key in keys if any(_within(key, root) for root in roots))
    refused = [key for key in compared if not _is_free(key) and now.get(key) != before.get(key)]
    if refused:
        key, more = refused[0], len(refused) - 1
        raise ConfigError(
            f"resume={name}: {key} was {before.get(key)!r} in that run and is {now.get(key)!r} now"
            + (f" ({more} more differ)" if more else "")
            + f"; a resumed run may only change {', '.join(FREE_TO_CHANGE)}. Leave the others out"
        )
    result = copy.deepcopy(saved)
    for root in roots:
        for free in FREE_TO_CHANGE:
            if _within(root, free) or _within(free, root):
                _copy_key(root if _within(root, free) else free, config, result)
    result["resume"] = str(name)
    return result


def copy_state(name: str, output_dir: Path) -> Path:
    """Copy record and checkpoints of the run `name` into `output_dir`; the old directory stays as it is.

    Returns:
        The state file to resume from.

    Raises:
        AdapterError: that run has saved no state.
        ConfigError: `output_dir` is that run's own directory.
        TrainingError: the disk is full or read-only.
    """
    old, new = find_run(name), RunDirectory(output_dir)
    if not old.last.is_file():
        raise AdapterError(f"resume={name}: {old.last} is missing: that run ended before it saved anything")
    if output_dir.resolve() == old.root:
        raise ConfigError(f"resume={name}: hydra.run.dir is the directory of that run; leave it out or name a new one")
    for source, target in ((old.metrics, new.metrics), (old.best, new.best), (old.last, new.last)):
        if source.is_file():
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    return new.last


def _saved_config(name: str) -> dict[str, Any]:
    path = find_run(name).saved_config
    if not path.is_file():
        raise AdapterError(f"resume={name}: {path} is missing: that run ended before its first step")
    return read_json(path, "start a new run without resume=")


def _within(key: str, root: str) -> bool:
    return key == root or key.startswith(f"{root}.")


def _is_free(key: str) -> bool:
    return any(_within(key, free) for free in FREE_TO_CHANGE)


def _copy_key(key: str, source: Mapping[str, Any], target: dict[str, Any]) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if parent not in source or not isinstance(target.get(parent), dict):
            return
        source, target = source[parent], target[parent]
    if last in source:
        target[last] = source[last]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one mapping with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result
