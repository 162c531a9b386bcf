"""Images from a browser: looked at from the outside in, so that none costs more than it may."""

from __future__ import annotations

import hashlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading.deep_images import deep_pixels, is_tiff
from lora_sam.data.reading.file_types import type_of
from lora_sam.data.reading.image_file import FORMATS, full_pages
from lora_sam.data.reading.images import image_size, read_image
from lora_sam.data.reading.pixel_scale import PixelScale

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 25 * 10**6
_NAMES = "PNG, JPEG, WebP, BMP, GIF or TIFF"


@dataclass(frozen=True)
class Upload:
    """An image that was accepted.

    Attributes:
        id: `upload:` and 24 hexadecimal digits of its content's SHA-256.
        name: What its file was called, for people only.
        image: RGB, uint8 [H, W, 3].
        deep: Whether its file has more than 8 bits or bands, so that each run may read it otherwise.
    """

    id: str
    name: str
    image: NDArray[np.uint8]
    deep: bool


def read_upload(name: str, content: bytes, scale: PixelScale | None = None) -> Upload:
    """Check the size in bytes, then format, pages and pixels from the header, and only then decode.

    Args:
        name: What the file was called; shown in messages, never opened.
        content: The file.
        scale: How the run that is looked at reads images of more than 8 bits; without one, as `read_image` does.

    Raises:
        DataError: one sentence: too large, no image of the listed formats, several pages, too many pixels, damaged.
    """
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())[-80:] or "the image"
    if not content:
        raise DataError(f"{name} is empty; choose {_NAMES}.")
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{name} has {len(content) / 2**20:.0f} MiB, at most {MAX_BYTES // 2**20} MiB are taken; save it smaller."
        )
    with tempfile.TemporaryDirectory(prefix="lora_sam-") as folder:
        path = Path(folder) / ("upload.tif" if is_tiff(content) else "upload")
        path.write_bytes(content)
        _check_header(name, content, path)
        try:
            deep = deep_pixels(path) is not None
            pixels = read_image(path, scale)
        except DataError as error:
            reason = str(error).removeprefix(f"{path}: ")
            if "damaged" in reason or folder in reason:
                reason = "cannot be decoded, it is truncated or damaged; save it again."
            raise DataError(f"{name} {reason}") from error
    return Upload(f"upload:{hashlib.sha256(content).hexdigest()[:24]}", name, pixels, deep)


def _check_header(name: str, content: bytes, path: Path) -> None:
    """Raise `DataError` for what is no image, or too large, before it is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if pages > 1 and image.format == "TIFF":
                pages = full_pages(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has too many pixels, at most {MAX_PIXELS // 10**6} megapixels are taken.") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        if not is_tiff(content):
            kind = type_of("", content[:132])
            what = "is damaged or not an image" if kind is None else f"is {kind}, which is not taken"
            raise DataError(f"{name} {what}; choose {_NAMES}.") from error
        try:  # bands that Pillow does not know
            height, width = image_size(path)
            pages = 1
        except DataError as worse:
            raise DataError(f"{name} {str(worse).removeprefix(f'{path}: ')}") from worse
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width} x {height} pixels, at most {MAX_PIXELS // 10**6} megapixels are taken; "
            "scale it down or cut a part out."
        )
    if pages > 1:
        raise DataError(f"{name} has {pages} pages or frames; save one of them as an image of its own.")
