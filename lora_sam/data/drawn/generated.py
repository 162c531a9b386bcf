"""A directory of generated files: made once, whole or not at all, and used again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lora_sam.core.beside import sync
from lora_sam.core.errors import DataError
from lora_sam.core.files import directory_beside

MANIFEST = "generated.json"
"""File in the directory that says how its content was made, and names every file."""


def generated_directory(root: Path, recipe: Mapping[str, Any], write: Callable[[Path], None]) -> bool:
    """Have the files of `recipe` in `root`, written by `write` unless they are there already.

    They are written beside `root`, synced, and renamed, so that a crash leaves `root` as it was, and of several
    processes at once the first wins. Files that were removed from a finished directory are put back; nothing in it is
    ever replaced or removed.

    Args:
        root: The directory; may be absent or empty.
        recipe: All that the files depend on, as JSON values.
        write: Writes the files into an empty directory.

    Returns:
        Whether anything had to be written.

    Raises:
        DataError: `root` has another content, or cannot be written.
    """
    root = root.resolve()
    try:
        if _is_whole(root, recipe):
            return False
        with directory_beside(root) as made:
            write(made)
            names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
            manifest = json.dumps({"recipe": recipe, "files": names}, indent=1)
            (made / MANIFEST).write_text(manifest + "\n", encoding="utf-8")
            for entry in (*made.rglob("*"), made):
                sync(entry)
            try:
                os.rename(made, root)  # the system refuses it unless `root` is absent or empty
            except OSError:
                if not root.is_dir():
                    raise
                _is_whole(root, recipe)  # raises if what is there now is not of this recipe
                _put_back(made, root, [*names, MANIFEST])
            sync(root.parent)
    except OSError as error:
        raise DataError(
            f"data.root: cannot use {root} ({error.strerror or error}); free some space or choose another place with "
            "data.root=<directory>."
        ) from error
    return True


def _is_whole(root: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether every file of `recipe` is in `root`. Raises `DataError` if something else is."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        made_by, names = manifest["recipe"], [str(name) for name in manifest["files"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"data.root: {root} holds something else than generated data, and is left as it is; choose another place "
            "with data.root=<new directory>."
        ) from error
    if made_by != json.loads(json.dumps(recipe)):
        raise DataError(
            f"data.root: {root} was generated with {_differing(made_by, recipe)}; remove that directory, or choose "
            "another with data.root=<new directory>."
        )
    return all((root / name).is_file() for name in names)


def _differing(found: Any, wanted: Mapping[str, Any]) -> str:
    found = found if isinstance(found, dict) else {}
    keys = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    return ", ".join(f"{key}={found.get(key)} (not {wanted.get(key)})" for key in keys)


def _put_back(made: Path, root: Path, names: list[str]) -> None:
    """Move those of the files `made` to `root` that are not there."""
    for name in names:
        if not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / name, root / name)
