"""What readers of volumes share: limits, and failures of their packages as errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.reading.image_file import MAX_PIXELS

MAX_BYTES = 4 * 2**30
"""A volume that has to be unpacked as a whole is refused where it needs more memory than this."""

MAX_SLICES = 100_000


def check_slices(path: Path, height: int, width: int, count: int) -> None:
    """Raise `DataError` where slices are too large or too many."""
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{path}: slices of {width}x{height} pixels; at most {MAX_PIXELS // 10**6} megapixels are read. Scale them "
            "down or cut tiles.",
            "too_large",
        )
    if count > MAX_SLICES:
        raise DataError(f"{path}: has {count} slices; at most {MAX_SLICES} are read. Cut it.", "too_large")


def check_memory(path: Path, size: int) -> None:
    """Raise `DataError` where a volume that is unpacked as a whole needs more than `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise DataError(
            f"{path}: needs {size / 2**30:.1f} GiB as a whole; at most {MAX_BYTES // 2**30} GiB are read. Cut it.",
            "too_large",
        )


@contextmanager
def reading(path: Path, package: str) -> Iterator[None]:
    """Failures of the package that reads `path` as a `DataError`."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:
        raise damaged(path, f"{package}: {' '.join(str(error).split())[:120] or type(error).__name__}") from error


def damaged(path: Path, reason: str) -> DataError:
    """The error for a volume that is not what its header says."""
    return DataError(
        f"{path}: truncated or damaged ({reason}); copy it again from its source, or leave it out.", "unreadable_file"
    )
