"""What each image of a data set held, as short digests that tell later whether somebody edited it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.core.files import digest_of

if TYPE_CHECKING:
    from lora_sam.data.sources import SampleSource

THOROUGH = 1000
"""Files of a split that are read for it, evenly spaced; of the others the length alone is compared."""

_DIGITS = 16
_CHUNK = 2**20


@runtime_checkable
class Fingerprinted(Protocol):
    """A source that can tell whether an image or its labels were edited."""

    def fingerprint(self, index: int, *, thorough: bool) -> tuple[str, str]:
        """Digests of the image's file and of its masks and classes as they are stored.

        Args:
            index: Which sample.
            thorough: Whether the bytes of files count, or only how many there are.
        """
        ...


def fingerprints(source: SampleSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """For each sample a digest of its image, and one of its labels."""
    step = max(1, -(-len(source) // THOROUGH))
    pairs = [fingerprint_of(source, index, thorough=index % step == 0) for index in range(len(source))]
    return tuple(image for image, _ in pairs), tuple(labels for _, labels in pairs)


def digest_of_source(source: SampleSource) -> str:
    """SHA-256 that stands for names, images and labels of a source."""
    return digest_of({"ids": list(source.ids), "contents": fingerprints(source)})


def fingerprint_of(source: SampleSource, index: int, *, thorough: bool) -> tuple[str, str]:
    """See `Fingerprinted`; for a source that is none, of the size and the number of objects."""
    if isinstance(source, Fingerprinted):
        return source.fingerprint(index, thorough=thorough)
    counts = source.object_counts
    return short_digest(source.sizes[index], False), short_digest(None if counts is None else counts[index], False)


def short_digest(value: Any, thorough: bool) -> str:
    """A digest of plain values, dataclasses of them, and the contents of files, wherever these lie."""
    digest = hashlib.sha256()
    for part in _parts(value, thorough):
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]


def _parts(value: Any, thorough: bool) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield b"%d:" % len(value)
        yield value
    elif callable(getattr(value, "open", None)):
        yield from _file(value, thorough)
    elif isinstance(value, tuple | list):
        yield b"%d(" % len(value)
        for one in value:
            yield from _parts(one, thorough)
    elif isinstance(value, Mapping):
        yield b"%d{" % len(value)
        for key in sorted(value, key=repr):  # in whatever order it was filled
            yield from _parts((key, value[key]), thorough)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.compare:  # what makes no other value, such as where it was read, makes no other digest
                yield from _parts(getattr(value, field.name), thorough)
    elif isinstance(value, str | int | float | None):
        yield f"{value!r},".encode()
    elif isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    else:  # left out, all values of it would be one
        raise TypeError(f"{type(value).__name__}: what it says is not known")


def _file(file: Any, thorough: bool) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            if not thorough:
                yield b"%d bytes" % stream.seek(0, 2)
                return
            while chunk := stream.read(_CHUNK):
                yield chunk
    except (OSError, DataError):  # whoever needs it will say so
        yield b"unreadable"
