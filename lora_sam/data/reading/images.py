"""Image and mask files as arrays, whatever their format, bit depth and orientation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lora_sam.core.errors import DataError
from lora_sam.data.reading.file_types import remedy_for, type_of
from lora_sam.data.reading.pixel_scale import PixelScale, measured

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".jp2", ".j2k"})
"""Lower-case file name endings of what can be read."""

MAX_PIXELS = 64 * 10**6
"""Images with more pixels are refused before they are decoded."""

MAX_TILED_PIXELS = 178 * 10**6
"""The same where an image is cut into tiles; Pillow opens no larger ones."""

_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)  # of the thread that reads; None is `MAX_PIXELS`

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "JPEG2000")
_REMEDY = "copy it again from its source, or leave it out"
_ORIENTATION_TAG, _PHOTOMETRIC, _SAMPLES = 0x0112, 0x0106, 277
_SUBFILE_TAG, _NODATA_TAG = 254, 42113
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BANDS = 64
_PACKED = ("raw", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")  # what a TIFF usually is
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).swapaxes(0, 1),
    8: np.rot90,
}
_BYTE_MAX, _WORD_MAX = 0xFF, 0xFFFF
_START = 2**16  # bytes that tell what a file is
_J2K_HEAD = 2**16  # bytes before which the code stream begins
_LEARNT = (32 << 20) - (1 << 16)  # bytes; glibc learns from blocks of up to 32 MiB
_JPEG_COLOUR_NOISE = 32  # chroma error of a grey picture saved as colour JPEG; up to 9 seen
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # our errors say what is wrong with a file
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def read_image(
    path: str | PathLike[str] | ImageFile, scale: PixelScale | str | PathLike[str] | None = None
) -> NDArray[np.uint8]:
    """The picture as it is meant to be seen: RGB, uint8 [H, W, 3], EXIF orientation applied.

    PNG, JPEG, TIFF, WebP or BMP. Grey becomes three equal channels, palettes are looked up, an alpha channel is
    dropped. 8 bits are taken as they are. Of more bits, fractions or more bands `scale` says what is black and white;
    without one, 16-bit grey is scaled with `>> 8` when its maximum exceeds 255 and taken as it is otherwise, and of
    16-bit colour the high bytes are used.

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
    deep = deep_pixels(path) if scale is not None or _is_unknown_tiff(path) else None
    if deep is not None:
        scale = scale or measured([deep.values], "auto", None, [deep.nodata])
        if deep.values.dtype == np.uint8:  # as it is, whatever the others need
            scale = PixelScale(scale.bands, (0.0,) * 3, (255.0,) * 3)
        try:
            return scale.applied(deep.values)
        except DataError as error:
            raise DataError(f"{path}: cannot be read as a picture: {error}.", "unreadable_file") from error
    with _opened(path) as image:
        picture = _upright(image, path)
        if picture.mode == "F":
            raise DataError(
                f"{path}: has floating-point pixels; save it with 8 or 16 bits per channel.", "unreadable_file"
            )
        if not picture.mode.startswith("I"):
            # palette transparency needs the detour; alpha is dropped either way
            picture = picture.convert("RGBA") if "transparency" in picture.info else picture
            return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
        grey = np.asarray(picture)
        low, high = int(grey.min()), int(grey.max())
        if low < 0 or high > _WORD_MAX:
            raise DataError(
                f"{path}: has values {low} to {high}; save it with 8 or 16 bits per channel (0 to 65535).",
                "unreadable_file",
            )
        grey = (grey >> 8 if high > _BYTE_MAX else grey).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)


def check_pixels(path: ImageFile) -> None:
    """Decode an image once, whatever its values will become. Raises `DataError` as `read_image` does."""
    if deep_pixels(path) is None:
        read_image(path)


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
    if _is_unknown_tiff(path):
        return _read_tiff(path)
    with _opened(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            return DeepPixels(np.asarray(_upright(image, path))[:, :, None])
        kind = image.format
        if kind != "JPEG2000" and not any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
            return None
    if kind == "TIFF":
        return _read_tiff(path)
    if kind == "JPEG2000" and not _is_deep_jpeg2000(path):
        return None
    with _package(path) as codecs, path.open("rb") as file:
        package = codecs("imagecodecs")
        values = np.asarray((package.jpeg2k_decode if kind == "JPEG2000" else package.png_decode)(file.read()))
    return DeepPixels(values if values.ndim == 3 else values[:, :, None])


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
            f"install it with pip install {error.name}.",
            "unreadable_file",
        ) from error
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: truncated or damaged ({reason}); {_REMEDY}.", "unreadable_file") from error


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins so is a TIFF."""
    return start[:4] in _TIFF_STARTS


def _is_unknown_tiff(path: ImageFile) -> bool:
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
def _tiff_page(path: ImageFile) -> Iterator[Any]:
    with _package(path) as package:
        tifffile = package("tifffile")
        with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            if page.imagewidth * page.imagelength > _limit() or page.samplesperpixel > _MOST_BANDS:
                raise _too_large(path, f"{page.imagewidth}x{page.imagelength} pixels of {page.samplesperpixel} bands")
            full = sum(not other.is_reduced for other in tiff.pages)
            if full > 1:
                raise _several_pages(path, full, stack=True)
            yield page


def _read_tiff(path: ImageFile) -> DeepPixels:
    with _tiff_page(path) as page:
        values = page.asarray()
        if "S" in page.axes and page.axes.index("S") == 0:
            values = np.moveaxis(values, 0, -1)
        values = values if values.ndim == 3 else values[:, :, None]
        tag, nodata = page.tags.get(_ORIENTATION_TAG), page.nodata
        turn = _TURNS.get(int(tag.value) if tag is not None else 1)
        said = page.tags.get(_NODATA_TAG) is not None
        return DeepPixels(values if turn is None else turn(values), float(nodata) if said else None)


def image_size(path: ImageFile) -> tuple[int, int]:
    """(height, width) in pixels after EXIF orientation, from the header alone. Raises `DataError` as `read_image`."""
    if _is_unknown_tiff(path):
        with _tiff_page(path) as page:
            return page.imagelength, page.imagewidth
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image, path) in (5, 6, 7, 8) else (height, width)


def is_jpeg(path: ImageFile) -> bool:
    """Whether the content is JPEG, whatever the file is called. Raises `DataError` as `read_image` does."""
    if _is_unknown_tiff(path):
        return False
    with _opened(path) as image:
        return image.format in ("JPEG", "MPO")


def pixel_kind(path: ImageFile) -> Literal["grey", "palette", "colour"]:
    """What the pixels of a file are, from its header. Raises `DataError` as `read_image` does."""
    if _is_unknown_tiff(path):
        with _tiff_page(path) as page:
            return "grey" if page.samplesperpixel == 1 else "colour"
    with _opened(path) as image:
        if image.mode in ("P", "PA"):
            return "palette"
        return "grey" if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I") else "colour"


def read_reduced(path: ImageFile, width: int, height: int) -> NDArray[np.uint8]:
    """The whole picture shrunk to `width` x `height` pixels of grey, uint8 [height, width], by averaging.

    Of a JPEG no more is decoded than that takes. Raises `DataError` as `read_image` does.
    """
    with _opened(path) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (4 * width, 4 * height))
            grey = _upright(image, path).convert("L")
        else:
            deep = deep_pixels(path)
            scale = None if deep is None else measured([deep.values], "auto", None, [deep.nodata])
            grey = Image.fromarray(read_image(path, scale)).convert("L")
        return np.asarray(grey.resize((width, height), Image.Resampling.BOX))


@dataclass(frozen=True)
class MaskValues:
    """What a mask file stores.

    Attributes:
        values: Integers [H, W]; of a signed type they may be negative.
        alpha: Whether they are those of the alpha channel.
    """

    values: NDArray[Any]
    alpha: bool = False


def read_mask(path: ImageFile) -> NDArray[Any]:
    """The values stored in a mask file, as `mask_values` reads them, none of them negative.

    Raises:
        DataError: as `mask_values` does, or a value is negative.
    """
    values = mask_values(path).values
    if int(values.min()) < 0:
        raise DataError(
            f"{path}: a mask with negative values ({int(values.min())}); use 0 for background, labels > 0.",
            "ambiguous_mask",
        )
    return values


def mask_values(path: ImageFile) -> MaskValues:
    """The values stored in a mask file: integers [H, W], EXIF orientation applied, nothing scaled or inverted.

    1-bit, 8-bit and 16-bit grey give their values, also where TIFF says that white is 0 (PhotometricInterpretation 0);
    a palette image its indices, and grey stored as RGB one channel. Where all that can be seen has one colour, and
    nothing else differs, the mask is the alpha channel. A colour JPEG may differ a little between channels.

    Raises:
        DataError: as `read_image` does, or the mask has colours, bands or fractions.
    """
    if _is_unknown_tiff(path):  # such as 64 bits
        deep = _read_tiff(path).values
        if deep.shape[2] != 1:
            raise DataError(
                f"{path}: a mask with {deep.shape[2]} bands; save it as a grey image with one value per label.",
                "ambiguous_mask",
            )
        return MaskValues(_whole(deep[..., 0], path))
    with _opened(path) as image:
        noise = _JPEG_COLOUR_NOISE if image.format in ("JPEG", "MPO") else 0
        # Pillow keeps the high bytes of 16-bit colour only, which would merge labels
        wide = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())) and not image.mode.startswith("I")
        white = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC, 0) == 0
        picture = _upright(image, path)
        values = np.asarray(picture.convert("RGB") if picture.mode in ("CMYK", "YCbCr", "LAB") else picture)
        if white and picture.mode in ("1", "L"):  # Pillow shows them turned over, and 16 bits as they are
            values = ~values
    if values.ndim == 3 and values.shape[2] in (2, 4) and not wide:
        alpha = values[..., -1]
        if int(alpha.min()) < _BYTE_MAX and _is_alpha(values[..., :-1], alpha):
            return MaskValues(np.ascontiguousarray(alpha), alpha=True)
        if values[..., :-1][alpha == 0].any():
            raise DataError(
                f"{path}: a mask whose colours and transparency tell different things; save it as a grey image without "
                "transparency, with one value per label.",
                "ambiguous_mask",
            )
    if values.ndim == 3:
        colour = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        spread = int((colour.max(axis=2).astype(int) - colour.min(axis=2)).max())
        if spread > noise or wide:
            what = "16-bit colour" if wide else "colours"
            raise DataError(
                f"{path}: a mask with {what}; save it as a grey or palette image with one value per label.",
                "ambiguous_mask",
            )
        values = values[..., 0]
    if values.dtype == np.bool_:  # from Pillow, whose True is not always the byte 1
        values = np.where(values, 1, 0).astype(np.uint8)
    return MaskValues(_whole(values, path))


def _whole(values: NDArray[Any], path: ImageFile) -> NDArray[Any]:
    """Values as integers of at most 64 bits."""
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"{path}: a mask with {values.dtype} values; save it with 8-bit or 16-bit integers.", "ambiguous_mask"
        )
    if values.dtype != np.uint64:
        return values
    if int(values.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{path}: a mask with the value {int(values.max())}; use small labels.", "ambiguous_mask")
    return values.astype(np.int64)


def _is_alpha(colour: NDArray[Any], alpha: NDArray[Any]) -> bool:
    """Whether what a mask shows is in its alpha channel [H, W] and not in its colours [H, W, C]: these are all the
    same; or they are one colour that is no value of a label, or has soft edges, on nothing."""
    seen = alpha > 0
    first = colour[seen][0] if seen.any() else colour[0, 0]
    same = (colour == first).all(axis=2)
    if same.all():
        return True
    label = len(np.unique(first)) == 1 and bool(((alpha == 0) | (alpha == _BYTE_MAX)).all())
    return bool(same[seen].all()) and not colour[~seen].any() and not label


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep the memory of one image for the next, at most 64 MiB; does nothing where it is not glibc.

    Memory that is given back to the system is cleared page by page when it is asked for again, which can take longer
    than decoding. glibc keeps blocks up to the size of the largest that was freed, and twice as much in all
    (`mallopt(3)`, M_MMAP_THRESHOLD): one large block, never written to, teaches it.
    """
    np.empty(_LEARNT, np.uint8)


@contextmanager
def _opened(path: ImageFile) -> Iterator[Image.Image]:
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
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _limit():
                raise _too_large(path, f"{width}x{height} pixels")
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if image.format == "TIFF":
                pages = full_pages(image) if pages > 1 else pages
                packed = image.info.get("compression")
            if pages > 1:
                raise _several_pages(path, pages, stack=image.format == "TIFF")
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_large(path, str(error) or "more than fits into memory") from error
    except UnidentifiedImageError as error:
        names = ", ".join(_FORMATS)
        with path.open("rb") as file:
            kind = type_of(str(path), file.read(_START))
        if kind is not None:
            raise DataError(
                f"{path}: is {kind}, which is not read ({names} are); {remedy_for(kind)}.", "unreadable_file"
            ) from error
        raise DataError(
            f"{path}: is damaged or not an image ({names} are read); {_REMEDY}.", "unreadable_file"
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
        raise DataError(f"{path}: truncated or damaged ({reason}); {_REMEDY}.", "unreadable_file") from error


def _limit() -> int:
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


def _several_pages(path: ImageFile, pages: int, *, stack: bool) -> DataError:
    error = SeveralPagesError(f"{path}: has {pages} pages; save one image per file.", "unreadable_file")
    error.stack = stack
    return error


def _too_large(path: ImageFile, what: str) -> DataError:
    return DataError(
        f"{path}: {what}; at most {_limit() // 10**6} megapixels are read. Scale it down or cut tiles.", "too_large"
    )


def _upright(image: Image.Image, path: ImageFile) -> Image.Image:
    method = _UPRIGHT.get(_orientation(image, path))
    image.load()
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image, path: ImageFile) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF by itself, and its header size is the turned one
    if image.format == "PNG" and "exif" not in image.info and _has_exif_chunk(path):
        image.load()  # EXIF behind the pixels is known only after decoding
    # the method of the base class: PNG's own decodes the whole picture to look for EXIF
    orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    return orientation if isinstance(orientation, int) else 1


def _has_exif_chunk(path: ImageFile) -> bool:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4]) + 4, 1)
    return False


def digest_of_pixels(image: NDArray[np.uint8]) -> str:
    """SHA-256 of a decoded image, its shape included, in hexadecimal."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def digest_of_file(file: ImageFile) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # any file of bytes will do
