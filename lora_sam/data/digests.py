"""Names for images by their content."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.reading.images import ImageFile


def digest_of_pixels(image: NDArray[np.uint8]) -> str:
    """SHA-256 of a decoded image, its shape included, in hexadecimal."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def digest_of_file(file: ImageFile) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # any file of bytes will do
