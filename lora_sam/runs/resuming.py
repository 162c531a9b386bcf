"""Read the configuration of a run back, and go on with it: its configuration, its state, in a new directory."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.chosen import OPTION
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.config import class_of_step
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import atomic_path, read_json
from lora_sam.core.moved import BEFORE, with_new_names
from lora_sam.core.run_directory import RunDirectory, find_run, last_started
from lora_sam.runs.places import placed
from lora_sam.runs.status import read_status
from lora_sam.training.settings import GROUPS, RUN_KEYS

if TYPE_CHECKING:
    from lora_sam.training.settings import Settings


# what may differ between a run and its continuation
FREE_TO_CHANGE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.workers",
    "trainer.log_every_steps",
    "trainer.save_every_steps",
    "trainer.overlays",
    "trainer.memory_gb",
    "trainer.plan",
    "cache.directory",
    "cache.max_gb",
    "data.root",
    "evaluate_split",
    "evaluate_automatic",
    "evaluate_clicks",
    "evaluate_images",
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
    if name == "latest":
        _tell_of_a_later_run()
    saved, filled = completed(_saved_config(str(name)))
    saved = placed(saved, find_run(str(name)))
    if filled:
        print(
            f"resume={name}: that run is older than {', '.join(filled)}; taken from the files in conf/", file=sys.stderr
        )
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


def _tell_of_a_later_run() -> None:
    """Say that `latest` is not the run that was started last, if it is not."""
    run, later = find_run("latest"), last_started()
    if later is None or later.root == run.root:
        return
    status = read_status(later.root)
    became = "" if status is None else f" ({status.status})"
    what = "has a state of its own" if later.last.is_file() else "has saved nothing to go on from"
    print(
        f"resume=latest goes on from {run.root}, not from the run that was started last: {later.root}{became} {what}",
        file=sys.stderr,
    )


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


def completed(saved: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The configuration of a run that may be older than some options, with the defaults of those that it lacks.

    A key that is missing gets its value from the file of `conf/` whose `_target_` is the same class: of several such
    files, from the one that agrees with most of the other values, and from the group's default where as many agree;
    where runs without it did otherwise, what they did (`BEFORE`). A group that is missing is that default. A class that
    has moved is named where it is now. Nothing else that is there is changed, checked or called, and no code is looked
    up but the settings classes of this package; `lora_sam.training.settings.settings_from` is to check the result, so
    that unknown keys are refused as they are anywhere else.

    Args:
        saved: Content of a `config.json`.

    Returns:
        The whole configuration, and the dotted keys that were filled in.

    Raises:
        ConfigError: the files of `conf/` are missing.
    """
    whole = copy.deepcopy(with_new_names(saved)[0])
    filled: list[str] = []
    conf = conf_directory()
    train = _yaml(conf / "train.yaml")
    chosen = {group: name for entry in train["defaults"] if isinstance(entry, dict) for group, name in entry.items()}
    for group in GROUPS:
        options = {path.stem: _yaml(path) for path in sorted((conf / group).glob("*.yaml"))}
        default = options[chosen[group]]
        if group not in whole:
            whole[group] = copy.deepcopy(dict(default))
            filled.append(group)
        elif isinstance(whole[group], dict):
            values = whole[group]
            cls = _class_of(values)
            same = [option for option in options.values() if cls is not None and _class_of(option) is cls]
            if cls is not None and same:
                best = max(same, key=lambda option: (_agreeing(option, values), option is default))
                filled += _fill(cls, values, best, f"{group}.")
    for key in RUN_KEYS:
        if key not in whole:
            whole[key] = train[key]
            filled.append(key)
    return whole, tuple(filled)


@cache
def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _class_of(values: Mapping[str, Any]) -> type[Any] | None:
    """The settings class that a group of keys names; None where it names none, which is refused later."""
    try:
        return class_of_step(values.get("_target_"))
    except ConfigError:
        return None


def _agreeing(option: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """In how many values they agree, nested ones included."""
    one, other = flat(option), flat(values)
    return sum(key in other and other[key] == value for key, value in one.items())


def _fill(cls: type[Any], values: dict[str, Any], defaults: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Put into `values` the fields of `cls` that they lack, in nested groups of keys too; yields their dotted names."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name not in defaults:
            continue
        value = values.get(field.name)
        if field.name not in values:
            key = f"{prefix}{field.name}"
            values[field.name] = copy.deepcopy(BEFORE.get(key, defaults[field.name]))
            yield key
        elif isinstance(value, dict) and isinstance(defaults[field.name], Mapping):
            nested = _dataclass_in(hints[field.name])
            if nested is not None:  # any other mapping is a value as a whole
                yield from _fill(nested, value, defaults[field.name], f"{prefix}{field.name}.")


def _dataclass_in(hint: Any) -> type[Any] | None:
    members = (hint, *typing.get_args(hint))
    return next((one for one in members if isinstance(one, type) and dataclasses.is_dataclass(one)), None)


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
    """A nested configuration as one mapping with dotted keys: its values, and not what they were chosen by."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        elif key != OPTION:
            result[f"{prefix}{key}"] = value
    return result


def settings_of(run: RunDirectory, data_root: str | None = None) -> Settings:
    """The settings of a run, from its `config.json`, with paths that hold here.

    Args:
        run: The run.
        data_root: Where its images lie now; None for where they were.

    Raises:
        AdapterError: the file is missing or damaged.
        ConfigError: it is damaged, or a path leads nowhere.
    """
    from lora_sam.training.settings import settings_from

    if not run.saved_config.is_file():
        raise AdapterError(f"{run.saved_config} is missing; give the directory of a finished run")
    saved = completed(read_json(run.saved_config, "give the directory of a finished run"))[0]
    here = placed(saved, run, data_root)
    model = here.get("model")
    if isinstance(model, dict) and isinstance(model.get("checkpoint"), str) and not Path(model["checkpoint"]).is_file():
        model["checkpoint"] = None  # whoever needs the weights of the base looks for them, and names what is missing
    return settings_from(here)
