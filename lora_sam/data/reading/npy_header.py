"""The header of an array that NumPy saved (NEP 1): type and shape, before memory is taken for its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

MAX_HEADER = 4096
"""Characters of a header that is read; one of a plain array has 128."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class Header:
    """What a header says.

    Attributes:
        shape: Of the array.
        dtype: Of its values.
        length: Bytes of the header itself.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    length: int

    @property
    def bytes(self) -> int:
        """Bytes that its values take."""
        return self.dtype.itemsize * math.prod(self.shape)


def read_header(stream: IO[bytes]) -> Header:
    """The header at the beginning of a stream, which is behind it afterwards.

    Raises:
        ValueError: it is none of version 1 or 2 of the format. NumPy parses it as Python literals, which fails with
            other errors too.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    shape, _, dtype = _HEADERS[version](stream, max_header_size=MAX_HEADER)
    return Header(shape, dtype, stream.tell())
