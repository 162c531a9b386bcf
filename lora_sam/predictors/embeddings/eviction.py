"""How much the cache directory holds, and what goes first where that is too much."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lora_sam.predictors.embeddings.index import Index
from lora_sam.predictors.embeddings.layout import (
    INDEX,
    LEASE,
    CacheUnavailable,
    RowSpec,
    described_spec,
    is_group,
    size_of,
)
from lora_sam.predictors.embeddings.locks import FileLock, directory_lock

FREE_BYTES = 2**28
"""What is left free on the disk."""

_REMOVED = re.compile(r"\.removed-[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that have everything but their image in common, as found on disk.

    Attributes:
        path: Their directory.
        spec: What they have in common; None where that cannot be told.
        rows: How many there are; None where that cannot be told.
        bytes: Size of all files.
        used: When the group was opened last, in seconds since 1970.
        in_use: Whether a process has it open.
        problem: Why it cannot be used; None where it can.
    """

    path: Path
    spec: RowSpec | None
    rows: int | None
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
    return [_group(path) for path in reversed(_oldest_first(directory))]


def total_bytes(directory: Path) -> int:
    """Bytes of all groups, those whose removal was cut short included; other files of the directory do not count."""
    return sum(size_of(path) for path in (*_oldest_first(directory), *_leftovers(directory)))


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """What stands between a group and the rows that it is to get.

    Attributes:
        needed: Bytes by which the group is to grow.
        held: Bytes in the whole cache directory.
        max_bytes: The most that it may hold.
        free: Bytes that the disk can give.
    """

    needed: int
    held: int
    max_bytes: int
    free: int

    @property
    def bytes(self) -> int:
        """How much has to go; not above 0 where there is room."""
        return max(self.held + self.needed - self.max_bytes, self.needed - self.free if self.needed else 0)

    def explained(self, directory: Path, rows: int) -> str:
        """For people: what is needed, what is allowed, what can be done."""
        sentence = f"the embedding cache needs {_gb(self.needed)} GB for {rows:,} images, and there is no room: "
        if self.needed > self.free:
            sentence += f"the disk of {directory} can give {_gb(max(0, self.free))} GB; free some space, "
        else:
            sentence += (
                f"{directory} holds {_gb(self.held)} GB of at most cache.max_gb={self.max_bytes / 1e9:g}, of which "
                f"too little can go; raise cache.max_gb, remove some with python -m lora_sam.embeddings prune, "
            )
        return sentence + "choose another place with cache.directory=<directory>, or go without with trainer.cache=off."


def shortage(directory: Path, needed: int, max_bytes: int) -> Shortage:
    """What stands between a cache directory and growing by `needed` bytes, now. Raises `OSError`."""
    free = shutil.disk_usage(directory).free - FREE_BYTES
    return Shortage(needed=needed, held=total_bytes(directory), max_bytes=max_bytes, free=free)


@contextmanager
def removable(directory: Path, excess: int, keep: Path) -> Iterator[list[Path]]:
    """Hold the groups, used least recently first, whose removal frees `excess` bytes, or all that nobody has open.

    For the holder of the directory's lock.

    Args:
        directory: The cache directory.
        excess: Bytes.
        keep: A group that stays.
    """
    with ExitStack() as held:
        found = []
        for path in _oldest_first(directory):
            if excess <= 0:
                break
            if path != keep and (lease := _held(path)) is not None:
                held.enter_context(closing(lease))
                found.append(path)
                excess -= size_of(path)
        yield found


def remove(path: Path) -> None:
    """Remove a group that nobody else has open; one that is cut short leaves nothing that could be taken for one."""
    away = path.with_name(f".removed-{secrets.token_hex(4)}")
    os.rename(path, away)
    shutil.rmtree(away, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what is left of groups whose removal was cut short."""
    for path in _leftovers(directory):
        shutil.rmtree(path, ignore_errors=True)


def prune(directory: Path, *, max_bytes: int | None, before: float | None) -> Pruned:
    """Remove groups, those used least recently first, as long as one of two reasons holds; those in use stay.

    Args:
        directory: The cache directory.
        max_bytes: Remove while it holds more than that; None for no such limit.
        before: Remove what was opened last before this time, in seconds since 1970; None for no such limit.

    Raises:
        OSError: something cannot be removed.
        CacheUnavailable: the directory's lock cannot be had.
    """
    removed, in_use = [], []
    with directory_lock(directory):
        remove_leftovers(directory)
        held = total_bytes(directory)
        for path in _oldest_first(directory):
            group = _group(path)
            if not (max_bytes is not None and held > max_bytes) and not (before is not None and group.used < before):
                continue
            lease = _held(path)
            if lease is None:
                in_use.append(group)
                continue
            with closing(lease):
                remove(path)
            held -= group.bytes
            removed.append(group)
    return Pruned(removed=tuple(removed), in_use=tuple(in_use))


def _oldest_first(directory: Path) -> list[Path]:
    try:
        found = [path for path in directory.iterdir() if is_group(path)]
    except OSError:
        return []
    return sorted(found, key=lambda path: (_used(path), path.name))


def _leftovers(directory: Path) -> list[Path]:
    try:
        entries = [path for path in directory.iterdir() if _REMOVED.fullmatch(path.name)]
        return [path for path in entries if stat.S_ISDIR(path.lstat().st_mode)]
    except OSError:
        return []


def _used(path: Path) -> float:
    for place in (path / LEASE, path):
        with suppress(OSError):
            return place.stat().st_mtime
    return 0.0


def _held(path: Path) -> FileLock | None:
    """The lease of a group, held alone; None where somebody has the group open."""
    lease = None
    with suppress(OSError):
        lease = FileLock(path / LEASE)
        if lease.exclusive():
            return lease
    if lease is not None:
        lease.close()
    return None


def _group(path: Path) -> Group:
    used = _used(path)  # before the lease is looked at
    lease = _held(path)
    if lease is not None:
        lease.close()
    spec, rows, problem = None, None, None
    try:
        spec = described_spec(path)
        rows, _, _ = Index(path / INDEX).counts()
    except CacheUnavailable as error:
        problem = str(error)
    return Group(path=path, spec=spec, rows=rows, bytes=size_of(path), used=used, in_use=lease is None, problem=problem)


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g}"
