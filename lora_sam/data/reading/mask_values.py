"""The values that a mask file stores, with nothing scaled, inverted or merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading.deep_images import has_16_bits, is_unknown_tiff, read_tiff
from lora_sam.data.reading.image_file import ImageFile, opened_image, upright

_JPEG_COLOUR_NOISE = 32  # chroma error of a grey picture saved as colour JPEG; up to 9 seen
_PHOTOMETRIC, _BYTE_MAX = 0x0106, 0xFF


@dataclass(frozen=True)
class MaskValues:
    """What a mask file stores.

    Attributes:
        values: Integers [H, W]; of a signed type they may be negative.
        alpha: Whether they are those of the alpha channel.
        coloured: Whether they are colours, 0xRRGGBB.
    """

    values: NDArray[Any]
    alpha: bool = False
    coloured: bool = False


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


def mask_values(path: ImageFile, *, colours: bool = False) -> MaskValues:
    """The values stored in a mask file: integers [H, W], EXIF orientation applied, nothing scaled or inverted.

    1-bit, 8-bit and 16-bit grey give their values, also where TIFF says that white is 0 (PhotometricInterpretation 0),
    and floating point its whole numbers; a palette image its indices, but a GIF of greys the greys, which are numbered
    anew in each file; and grey stored as RGB one channel. Where all that can be seen has one colour, and nothing else
    differs, the mask is the alpha channel. A colour JPEG may differ a little between channels.

    Args:
        path: The file.
        colours: Whether a picture with colours gives them, as 0xRRGGBB, and is not refused.

    Raises:
        DataError: as `read_image` does, or the mask has colours, bands or fractions.
    """
    if is_unknown_tiff(path):  # such as 64 bits
        deep = read_tiff(path).values
        if deep.shape[2] != 1:
            raise DataError(
                f"{path}: a mask with {deep.shape[2]} bands; save it as a grey image with one value per label.",
                "ambiguous_mask",
            )
        return MaskValues(_whole(deep[..., 0], path))
    with opened_image(path) as image:
        noise = _JPEG_COLOUR_NOISE if image.format in ("JPEG", "MPO") else 0
        # Pillow keeps the high bytes of 16-bit colour only, which would merge labels
        wide = has_16_bits(image) and not image.mode.startswith("I")
        white = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC, 0) == 0
        picture = upright(image, path)
        if numbers_anew(picture, image.format):
            picture = picture.convert("L")
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
        if colours and spread > noise and not wide:
            return MaskValues(codes_of(colour), coloured=True)
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


def codes_of(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours [H, W, 3] as 0xRRGGBB, int32 [H, W]."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
    codes: NDArray[np.int32] = red << 16 | green << 8 | blue
    return codes


def numbers_anew(picture: Image.Image, form: str | None) -> bool:
    """Whether it is a GIF, where each file has a palette of the greys in it: what counts are these."""
    if form != "GIF" or picture.mode != "P":
        return False
    palette = palette_of(picture)
    return bool((palette == palette[:, :1]).all())


def palette_of(picture: Image.Image) -> NDArray[np.uint8]:
    """The colours of a palette image, RGB, uint8 [N, 3]."""
    return np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)


def _whole(values: NDArray[Any], path: ImageFile) -> NDArray[Any]:
    """Values as integers of at most 64 bits."""
    if np.issubdtype(values.dtype, np.floating):
        return whole_numbers(values, str(path))
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"{path}: a mask with {values.dtype} values; save it with 8-bit or 16-bit integers.", "ambiguous_mask"
        )
    if values.dtype != np.uint64:
        return values
    if int(values.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{path}: a mask with the value {int(values.max())}; use small labels.", "ambiguous_mask")
    return values.astype(np.int64)


def whole_numbers(values: NDArray[Any], owner: str) -> NDArray[np.int64]:
    """Floating-point values that are whole numbers, as ImageJ and NumPy often save labels, as integers.

    Raises:
        DataError: one is a fraction, not a number, or so large that its type has no whole numbers any more.
    """
    most = 2 ** (np.finfo(values.dtype).nmant + 1)
    wrong = ~((values == np.rint(values)) & (np.abs(values) <= most))  # nothing equals NaN
    if wrong.any():
        raise DataError(
            f"{owner}: a mask with {values.dtype} values that are no whole numbers ({values[wrong].flat[0]:g}); save "
            "it with 8-bit or 16-bit integers.",
            "ambiguous_mask",
        )
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
