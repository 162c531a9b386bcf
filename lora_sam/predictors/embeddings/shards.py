"""Rows of one size in files of many: written past no mapping, read through one."""

from __future__ import annotations

import mmap
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lora_sam.core.files import sync
from lora_sam.predictors.embeddings.layout import CacheUnavailable, RowSpec, RowTooLarge

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

# each mapping holds a file descriptor, of which a process has 1024 by default
_MOST_MAPPINGS = 256
_PAGE = 4096


class _Mapping(NamedTuple):
    file: mmap.mmap
    numbers: torch.Tensor


def checksum(key: str, row: NDArray[np.uint8]) -> int:
    """32 bits that differ where a bit of the row, one of its pages, or the key does.

    CRC-32 over the key and the sums modulo 2^64 of the row's pages of 4096 bytes: adding runs at the speed of memory,
    20 times that of CRC-32 over all bytes. It sees every single flipped bit, pages that are lost or exchanged, and rows
    in the place of others; not words exchanged within a page.

    Args:
        key: Key of the row.
        row: Its bytes, contiguous.
    """
    whole = len(row) // _PAGE * _PAGE
    sums = np.add.reduce(row[:whole].view(np.uint64).reshape(-1, _PAGE // 8), axis=1)
    return zlib.crc32(row[whole:].data, zlib.crc32(sums.data, zlib.crc32(key.encode())))


class Shards:
    """The files of rows of one group and generation."""

    def __init__(self, directory: Path, spec: RowSpec, generation: str) -> None:
        self.directory = directory
        self.spec = spec
        self.generation = generation
        self._mappings: dict[int, _Mapping] = {}

    def path(self, number: int) -> Path:
        """File of the shard with this number."""
        return self.directory / f"rows-{self.generation}-{number:05d}.bin"

    def write(self, slots: Sequence[int], rows: NDArray[np.uint8]) -> None:
        """Have rows, [n, row_bytes], on the disk in their slots, before this returns.

        A full disk is an `OSError` here, where writing through a mapping would end the process.
        """
        made = False
        by_shard: dict[int, list[int]] = {}
        for position, slot in enumerate(slots):
            by_shard.setdefault(slot // self.spec.rows_per_shard, []).append(position)
        for number, positions in by_shard.items():
            path = self.path(number)
            made = made or not path.exists()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                for position in positions:
                    _write_all(descriptor, rows[position], self._offset(slots[position]))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if made:
            sync(self.directory)

    def load(self, slot: int) -> NDArray[np.uint8]:
        """The bytes of a row, in memory of their own. Raises `OSError` where the file is absent or too short."""
        row: NDArray[np.uint8] = np.empty(self.spec.row_bytes, np.uint8)
        path = self.path(slot // self.spec.rows_per_shard)
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            file.seek(self._offset(slot))
            count = file.readinto(row.data)
        if count < len(row):
            raise OSError(f"{path} is too short")
        return row

    def view(self, slot: int) -> torch.Tensor:
        """A row as it is on the disk, float16 or float32 [numbers]. Must not be written to.

        Raises `OSError` where the file is absent or too short: looking there would end the process.
        """
        number, row = divmod(slot, self.spec.rows_per_shard)
        mapping = self._mappings.get(number)
        end = (row + 1) * self.spec.row_bytes
        if mapping is None or len(mapping.file) < end:
            mapping = self._map(number, end)
        if mapping.file.size() < end:  # has become shorter
            raise OSError(f"{self.path(number)} is too short")
        return mapping.numbers[row * self.spec.numbers : (row + 1) * self.spec.numbers]

    def as_numbers(self, row: NDArray[np.uint8]) -> torch.Tensor:
        """The bytes of a row as float16 or float32 [numbers], in the same memory."""
        import torch

        return torch.from_numpy(row).view(getattr(torch, self.spec.dtype))

    def remove_others(self) -> None:
        """Remove files of rows of other generations, whose index is lost; who has them open can still read them."""
        for path in self.directory.glob("rows-*.bin"):
            if not path.name.startswith(f"rows-{self.generation}-"):
                path.unlink(missing_ok=True)

    def _map(self, number: int, end: int) -> _Mapping:
        import torch

        descriptor = os.open(self.path(number), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            if size < end:
                raise OSError(f"{self.path(number)} is too short")
            whole = size // self.spec.row_bytes * self.spec.row_bytes
            file = mmap.mmap(descriptor, whole, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        with warnings.catch_warnings():
            # that a mapping for reading cannot be written is what it is for
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            numbers = torch.frombuffer(file, dtype=getattr(torch, self.spec.dtype))
        while len(self._mappings) >= _MOST_MAPPINGS:
            del self._mappings[next(iter(self._mappings))]
        self._mappings[number] = mapping = _Mapping(file, numbers)
        return mapping

    def _offset(self, slot: int) -> int:
        return slot % self.spec.rows_per_shard * self.spec.row_bytes


def as_stored(rows: NDArray[np.float32], count: int, spec: RowSpec) -> NDArray[np.uint8]:
    """Rows as bytes of the type in which they are kept: [count, row_bytes] from float32 [count, *shape].

    Raises:
        RowTooLarge: a number does not fit in float16.
        CacheUnavailable: one is not finite.
    """
    import torch

    values = torch.from_numpy(rows)
    assert values.dtype == torch.float32, values.dtype
    assert values.shape == (count, *spec.shape), (values.shape, spec.shape)
    low, high = (value.item() for value in values.aminmax())
    if not (-float("inf") < low and high < float("inf")):
        raise CacheUnavailable(
            "the image encoder made numbers that are not finite, which are not kept; check the weights, or compute "
            "with trainer.precision=fp32."
        )
    if spec.dtype == "float16" and max(-low, high) > torch.finfo(torch.float16).max:
        raise RowTooLarge(f"{max(-low, high):.3g} does not fit in float16; store with cache.dtype=float32.")
    stored = values.to(getattr(torch, spec.dtype)).contiguous().view(count, -1).view(torch.uint8)
    found: NDArray[np.uint8] = stored.numpy()
    return found


def _write_all(descriptor: int, row: NDArray[np.uint8], offset: int) -> None:
    left = row.data
    while left:
        count = os.pwrite(descriptor, left, offset)
        left, offset = left[count:], offset + count
