"""Images as people have them in Python: arrays, files, pictures of Pillow, tensors."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.predictors.prompting import size_of

if TYPE_CHECKING:
    from lora_sam.core.predictor import Picture

_WITH_16_BITS = ("PNG", "TIFF", "JPEG2000")  # formats of Pillow that may have 16-bit colour
_REMEDY = "scale it to uint8 as the training data were; of a file, lora_sam.read_image(path, run.path) does so"


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3].

    Arrays come back as they are: whoever takes pixels checks them. Files and pictures of Pillow are turned as EXIF
    says; grey becomes three equal channels, palettes are looked up, an alpha channel is dropped. Tensors are uint8,
    [3, H, W] or [H, W, 3], on any device. What has more than 8 bits is refused: only a run knows what is black there.

    Raises:
        DataError: it cannot be read, has more than 8 bits, or no such shape.
    """
    if isinstance(picture, np.ndarray):
        return picture
    if isinstance(picture, str | PathLike):
        return _of_file(Path(picture))
    if hasattr(picture, "getexif"):
        return _of_pillow(picture)
    if hasattr(picture, "detach"):
        return _of_tensor(picture)
    kinds = "a NumPy array uint8 [H, W, 3] in RGB order, a path, a picture of Pillow, or a tensor uint8 [3, H, W]"
    raise DataError(f"image is a {type(picture).__name__}, must be {kinds}")


def checked_pixels(picture: Picture) -> NDArray[np.uint8]:
    """`pixels_of`, arrays too. Raises `DataError` for what is no RGB picture, uint8 [H, W, 3]."""
    pixels = pixels_of(picture)
    size_of(pixels)
    return pixels


def _of_file(path: Path) -> NDArray[np.uint8]:
    from lora_sam.data.reading.deep_images import deep_pixels
    from lora_sam.data.reading.images import read_image

    deep = deep_pixels(path)
    if deep is not None and deep.values.dtype != np.uint8:
        raise DataError(
            f"{path} has pixels of {deep.values.dtype}: give the image as lora_sam.read_image(path, run.path)"
        )
    return read_image(path)


def _of_pillow(picture: Any) -> NDArray[np.uint8]:
    from PIL import ImageOps

    from lora_sam.data.reading.deep_images import has_16_bits, is_deep
    from lora_sam.data.reading.images import rgb_of

    if picture.mode == "F" or picture.mode.startswith("I"):
        raise DataError(f"image is a picture of mode {picture.mode}, must have 8 bits per channel; {_REMEDY}")
    # once it is read, only its file tells
    file = Path(os.fsdecode(getattr(picture, "filename", None) or ""))
    known = getattr(picture, "format", None) in _WITH_16_BITS and file.is_file()
    if has_16_bits(picture) or (known and is_deep(file)):
        raise DataError(f"image is a picture of 16-bit colour, must have 8 bits per channel; {_REMEDY}")
    return rgb_of(ImageOps.exif_transpose(picture))


def _of_tensor(tensor: Any) -> NDArray[np.uint8]:
    values = tensor.detach().cpu().numpy()
    shape = list(values.shape)
    if values.dtype != np.uint8:
        raise DataError(f"image is a tensor of {values.dtype}, must be uint8, 0 to 255; {_REMEDY}")
    first, last = (values.ndim == 3 and values.shape[axis] == 3 for axis in (0, 2))
    if first and last:
        raise DataError(f"image is a tensor {shape}, whose channels may be the first or the last axis; give an array")
    if not (first or last):
        raise DataError(f"image is a tensor {shape}, must be [3, H, W] or [H, W, 3] in RGB order")
    return np.ascontiguousarray(values.transpose(1, 2, 0) if first else values)
