"""What a group of cached rows is on disk: its name, what its rows have in common, where a row lies."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from lora_sam.core.calling import step_called
from lora_sam.core.errors import AdapterError, LoraSamError, TrainingError
from lora_sam.core.files import read_json, write_text

FORMAT_VERSION = 2
"""Version of these files and of the code that makes rows: the pre-processing and the encoder. Part of every name."""

GROUP, USERS, BUILDERS = "group.json", "users", "builders"
"""In a group: what its rows have in common, who has it open, who makes which row."""

_HEADER_BYTES = 512  # at most, with the name and shape of one map
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class CacheUnavailable(LoraSamError):  # noqa: N818 -- what a run does about it is to go on without
    """The cache cannot be used, or not for so many rows: the directory is full or read-only."""


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
        shapes: Shape of every map of a row by its name.
        dtype: How their numbers are stored.
        architecture: Digest of the model's architecture where it is not the usual one of the variant; else empty.
    """

    variant: str
    weights: str
    stage: str
    image_size: int
    precision: str
    shapes: Mapping[str, tuple[int, ...]]
    dtype: Literal["float16", "float32"]
    architecture: str = ""

    @property
    def name(self) -> str:
        """Name of the directory: 128 bits of SHA-256 over all fields and the version of the format."""
        return hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def row_bytes(self) -> int:
        """Size of the numbers of a row."""
        return sum(map(math.prod, self.shapes.values())) * (2 if self.dtype == "float16" else 4)

    @property
    def file_bytes(self) -> int:
        """Size of the file of a row, at most."""
        return self.row_bytes + _HEADER_BYTES * len(self.shapes)

    def described(self) -> dict[str, Any]:
        """Content of `group.json`."""
        shapes = {name: list(shape) for name, shape in sorted(self.shapes.items())}
        rows = {**asdict(self), "shapes": shapes}
        if not self.architecture:  # as rows have been called before
            del rows["architecture"]
        return {"format": FORMAT_VERSION, "rows": rows}


def described_spec(path: Path) -> RowSpec:
    """What the rows of the group at `path` have in common, as its `group.json` says.

    Raises:
        CacheUnavailable: it is damaged, of another version, or does not belong to a directory of this name.
    """
    remedy = f"remove {path}, or everything with {step_called('embeddings')} prune max_gb=0"
    try:
        found = read_json(path / GROUP, remedy)
    except AdapterError as error:
        raise CacheUnavailable(str(error)) from error
    version = found.get("format")
    if version != FORMAT_VERSION:
        raise CacheUnavailable(f"{path / GROUP} is of format {version!r}, this is {FORMAT_VERSION}; {remedy}")
    try:
        spec = TypeAdapter(RowSpec).validate_json(json.dumps(found.get("rows")), strict=True)
    except ValidationError:
        spec = None
    if spec is None or spec.name != path.name or spec.described() != found:
        raise CacheUnavailable(f"{path / GROUP} describes other rows than the name of its directory; {remedy}")
    return spec


def make_group(directory: Path, spec: RowSpec) -> Path:
    """Have the directory of a group, for its owner alone, and have its `group.json` say what `spec` says.

    Raises:
        CacheUnavailable: it says something else, or cannot be written.
        OSError: a directory cannot be made.
    """
    path = directory / spec.name
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    own_directory(path)
    if not (path / GROUP).exists():
        with as_os_error():
            write_text(path / GROUP, json.dumps(spec.described(), indent=1) + "\n")
    described_spec(path)
    return path


def own_directory(path: Path) -> None:
    """Have a directory within the cache that only its owner can look into.

    Raises:
        CacheUnavailable: it is a link.
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink():  # or a row would be written where it points to
        raise CacheUnavailable(f"{path} is not a directory; remove it.")


@contextmanager
def as_os_error() -> Iterator[None]:
    """Raise what the system said where `lora_sam.core.files` says it in words that are not ours."""
    try:
        yield
    except TrainingError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, OSError) else CacheUnavailable(str(error)) from error


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
    if error.errno in READ_ONLY:
        return f"the embedding cache cannot be written: {directory} is read-only; {remedy}."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"the embedding cache cannot be made: {directory} or a parent is a file, not a directory; {remedy}."
    return f"the embedding cache in {directory} cannot be used: {error.strerror or error}; {remedy}."
