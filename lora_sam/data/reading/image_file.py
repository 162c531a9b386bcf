"""Picture files that are opened by Pillow: every failure as a `DataError`, limits, pages and orientation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Literal, Protocol

from PIL import Image, UnidentifiedImageError

from lora_sam.core.errors import DataError
from lora_sam.data.reading.file_types import remedy_for, type_of

MAX_PIXELS = 64 * 10**6
"""Images with more pixels are refused before they are decoded."""

MAX_TILED_PIXELS = 178 * 10**6
"""The same where an image is cut into tiles; Pillow opens no larger ones."""

_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)  # of the thread that reads; None is `MAX_PIXELS`
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "JPEG2000", "GIF")
"""Those of Pillow that are read."""
REMEDY = "copy it again from its source, or leave it out"
_SUBFILE_TAG = 254
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_PACKED = ("raw", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")  # what a TIFF usually is
_START = 2**16  # bytes that tell what a file is
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # our errors say what is wrong with a file
ORIENTATION_TAG = 0x0112


class SeveralPagesError(DataError):
    """A file has several pictures, where one is needed.

    Attributes:
        stack: Whether they are pages of a TIFF.
    """

    stack = False


class ImageFile(Protocol):
    """What is needed of a file with a picture: a `pathlib.Path`, or a picture inside another file. `str` names it."""

    def is_file(self) -> bool:
        """Whether there is something to read."""
        ...

    def exists(self) -> bool:
        """Whether it is there, as a file or as something else."""
        ...

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Its bytes, to be closed."""
        ...


@contextmanager
def opened_image(path: ImageFile) -> Iterator[Image.Image]:
    """An image whose header was read, with every failure on it, now or while it is decoded, as a `DataError`."""
    packed = None
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise DataError(
                f"{path}: {what}; restore it, correct the name, or leave it out.",
                "missing_file",
            )
        # an open file, not a name: Pillow maps uncompressed files into memory, and then garbles turned TIFF
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > pixel_limit():
                raise too_large(path, f"{width}x{height} pixels")
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if image.format == "TIFF":
                pages = full_pages(image) if pages > 1 else pages
                packed = image.info.get("compression")
            if pages > 1:
                raise several_pages(path, pages, stack=image.format == "TIFF")
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise too_large(path, str(error) or "more than fits into memory") from error
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        with path.open("rb") as file:
            kind = type_of(str(path), file.read(_START))
        if kind is not None:
            raise DataError(
                f"{path}: is {kind}, which is not read ({names} are); {remedy_for(kind)}.", "unreadable_file"
            ) from error
        raise DataError(
            f"{path}: is damaged or not an image ({names} are read); {REMEDY}.", "unreadable_file"
        ) from error
    except PermissionError as error:
        raise DataError(f"{path}: may not be read; correct its permissions.", "unreadable_file") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if packed not in (None, *_PACKED):
            raise DataError(
                f"{path}: is damaged, or packed in a way that is not read ({packed}: {reason}); save it with LZW or "
                "Deflate.",
                "unreadable_file",
            ) from error
        raise DataError(f"{path}: truncated or damaged ({reason}); {REMEDY}.", "unreadable_file") from error


def pixel_limit() -> int:
    """Most pixels of an image that is read by this thread."""
    return _LIMIT.get() or MAX_PIXELS


@contextmanager
def read_up_to(pixels: int) -> Iterator[None]:
    """Inside this context, and this thread, images of up to `pixels` pixels are read instead of `MAX_PIXELS`."""
    token = _LIMIT.set(pixels)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def full_pages(image: Image.Image) -> int:
    """Pages of a TIFF that are neither overviews of another nor masks; the first is open afterwards."""
    kinds = []
    for page in range(getattr(image, "n_frames", 1)):
        image.seek(page)
        kinds.append(int(getattr(image, "tag_v2", {}).get(_SUBFILE_TAG, 0)))
    image.seek(0)
    return sum(not kind & (_REDUCED | _MASK) for kind in kinds)


def several_pages(path: ImageFile, pages: int, *, stack: bool) -> DataError:
    """The error for a file of several pictures."""
    error = SeveralPagesError(f"{path}: has {pages} pages; save one image per file.", "unreadable_file")
    error.stack = stack
    return error


def too_large(path: ImageFile, what: str) -> DataError:
    """The error for a picture with too many pixels."""
    return DataError(
        f"{path}: {what}; at most {pixel_limit() // 10**6} megapixels are read. Scale it down or cut tiles.",
        "too_large",
    )


def upright(image: Image.Image, path: ImageFile) -> Image.Image:
    """The decoded picture, turned as its EXIF orientation says."""
    method = _UPRIGHT.get(orientation_of(image, path))
    image.load()
    return image if method is None else image.transpose(method)


def orientation_of(image: Image.Image, path: ImageFile) -> int:
    """The EXIF orientation that is still to be applied, 1 for none."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF by itself, and its header size is the turned one
    if image.format == "PNG" and "exif" not in image.info and _has_exif_chunk(path):
        image.load()  # EXIF behind the pixels is known only after decoding
    # the method of the base class: PNG's own decodes the whole picture to look for EXIF
    orientation = Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    return orientation if isinstance(orientation, int) else 1


def _has_exif_chunk(path: ImageFile) -> bool:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4]) + 4, 1)
    return False


def place_of(files: Sequence[ImageFile]) -> str:
    """Where the files are, for messages: the folder of the first, or the table that it is in."""
    return str(getattr(files[0], "parent", files[0])) if files else ""
