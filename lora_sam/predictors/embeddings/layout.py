"""What a group of cached rows is on disk: its name, what its rows have in common, the files it is made of."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lora_sam.core.errors import AdapterError, LoraSamError, TrainingError
from lora_sam.core.files import read_json, write_text

FORMAT_VERSION = 1
"""Version of these files and of the code that makes rows: the pre-processing and the encoder. Part of every name."""

SHARD_BYTES = 2**28
"""Largest size of a file of rows, unless one row is larger."""

GROUP, LEASE, BUILDER, INDEX, DAMAGED_INDEX = "group.json", "lease", "builder", "index.sqlite", "index.damaged"
_NAME = re.compile(r"[0-9a-f]{32}")
_FILES = re.compile(r"group\.json|lease|builder|index\.sqlite(-journal)?|index\.damaged|rows-[0-9a-f]{8}-\d{5}\.bin")
_UNFINISHED = re.compile(r"\.group\.json\.[0-9a-f]{8}\.tmp")
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class CacheUnavailable(LoraSamError):  # noqa: N818 -- what a run does about it is to go on without
    """The cache cannot be used, or not for so many rows: the directory is full, read-only, or without locks."""


class RowTooLarge(CacheUnavailable):
    """A number does not fit in float16."""


class CacheMiss(Exception):  # noqa: N818 -- an answer, not a fault
    """There is no such row, or it is damaged."""


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """What all rows of one group have in common; each group has a directory of its own.

    Attributes:
        variant: Variant of SAM, `vit_b`.
        weights: SHA-256 of the base weights.
        stage: What a row is: `embedding`, or `tokens-9`: the input of block 9.
        image_size: Side of the encoder's square input, in pixels.
        precision: Arithmetic that made the rows, `float32`.
        shape: Shape of one row.
        dtype: How its numbers are stored.
    """

    variant: str
    weights: str
    stage: str
    image_size: int
    precision: str
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32"]

    @property
    def name(self) -> str:
        """Name of the directory: 128 bits of SHA-256 over all fields and the version of the format."""
        return hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def numbers(self) -> int:
        """How many numbers a row has."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Size of a row on disk."""
        return self.numbers * (2 if self.dtype == "float16" else 4)

    @property
    def rows_per_shard(self) -> int:
        """How many rows a file of them has."""
        return max(1, SHARD_BYTES // self.row_bytes)

    def described(self) -> dict[str, Any]:
        """Content of `group.json`."""
        return {"format": FORMAT_VERSION, "rows": {**asdict(self), "shape": list(self.shape)}}


def described_spec(path: Path) -> RowSpec:
    """What the rows of the group at `path` have in common, as its `group.json` says.

    Raises:
        CacheUnavailable: it is damaged, of another version, or does not belong to a directory of this name.
    """
    remedy = f"remove {path}, or everything with python -m lora_sam.embeddings prune max_gb=0"
    try:
        found = read_json(path / GROUP, remedy)
    except AdapterError as error:
        raise CacheUnavailable(str(error)) from error
    version, rows = found.get("format"), found.get("rows")
    if version != FORMAT_VERSION:
        raise CacheUnavailable(f"{path / GROUP} is of format {version!r}, this is {FORMAT_VERSION}; {remedy}")
    spec = _spec_of(rows)
    if spec is None or spec.name != path.name or spec.described() != found:
        raise CacheUnavailable(f"{path / GROUP} describes other rows than the name of its directory; {remedy}")
    return spec


def _spec_of(rows: Any) -> RowSpec | None:
    kinds = {"image_size": int, "shape": list}
    names = [field.name for field in fields(RowSpec)]
    if not isinstance(rows, dict) or sorted(rows) != sorted(names):
        return None
    if any(type(rows[name]) is not kinds.get(name, str) for name in names) or rows["dtype"] not in (
        "float16",
        "float32",
    ):
        return None
    if not rows["shape"] or any(type(side) is not int or side < 1 for side in rows["shape"]):
        return None
    return RowSpec(**{**rows, "shape": tuple(rows["shape"])})


def describe(path: Path, spec: RowSpec) -> None:
    """Have `group.json` at `path`, and have it say what `spec` says.

    Raises:
        CacheUnavailable: it says something else, or cannot be written.
    """
    if not (path / GROUP).exists():
        try:
            write_text(path / GROUP, json.dumps(spec.described(), indent=1) + "\n")
        except TrainingError as error:
            cause = error.__cause__
            raise cause if isinstance(cause, OSError) else CacheUnavailable(str(error)) from error
    described_spec(path)


def private_directory(path: Path) -> None:
    """Have a directory that only its owner can look into; one that is there keeps its mode. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def is_group(path: Path) -> bool:
    """Whether `path` is a directory of ours, not a link to one, and holds nothing but files of ours."""
    try:
        if _NAME.fullmatch(path.name) is None or not stat.S_ISDIR(path.lstat().st_mode):
            return False
        with os.scandir(path) as entries:
            return all(_is_ours(entry) for entry in entries)
    except OSError:
        return False


def _is_ours(entry: os.DirEntry[str]) -> bool:
    known = _FILES.fullmatch(entry.name) or _UNFINISHED.fullmatch(entry.name)
    return known is not None and entry.is_file(follow_symlinks=False)


def size_of(path: Path) -> int:
    """Bytes of the files in a directory; those that vanish meanwhile count as nothing."""
    try:
        with os.scandir(path) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0


@contextmanager
def unavailable(directory: Path) -> Iterator[None]:
    """Raise what the system says about a file of the cache as `CacheUnavailable`, in plain words."""
    try:
        yield
    except OSError as error:
        raise CacheUnavailable(_in_words(directory, error)) from error


def _in_words(directory: Path, error: OSError) -> str:
    remedy = "choose another with cache.directory=<directory>, or go without with trainer.cache=off"
    if error.errno in _FULL:
        return f"the embedding cache cannot grow: the disk of {directory} is full; free some space, or {remedy}."
    if error.errno in _READ_ONLY:
        return f"the embedding cache cannot be written: {directory} is read-only; {remedy}."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"the embedding cache cannot be made: {directory} or a parent is a file, not a directory; {remedy}."
    if error.errno in _NO_LOCKS:
        return f"the embedding cache cannot be used: the file system of {directory} has no locks; {remedy}."
    return f"the embedding cache in {directory} cannot be used: {error.strerror or error}; {remedy}."
