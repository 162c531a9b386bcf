"""Image files as arrays, whatever their format, bit depth and orientation."""

from __future__ import annotations

import hashlib
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading.deep_images import deep_pixels, is_unknown_tiff, tiff_page
from lora_sam.data.reading.image_file import ORIENTATION_TAG, ImageFile, opened_image, orientation_of, upright
from lora_sam.data.reading.pixel_scale import PixelScale, measured

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".jp2", ".j2k", ".gif"})
"""Lower-case file name endings of what can be read."""

_BYTE_MAX, _WORD_MAX = 0xFF, 0xFFFF
_LEARNT = (32 << 20) - (1 << 16)  # bytes; glibc learns from blocks of up to 32 MiB


def read_image(
    path: str | PathLike[str] | ImageFile, scale: PixelScale | str | PathLike[str] | None = None
) -> NDArray[np.uint8]:
    """The picture as it is meant to be seen: RGB, uint8 [H, W, 3], EXIF orientation applied.

    PNG, JPEG, TIFF, WebP, BMP or GIF with one picture. Grey becomes three equal channels, palettes are looked up, an
    alpha channel is dropped. 8 bits are taken as they are. Of more bits, fractions or more bands `scale` says what is
    black and white; without one, 16-bit grey is scaled with `>> 8` when its maximum exceeds 255 and taken as it is
    otherwise, and of 16-bit colour the high bytes are used.

    Args:
        path: The file.
        scale: That of the data set it belongs to; or the directory of a run or adapter that was trained on it, which
            says it in `lora_sam.json`.

    Raises:
        DataError: the file is missing, truncated, no such image, has several pages, more than `MAX_PIXELS` pixels,
            or, without a scale, values that are not 8 or 16 bit.
    """
    _keep_freed_memory()
    path = Path(path) if isinstance(path, (str, PathLike)) else path
    scale = PixelScale.of_run(Path(scale)) if isinstance(scale, (str, PathLike)) else scale
    deep = deep_pixels(path) if scale is not None or is_unknown_tiff(path) else None
    if deep is not None:
        scale = scale or measured([deep.values], "auto", None, [deep.nodata])
        if deep.values.dtype == np.uint8:  # as it is, whatever the others need
            scale = PixelScale(scale.bands, (0.0,) * 3, (255.0,) * 3)
        try:
            return scale.applied(deep.values)
        except DataError as error:
            raise DataError(f"{path}: cannot be read as a picture: {error}.", "unreadable_file") from error
    with opened_image(path) as image:
        picture = upright(image, path)
        if picture.mode == "F":
            raise DataError(
                f"{path}: has floating-point pixels; save it with 8 or 16 bits per channel.", "unreadable_file"
            )
        if not picture.mode.startswith("I"):
            return rgb_of(picture)
        grey = np.asarray(picture)
        low, high = int(grey.min()), int(grey.max())
        if low < 0 or high > _WORD_MAX:
            raise DataError(
                f"{path}: has values {low} to {high}; save it with 8 or 16 bits per channel (0 to 65535).",
                "unreadable_file",
            )
        grey = (grey >> 8 if high > _BYTE_MAX else grey).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)


def rgb_of(picture: Image.Image) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3], of a picture of 8 bits: grey three times, palettes looked up, alpha dropped."""
    # colours times alpha, and palettes with transparency, need the detour; alpha is dropped either way
    picture = picture.convert(picture.mode.upper()) if picture.mode in ("La", "RGBa") else picture
    picture = picture.convert("RGBA") if "transparency" in picture.info else picture
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def check_pixels(path: ImageFile) -> None:
    """Decode an image once, whatever its values will become. Raises `DataError` as `read_image` does."""
    if deep_pixels(path) is None:
        read_image(path)


def image_size(path: ImageFile) -> tuple[int, int]:
    """(height, width) in pixels after EXIF orientation, from the header alone. Raises `DataError` as `read_image`."""
    if is_unknown_tiff(path):
        with tiff_page(path) as page:
            return page.imagelength, page.imagewidth
    with opened_image(path) as image:
        width, height = image.size
        return (width, height) if orientation_of(image, path) in (5, 6, 7, 8) else (height, width)


def turned_by(path: ImageFile) -> int:
    """The EXIF orientation, 1 to 8, that `read_image` applies; 1 for none. Raises `DataError` as `read_image` does."""
    if is_unknown_tiff(path):
        return 1
    with opened_image(path) as image:
        if image.format != "TIFF":
            return orientation_of(image, path)
        stored = getattr(image, "tag_v2", {}).get(ORIENTATION_TAG, 1)
        return stored if isinstance(stored, int) else 1


def is_jpeg(path: ImageFile) -> bool:
    """Whether the content is JPEG, whatever the file is called. Raises `DataError` as `read_image` does."""
    if is_unknown_tiff(path):
        return False
    with opened_image(path) as image:
        return image.format in ("JPEG", "MPO")


def pixel_kind(path: ImageFile) -> Literal["grey", "palette", "colour"]:
    """What the pixels of a file are, from its header. Raises `DataError` as `read_image` does."""
    if is_unknown_tiff(path):
        with tiff_page(path) as page:
            return "grey" if page.samplesperpixel == 1 else "colour"
    with opened_image(path) as image:
        if image.mode in ("P", "PA"):
            return "palette"
        return "grey" if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I") else "colour"


def read_reduced(path: ImageFile, width: int, height: int) -> NDArray[np.uint8]:
    """The whole picture shrunk to `width` x `height` pixels of grey, uint8 [height, width], by averaging.

    Of a JPEG no more is decoded than that takes. Raises `DataError` as `read_image` does.
    """
    with opened_image(path) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (4 * width, 4 * height))
            grey = upright(image, path).convert("L")
        else:
            deep = deep_pixels(path)
            scale = None if deep is None else measured([deep.values], "auto", None, [deep.nodata])
            grey = Image.fromarray(read_image(path, scale)).convert("L")
        return np.asarray(grey.resize((width, height), Image.Resampling.BOX))


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep the memory of one image for the next, at most 64 MiB; does nothing where it is not glibc.

    Memory that is given back to the system is cleared page by page when it is asked for again, which can take longer
    than decoding. glibc keeps blocks up to the size of the largest that was freed, and twice as much in all
    (`mallopt(3)`, M_MMAP_THRESHOLD): one large block, never written to, teaches it.
    """
    np.empty(_LEARNT, np.uint8)


def digest_of_pixels(image: NDArray[np.uint8]) -> str:
    """SHA-256 of a decoded image, its shape included, in hexadecimal."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def digest_of_file(file: ImageFile) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # any file of bytes will do
