"""How much the cache directory holds, and what goes first where that is too much."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_sam.core.calling import step_called
from lora_sam.predictors.embeddings.layout import BUILDERS, GROUP, USERS, CacheUnavailable, RowSpec, described_spec
from lora_sam.predictors.embeddings.rows import FAN, Row, directories, rows_of
from lora_sam.predictors.embeddings.signs import is_up

FREE_BYTES = 2**28
"""What is left free on the disk."""

_NAME = re.compile(r"[0-9a-f]{32}")
# format 1: many rows in a file, and an index of them
_OLD_INDEX = "index.sqlite"
_OLD_FILES = (_OLD_INDEX, "index.sqlite-journal", "index.damaged", "rows-*.bin", "lease", "builder", GROUP)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that have everything but their image in common, as found on disk.

    Attributes:
        path: Their directory.
        spec: What they have in common; None where that cannot be told.
        rows: How many there are.
        bytes: Size of all of them.
        used: When one of them was wanted last, in seconds since 1970.
        in_use: Whether a process has the group open.
        problem: Why it cannot be used; None where it can.
    """

    path: Path
    spec: RowSpec | None
    rows: int
    bytes: int
    used: float
    in_use: bool
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The groups that were removed, and those that would have been, had nobody had them open."""

    removed: tuple[Group, ...]
    in_use: tuple[Group, ...]


def groups(directory: Path) -> list[Group]:
    """All groups of a cache directory, that used last first; none where there is no such directory."""
    found = [_group(path) for path in _paths(directory)]
    return sorted(found, key=lambda group: (group.used, group.path.name), reverse=True)


def total_bytes(directory: Path) -> int:
    """Bytes of all rows, and of what killed processes left of some; other files of the directory do not count."""
    return sum(row.bytes for path in _paths(directory) for row in rows_of(path))


def in_use(group: Path, except_for: str = "") -> bool:
    """Whether a process has the group open, other than by the sign with this name."""
    try:
        names = os.listdir(group / USERS)
    except OSError:
        return False
    return any([is_up(group / USERS / name) for name in names if name != except_for])


def make_room(group: Path, spec: RowSpec, rows: int, *, max_bytes: int, wanted: Collection[str], user: str) -> None:
    """Have room for so many more rows of a group: of all groups the rows used least recently go first.

    What somebody else has open stays whole, and so does what is wanted here. Nothing goes where that is not enough.

    Args:
        group: The group's directory.
        spec: What its rows are.
        rows: How many are to be made.
        max_bytes: Largest size of the cache directory.
        wanted: Keys of rows of the group that stay.
        user: Name of the sign by which this process has the group open.

    Raises:
        CacheUnavailable: there is no room.
        OSError: the disk cannot be asked.
    """
    directory = group.parent
    found = {path: list(rows_of(path)) for path in _paths(directory)}
    # all rows of a group are of one size
    needed = rows * max((row.bytes for row in found.get(group, ()) if row.key is not None), default=spec.file_bytes)
    held = sum(row.bytes for some in found.values() for row in some)
    free = shutil.disk_usage(directory).free - FREE_BYTES
    excess = max(held + needed - max_bytes, needed - free)
    if excess <= 0:
        return
    removable = [
        row
        for path, some in found.items()
        if not in_use(path, user if path == group else "")
        for row in some
        if path != group or row.key not in wanted
    ]
    # a group that does not grow is not refused for what others hold
    if sum(row.bytes for row in removable) < min(excess, needed):
        raise CacheUnavailable(_no_room(directory, needed, rows, held, max_bytes, free))
    for row in sorted(removable, key=lambda row: (row.used, row.path.name)):
        if excess <= 0:
            break
        if _remove(row):
            excess -= row.bytes
    for path in found:
        if path != group and next(rows_of(path), None) is None and not in_use(path):
            _remove_empty(path)


def _no_room(directory: Path, needed: int, rows: int, held: int, max_bytes: int, free: int) -> str:
    sentence = f"the embedding cache needs {_gb(needed)} GB for {rows:,} images, and there is no room: "
    if needed > free:
        sentence += f"the disk of {directory} can give {_gb(max(0, free))} GB; free some space, "
    else:
        sentence += (
            f"{directory} holds {_gb(held)} GB of at most cache.max_gb={max_bytes / 1e9:g}, of which too little can "
            f"go; raise cache.max_gb, remove some with {step_called('embeddings')} prune, "
        )
    return sentence + "choose another place with cache.directory=<directory>, or go without with trainer.cache=off."


def remove_old(directory: Path) -> str | None:
    """Remove groups of format 1, which are not read; what to say of it, None where there were none."""
    freed = 0
    for group in directories(directory, _NAME):
        if (group / _OLD_INDEX).exists():
            for path in [path for name in _OLD_FILES for path in group.glob(name)]:
                with suppress(OSError):
                    size = path.lstat().st_size
                    path.unlink()
                    freed += size
            with suppress(OSError):
                group.rmdir()
    if not freed:
        return None
    for name in ("lock", "pixels.sqlite"):
        with suppress(OSError):
            (directory / name).unlink()
    return f"{_gb(freed)} GB in {directory} were of an older format that is not read, and were removed"


def prune(directory: Path, *, max_bytes: int | None, before: float | None) -> Pruned:
    """Remove groups, those used least recently first, as long as one of two reasons holds; those in use stay.

    Args:
        directory: The cache directory.
        max_bytes: Remove while it holds more than that; None for no such limit.
        before: Remove what was used last before this time, in seconds since 1970; None for no such limit.

    Raises:
        OSError: something cannot be removed.
    """
    removed, used = [], []
    found = groups(directory)
    held = sum(group.bytes for group in found)
    for group in reversed(found):
        if not (max_bytes is not None and held > max_bytes) and not (before is not None and group.used < before):
            continue
        if group.in_use:
            used.append(group)
            continue
        for row in rows_of(group.path):
            row.path.unlink(missing_ok=True)
        _remove_empty(group.path)
        held -= group.bytes
        removed.append(group)
    return Pruned(removed=tuple(removed), in_use=tuple(used))


def _paths(directory: Path) -> list[Path]:
    """The directories of groups, described or with rows; not of links, and not of groups of an older format."""
    return [
        path
        for path in directories(directory, _NAME)
        if not (path / _OLD_INDEX).exists() and ((path / GROUP).is_file() or next(rows_of(path), None) is not None)
    ]


def _remove(row: Row) -> bool:
    """Remove a row, unless somebody has wanted it meanwhile; whether it is gone."""
    try:
        if row.path.lstat().st_mtime_ns != row.used:
            return False
        row.path.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _remove_empty(path: Path) -> None:
    """Remove the directories of a group without rows; what is not ours stays, and so do the directories around it."""
    for sign in (path / BUILDERS).glob("*"):
        is_up(sign)  # else it is removed
    for place in (*directories(path, FAN), path / USERS, path / BUILDERS):
        with suppress(OSError):
            place.rmdir()
    with suppress(OSError):
        if os.listdir(path) == [GROUP]:
            (path / GROUP).unlink()
        path.rmdir()


def _group(path: Path) -> Group:
    spec, problem = None, None
    try:
        spec = described_spec(path)
    except CacheUnavailable as error:
        problem = str(error)
    rows = list(rows_of(path))
    used = max((row.used for row in rows), default=0) / 1e9
    if not rows:
        with suppress(OSError):
            used = (path / GROUP).stat().st_mtime
    return Group(
        path=path,
        spec=spec,
        rows=sum(row.key is not None for row in rows),
        bytes=sum(row.bytes for row in rows),
        used=used,
        in_use=in_use(path),
        problem=problem,
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g}"
