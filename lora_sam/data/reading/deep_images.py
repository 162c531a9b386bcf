"""Images with more than 8 bits, fractions, or more bands than Pillow knows, by tifffile and imagecodecs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lora_sam.core.calling import typed_here
from lora_sam.core.errors import DataError
from lora_sam.data.reading.image_file import (
    ORIENTATION_TAG,
    REMEDY,
    ImageFile,
    opened_image,
    pixel_limit,
    several_pages,
    too_large,
    upright,
)

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BANDS = 64
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).swapaxes(0, 1),
    8: np.rot90,
}
_J2K_HEAD = 2**16  # bytes before which the code stream begins
_SAMPLES, _NODATA_TAG = 277, 42113


@dataclass(frozen=True)
class DeepPixels:
    """Values [H, W, C] of an image with more than 8 bits, fractions, or more bands than Pillow knows.

    Attributes:
        values: Integers or fractions, turned upright.
        nodata: What stands for a pixel without a value (GDAL_NODATA), if the file says so.
    """

    values: NDArray[Any]
    nodata: float | None = None


def deep_pixels(path: ImageFile) -> DeepPixels | None:
    """The values of an image that 8 bits of grey or colour do not hold; None for any other.

    Raises:
        DataError: as `read_image` does, or a package that reads such files is not installed.
    """
    if is_unknown_tiff(path):
        return read_tiff(path)
    with opened_image(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            return DeepPixels(np.asarray(upright(image, path))[:, :, None])
        kind = image.format
        if kind != "JPEG2000" and not has_16_bits(image):
            return None
    if kind == "TIFF":
        return read_tiff(path)
    if kind == "JPEG2000" and not _is_deep_jpeg2000(path):
        return None
    with _package(path) as codecs, path.open("rb") as file:
        package = codecs("imagecodecs")
        values = np.asarray((package.jpeg2k_decode if kind == "JPEG2000" else package.png_decode)(file.read()))
    return DeepPixels(values if values.ndim == 3 else values[:, :, None])


def is_deep(path: ImageFile) -> bool:
    """Whether `deep_pixels` has something to say of an image, from its header alone. Raises `DataError` as it does."""
    if is_unknown_tiff(path):
        return True
    with opened_image(path) as image:
        if image.format == "JPEG2000":
            return _is_deep_jpeg2000(path)
        return image.mode.startswith("I") or image.mode == "F" or has_16_bits(image)


def has_16_bits(image: Image.Image) -> bool:
    """Whether an image that was opened and not read yet has 16-bit colour, of which Pillow keeps the high bytes."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _is_deep_jpeg2000(path: ImageFile) -> bool:
    """Whether a component has more than 8 bits, of which Pillow keeps the high ones (SIZ marker, ISO 15444-1)."""
    with path.open("rb") as file:
        head = file.read(_J2K_HEAD)
    place = head.find(b"\xff\x4f\xff\x51")
    count = int.from_bytes(head[place + 40 : place + 42]) if place >= 0 else 0
    return any((depth & 0x7F) + 1 > 8 for depth in head[place + 42 : place + 42 + 3 * count : 3])


@contextmanager
def _package(path: ImageFile) -> Iterator[Callable[[str], Any]]:
    """Imports what reads `path`; failures of it become a `DataError`."""
    try:
        yield import_module
    except ImportError as error:
        raise DataError(
            f"{path}: has 16-bit colour, fractions or several bands, which the package {error.name} reads; "
            f"install it with {typed_here(f'pip install {error.name}')}.",
            "unreadable_file",
        ) from error
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: truncated or damaged ({reason}); {REMEDY}.", "unreadable_file") from error


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins so is a TIFF."""
    return start[:4] in _TIFF_STARTS


def is_unknown_tiff(path: ImageFile) -> bool:
    """Whether a file is a TIFF with pixels that Pillow has no mode for, such as eight bands or planes of 16 bits."""
    if isinstance(path, Path) and path.suffix.lower() not in (".tif", ".tiff"):
        return False  # without opening it once more
    try:
        with path.open("rb") as file:
            if not is_tiff(file.read(4)):
                return False
            file.seek(0)
            try:
                with Image.open(file, formats=("TIFF",)) as image:
                    # planes of 16 bits: Pillow takes the first for all
                    return image.mode[0] in "IF" and getattr(image, "tag_v2", {}).get(_SAMPLES, 1) > 1
            except (UnidentifiedImageError, SyntaxError, KeyError, ValueError):
                return True
    except (OSError, Image.DecompressionBombError):
        return False  # whoever opens it says so


@contextmanager
def tiff_page(path: ImageFile) -> Iterator[Any]:
    """The first full page of a TIFF, by tifffile. Raises `DataError` as `read_tiff`."""
    with _package(path) as package:
        tifffile = package("tifffile")
        with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            if page.imagewidth * page.imagelength > pixel_limit() or page.samplesperpixel > _MOST_BANDS:
                raise too_large(path, f"{page.imagewidth}x{page.imagelength} pixels of {page.samplesperpixel} bands")
            full = sum(not other.is_reduced for other in tiff.pages)
            if full > 1:
                raise several_pages(path, full, stack=True)
            yield page


def read_tiff(path: ImageFile) -> DeepPixels:
    """The values of a TIFF as tifffile reads them.

    Raises:
        DataError: it is damaged, too large, or has several pages.
    """
    with tiff_page(path) as page:
        values = page.asarray()
        if "S" in page.axes and page.axes.index("S") == 0:
            values = np.moveaxis(values, 0, -1)
        values = values if values.ndim == 3 else values[:, :, None]
        tag, nodata = page.tags.get(ORIENTATION_TAG), page.nodata
        turn = _TURNS.get(int(tag.value) if tag is not None else 1)
        said = page.tags.get(_NODATA_TAG) is not None
        return DeepPixels(values if turn is None else turn(values), float(nodata) if said else None)
