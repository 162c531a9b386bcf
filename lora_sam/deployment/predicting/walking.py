"""The files of a folder and of all below it, folders that are links among them, each once; or those that match."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from lora_sam.core.errors import DataError

OWN_FILE = "predictions.json"
"""In a directory that predictions were written to; what lies in such a directory is no source."""

OWN_FOLDERS = frozenset({"records", "labels", "semantic", "masks", "yolo", "geojson", "overlays"})
"""What predictions are written into, where that directory is the source itself."""

MOST_FILES = 10**6

WILDCARDS = frozenset("*?[")
"""A path with one of them is a pattern."""


def files_below(root: Path, output: Path | None) -> Iterator[Path]:
    """The files of `folders_below`. Raises as it does."""
    for folder, names in folders_below(root, output):
        yield from (folder / name for name in names)


def folders_below(root: Path, output: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it with the names of their files.

    Nothing hidden, and no directory that predictions were written to. A folder that is a link is looked into after all
    that are none, and left out where it leads to one that was, or to one above `root`.

    Args:
        root: The folder.
        output: Where predictions will be written: not looked into.

    Raises:
        DataError: a folder cannot be listed, or there are too many files.
    """
    own = None if output is None else output.resolve()
    top = root.resolve()
    above, been = {*top.parents}, {top}
    links: list[Path] = []
    seen = 0
    starts = [root]
    while starts:
        for folder, folders, files in os.walk(starts.pop(0), onerror=_cannot_list):
            here = Path(folder)
            if here != root and is_own(here, own):
                folders.clear()
                continue
            ours = OWN_FOLDERS if here == root and is_own(here, own) else ()
            inside = [here / name for name in sorted(folders) if not name.startswith(".") and name not in ours]
            links += [path for path in inside if path.is_symlink()]
            folders[:] = [path.name for path in inside if not path.is_symlink()]
            been |= {path.resolve() for path in inside if not path.is_symlink()}
            seen += len(files)
            if seen > MOST_FILES:
                raise DataError(
                    f"source = {root}: has more than {MOST_FILES:,} files; give the folder of the images alone"
                )
            yield here, [name for name in files if not name.startswith(".")]
        while links and not starts:
            link = links.pop(0)
            to = link.resolve()
            if to not in been and to not in above:
                been.add(to)
                starts.append(link)


def matching(root: Path, parts: Sequence[str], output: Path | None) -> Iterator[Path]:
    """Files below a folder that a pattern matches; `glob.glob` leaves out what it cannot list, and has no end of loops.

    Args:
        root: The folder, which may be missing.
        parts: The pattern: what each folder is called, and the file at last; `**` is any number of folders, of which
            there are those that `folders_below` finds.
        output: Where predictions will be written.

    Raises:
        DataError: a folder cannot be listed, or there are too many files.
    """
    part, rest = parts[0], parts[1:]
    if not root.is_dir():
        return
    if part == "**":
        for folder, _ in folders_below(root, output):
            yield from matching(folder, rest or ["*"], output)
        return
    paths = [root / part]
    if WILDCARDS.intersection(part):
        try:
            names = sorted(fnmatch.filter(os.listdir(root), part))
        except OSError as error:
            _cannot_list(error)
        paths = [root / name for name in names if part.startswith(".") or not name.startswith(".")]
    for path in paths:
        if rest:
            yield from matching(path, rest, output)
        elif path.is_file():
            yield path


def is_own(folder: Path, output: Path | None) -> bool:
    """Whether a folder is one that predictions were written to, or will be: `output`, resolved."""
    return (folder / OWN_FILE).is_file() or (output is not None and folder.resolve() == output)


def _cannot_list(error: OSError) -> NoReturn:
    raise DataError(f"source: {error.filename} cannot be listed ({error.strerror}); correct its permissions") from error
