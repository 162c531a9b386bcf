"""Where a run found data and weights, so that it can be used from another directory or after it has moved."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import AdapterError, ConfigError, DataError, LoraSamError
from lora_sam.core.files import digest_of, read_json, write_text
from lora_sam.core.run_directory import RunDirectory
from lora_sam.data.contents import fingerprints
from lora_sam.data.reading.paths import shown

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits
    from lora_sam.models.base_model import BaseModel
    from lora_sam.training.settings import Settings

PATHS = (("data", "root"), ("model", "checkpoint"))
_SPLITS = ("train", "val", "test")
_LISTED = 20_000  # of a larger split one digest is kept for all images, so that the file stays small
_NAMED = 3  # images that a message names


@dataclass(frozen=True)
class Changes:
    """What differs from the data that a run was trained on, in words: images there are, their files, their labels."""

    ids: list[str]
    images: list[str]
    labels: list[str]


def write_splits(
    directory: RunDirectory, splits: Splits, config: Mapping[str, Any], base: BaseModel | None = None
) -> None:
    """Write `splits.json`: ids of the images of each split, digests of their contents, and where all of it was.

    With `base` also which weights it was trained on, for a run that goes on.

    Raises:
        TrainingError: it cannot be written.
    """
    places = {
        f"{group}.{key}": os.path.abspath(os.path.expanduser(typed))
        for group, key in PATHS
        if (typed := _typed(config, group, key)) is not None
    }
    content = {**splits.to_json(), "contents": contents(splits), "places": places}
    if base is not None:
        content["base"] = {"source": base.source, "sha256": base.sha256}
    write_text(directory.splits, json.dumps(content, indent=2) + "\n")


def contents(splits: Splits) -> dict[str, dict[str, Any]]:
    """For each split digests of its `images` and of their `labels`, in the order of its ids; of many, one for all.

    Wherever the data lies: nothing of its place goes into them.
    """
    found = {}
    for name in _SPLITS:
        images, labels = fingerprints(getattr(splits, name))
        many = len(images) > _LISTED
        found[name] = {
            kind: digest_of({"all": digests}) if many else list(digests)
            for kind, digests in (("images", images), ("labels", labels))
        }
    return found


def check_contents(asked: str, run: RunDirectory, splits: Splits) -> None:
    """Raise `DataError` unless `splits` is what the run was trained on, for a run that goes on.

    A run that is older says nothing of it.

    Args:
        asked: How the run was named, for the message.
        run: The run.
        splits: Its data as they are now.
    """
    changes = _changes(run, splits)
    lines = [*changes.ids, *changes.images, *changes.labels]
    if lines:
        raise DataError(
            f"{asked}: the data are not those that this run was trained on: {'; '.join(lines)}. Put them back, give "
            "their place with data.root=..., or start a new run without resume="
        )


def check_weights(asked: str, run: RunDirectory, sha256: str | None) -> None:
    """Raise `AdapterError` if the base is not the one that a run was trained on so far: what was learnt fits no other.

    A run that is older says nothing of it.

    Args:
        asked: How the run was named, for the message.
        run: The run.
        sha256: Of the weights that it would go on with; None where nobody knows.
    """
    then = _saved(run).get("base")
    if not isinstance(then, dict) or sha256 is None:
        return
    known = then.get("sha256")
    if isinstance(known, str) and known != sha256:
        raise AdapterError(
            f"{asked}: the base weights {shown(str(then.get('source')))} are others now (SHA-256 {sha256[:12]}, then "
            f"{known[:12]!r}), and what was trained fits those of then only. Put the file back, or start a new run"
        )


def opened(run: RunDirectory, settings: Settings, data_root: str | None) -> Splits:
    """The data of a run for a step that measures it: the images as they were; labels that were edited are noted.

    Labels are corrected after training; what is measured then is the truth as it is now.

    Args:
        run: The run.
        settings: Its settings, with the place of its data.
        data_root: Where it was said that they lie.

    Raises:
        DataError: they cannot be read, or are others.
    """
    try:
        splits = settings.open_data()
    except DataError as error:
        raise DataError(str(error).replace("data.root", "data_root"), error.kind) from error
    changes = _changes(run, splits)
    lines = [*changes.ids, *changes.images]
    asked = f"run = {run.root}" if data_root is None else f"data_root = {data_root}"
    if lines:
        raise DataError(
            f"{asked}: the images are not those of this run: {'; '.join(lines)}. Put them back, or give the place of "
            "the run's images with data_root=..."
        )
    for line in changes.labels:
        print(f"{asked}: {line} after training; what follows uses them as they are now", file=sys.stderr)
    return splits


def placed(config: Mapping[str, Any], run: RunDirectory, data_root: str | None = None) -> dict[str, Any]:
    """The configuration of a run with paths that hold here.

    A relative path is where it was when the run was made; if nothing is there, and something is where it leads from
    here, it is that: whoever moves all of a project moves the data with it.

    Args:
        config: Content of its `config.json`.
        run: The run.
        data_root: Where the data lies now; None for where it was.

    Raises:
        ConfigError: the data of this run has no place.
    """
    result = copy.deepcopy(dict(config))
    known = _saved(run).get("places")
    for group, key in PATHS:
        typed = _typed(config, group, key)
        resolved = known.get(f"{group}.{key}") if isinstance(known, dict) else None
        if typed is None or not isinstance(resolved, str) or os.path.isabs(os.path.expanduser(typed)):
            continue
        if Path(resolved).exists() or not Path(typed).exists():
            result[group][key] = resolved
    if data_root is not None:
        data = result.get("data")
        if not isinstance(data, dict) or "root" not in data:
            raise ConfigError(f"data_root = {data_root}: the images of this run are drawn; leave it out")
        data["root"] = data_root
    return result


def _typed(config: Mapping[str, Any], group: str, key: str) -> str | None:
    values = config.get(group)
    typed = values.get(key) if isinstance(values, Mapping) else None
    return typed if isinstance(typed, str) else None


def _saved(run: RunDirectory) -> dict[str, Any]:
    """What `splits.json` says; nothing where it is damaged or not there."""
    try:
        return read_json(run.splits, "")
    except LoraSamError:
        return {}


def _changes(run: RunDirectory, splits: Splits) -> Changes:
    """What was edited since the run was trained."""
    changes, saved = Changes([], [], []), _saved(run)
    then = saved.get("contents")
    if not isinstance(then, dict) or not all(isinstance(one, dict) for one in then.values()):
        return changes  # an older run
    for name, now in contents(splits).items():
        ids, present = saved.get(name), getattr(splits, name).ids
        if not isinstance(ids, list):
            continue
        known = [str(one) for one in ids]
        if gone := set(known) - set(present):
            changes.ids.append(f"{name} lacks {_some(gone)}")
        if new := set(present) - set(known):
            changes.ids.append(f"{name} has {_some(new)}, which was not there")
        for kind, lines in (("images", changes.images), ("labels", changes.labels)):
            before, digests = then.get(name, {}).get(kind), now[kind]
            if isinstance(before, list) and isinstance(digests, list):
                old = dict(zip(known, before, strict=False))
                edited = [one for one, digest in zip(present, digests, strict=True) if old.get(one, digest) != digest]
                if edited:
                    lines.append(f"{kind} of {name} were edited: {_some(edited)}")
            elif before is not None and before != digests:
                lines.append(f"{kind} of {name} were edited")
    return changes


def _some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    first = sorted(names)[:_NAMED]
    more = len(names) - len(first)
    return ", ".join(shown(name) for name in first) + (f" and {more} more" if more else "")
