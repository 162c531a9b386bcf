"""Rows in a file each: safetensors, beside its place until it is whole, with a digest of all that it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lora_sam.core.beside import TEMPORARY
from lora_sam.core.files import atomic_path
from lora_sam.predictors.embeddings.layout import (
    READ_ONLY,
    CacheMiss,
    CacheUnavailable,
    RowSpec,
    RowTooLarge,
    as_os_error,
    own_directory,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

FAN = re.compile(r"[0-9a-f]{2}")
_ROW = re.compile(r"([0-9a-f]{64})\.safetensors")
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # neither is everywhere


class Row(NamedTuple):
    """A file of a row.

    Attributes:
        path: Where it is.
        key: Its key; None for what a killed process left.
        bytes: Its size.
        used: When it was wanted last, in nanoseconds since 1970: its time of modification.
    """

    path: Path
    key: str | None
    bytes: int
    used: int


def row_path(group: Path, key: str) -> Path:
    """Where the row of a key lies: in one of 256 directories, so that none has very many entries."""
    return group / key[:2] / f"{key}.safetensors"


def rows_of(group: Path) -> Iterator[Row]:
    """All rows of a group; files that are not ours, and links, are left out."""
    for place in directories(group, FAN):
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                left = TEMPORARY.fullmatch(entry.name)  # by a process that was killed
                name = _ROW.fullmatch(left[1] if left else entry.name)
                if name is not None and entry.is_file(follow_symlinks=False):
                    with suppress(OSError):  # gone meanwhile
                        about = entry.stat(follow_symlinks=False)
                        yield Row(place / entry.name, None if left else name[1], about.st_size, about.st_mtime_ns)


def directories(parent: Path, name: re.Pattern[str]) -> list[Path]:
    """Directories with such names, no links; none where `parent` cannot be read."""
    try:
        with os.scandir(parent) as entries:
            return [
                parent / entry.name
                for entry in entries
                if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def write_row(group: Path, spec: RowSpec, key: str, row: Mapping[str, Tensor]) -> None:
    """Have a row on the disk, whole, before its name is there. Raises `OSError` or `CacheUnavailable`.

    Args:
        group: Directory of the group.
        spec: What its rows are.
        key: SHA-256 as hexadecimal digits.
        row: What `as_stored` made.
    """
    from safetensors.torch import save

    digest = _digest(spec, key, {name: values.numpy().data for name, values in row.items()})
    path = row_path(group, key)
    own_directory(path.parent)
    data = save(dict(row), metadata={"sha256": digest})
    assert len(data) <= spec.file_bytes, (len(data), spec)
    with as_os_error(), atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_row(group: Path, spec: RowSpec, key: str) -> dict[str, Tensor]:
    """A row as it lies on disk, in memory of its own; must not be written to.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or is a link.
        CacheMiss: it is damaged, or another row.
    """
    import torch
    from safetensors import SafetensorError, deserialize

    with open(os.open(row_path(group, key), os.O_RDONLY | _NO_LINKS), "rb", buffering=0) as file:
        data = file.read(spec.file_bytes + 1)  # whatever may lie there
    try:
        found = dict(deserialize(data))  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise CacheMiss(f"it is no whole file: {error}") from error
    kind = {"float16": "F16", "float32": "F32"}[spec.dtype]
    shapes = {name: tuple(values["shape"]) for name, values in found.items() if values["dtype"] == kind}
    if shapes != dict(spec.shapes) or len(shapes) != len(found):
        raise CacheMiss("it holds something else")
    if header.get("__metadata__", {}).get("sha256") != _digest(
        spec, key, {name: memoryview(values["data"]) for name, values in found.items()}
    ):
        raise CacheMiss("its digest is another")
    dtype = getattr(torch, spec.dtype)
    return {name: torch.frombuffer(found[name]["data"], dtype=dtype).view(shape) for name, shape in shapes.items()}


def touch(path: Path) -> None:
    """Note that a row is wanted now, where that may be noted. Raises `OSError` where there is none."""
    try:
        os.utime(path, follow_symlinks=os.utime not in os.supports_follow_symlinks)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


def as_stored(made: Mapping[str, NDArray[np.float32]], count: int, spec: RowSpec) -> list[dict[str, Tensor]]:
    """Rows in the type in which they are kept, from float32 [count, *shape] of every map.

    Raises:
        RowTooLarge: a number does not fit in float16.
        CacheUnavailable: one is not finite.
    """
    import torch

    assert made.keys() == spec.shapes.keys(), (made.keys(), spec.shapes)
    dtype, stored = getattr(torch, spec.dtype), {}
    for name, numbers in made.items():
        values = torch.from_numpy(numbers)
        assert values.dtype == torch.float32, values.dtype
        assert values.shape == (count, *spec.shapes[name]), (values.shape, spec.shapes)
        low, high = (value.item() for value in values.aminmax())
        if not (-float("inf") < low and high < float("inf")):
            raise CacheUnavailable(
                "the image encoder made numbers that are not finite, which are not kept; check the weights, or compute "
                "with trainer.precision=fp32."
            )
        if spec.dtype == "float16" and max(-low, high) > torch.finfo(torch.float16).max:
            raise RowTooLarge(f"{max(-low, high):.3g} does not fit in float16; store with cache.dtype=float32.")
        stored[name] = values.to(dtype)
    return [{name: values[place].contiguous() for name, values in stored.items()} for place in range(count)]


def _digest(spec: RowSpec, key: str, row: Mapping[str, memoryview]) -> str:
    """SHA-256 of what a row is and of its numbers, so that no row is taken for another."""
    found = hashlib.sha256(f"{spec.name} {key}".encode())
    for name in sorted(row):
        found.update(row[name])
    return found.hexdigest()
