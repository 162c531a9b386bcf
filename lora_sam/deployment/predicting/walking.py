"""The files of a folder and of all below it, folders that are links among them, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lora_sam.core.errors import DataError

OWN_FILE = "predictions.json"
"""In a directory that predictions were written to; what lies in such a directory is no source."""

OWN_FOLDERS = frozenset({"records", "labels", "semantic", "masks", "yolo", "geojson", "overlays"})
"""What predictions are written into, where that directory is the source itself."""

MOST_FILES = 10**6


def files_below(root: Path, output: Path | None) -> Iterator[Path]:
    """Files below a folder; nothing hidden, and nothing in a directory that predictions were written to.

    A folder that is a link is looked into after all that are none, and left out where it leads to one that was, or to
    one above `root`.

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
            yield from (here / name for name in files if not name.startswith("."))
        while links and not starts:
            link = links.pop(0)
            to = link.resolve()
            if to not in been and to not in above:
                been.add(to)
                starts.append(link)


def is_own(folder: Path, output: Path | None) -> bool:
    """Whether a folder is one that predictions were written to, or will be: `output`, resolved."""
    return (folder / OWN_FILE).is_file() or (output is not None and folder.resolve() == output)


def _cannot_list(error: OSError) -> None:
    raise DataError(f"source: {error.filename} cannot be listed ({error.strerror}); correct its permissions") from error
