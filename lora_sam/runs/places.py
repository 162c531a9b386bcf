"""Where a run found data and weights, so that it can be used from another directory or after it has moved."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import ConfigError, DataError, LoraSamError
from lora_sam.core.files import digest_of, read_json, write_text
from lora_sam.core.run_directory import RunDirectory
from lora_sam.data.splits import file_digest_of

if TYPE_CHECKING:
    from lora_sam.data.splits import SampleSource, Splits

PATHS = (("data", "root"), ("model", "checkpoint"))
_FILES = 1000  # image files of a split that are compared, evenly spaced: enough to tell another data set, and quick


def write_splits(directory: RunDirectory, splits: Splits, config: Mapping[str, Any]) -> None:
    """Write `splits.json`: ids of the images of each split, digests of their contents, and where all of it was.

    Raises:
        TrainingError: it cannot be written.
    """
    places = {
        f"{group}.{key}": os.path.abspath(os.path.expanduser(typed))
        for group, key in PATHS
        if (typed := _typed(config, group, key)) is not None
    }
    content = {**splits.to_json(), "contents": contents(splits), "places": places}
    write_text(directory.splits, json.dumps(content, indent=2) + "\n")


def contents(splits: Splits) -> dict[str, str]:
    """SHA-256 that stands for each split: sizes and numbers of objects of all images, bytes of up to 1,000 files.

    Wherever the data lies: ids are names inside its root.
    """
    return {name: _digest(getattr(splits, name)) for name in ("train", "val", "test")}


def check_contents(name: str, run: RunDirectory, splits: Splits) -> None:
    """Raise `DataError` unless `splits` is what the run was trained on. A run that is older says nothing of it."""
    try:
        then = read_json(run.splits, "")["contents"]
    except (LoraSamError, KeyError):
        return
    now = contents(splits)
    other = [split for split in now if isinstance(then, dict) and then.get(split, now[split]) != now[split]]
    if other:
        raise DataError(
            f"{name}: the images or labels of {', '.join(other)} are not those that this run was trained on; give the "
            "place of those with data.root=..., or start a new run without resume="
        )


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
    try:
        known = read_json(run.splits, "")["places"]
    except (LoraSamError, KeyError):
        known = {}
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


def _digest(source: SampleSource) -> str:
    counts = source.object_counts
    step = max(1, -(-len(source) // _FILES))
    return digest_of(
        {
            "sizes": [list(size) for size in source.sizes],
            "objects": None if counts is None else list(counts),
            "files": [file_digest_of(source, index) for index in range(0, len(source), step)],
        }
    )
