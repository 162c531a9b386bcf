"""Annotation files of labelling tools: found under the root, recognised by what they say, read within limits."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import any_json, ends_of
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.paths import data_folders, inside, listing, shown

LOOKED_AT = 5000
"""Folders, and files of an ending, that are gone through to recognise a format."""

_MAX_PACKED = 2**24  # bytes of one packed bitmap


def files_below(root: Path, *endings: str, most: int | None = None) -> list[Path]:
    """The files under `root` with one of the endings, none hidden, in order; the first `most`, of `most` folders.

    Raises:
        DataError: a folder cannot be listed.
    """
    return sorted(_files(root, endings, most))


def recognised(root: Path, *endings: str, says: tuple[bytes, ...], never: tuple[bytes, ...] = ()) -> Path | None:
    """The first file with one of the endings whose beginning has all of `says` and none of `never`; None for none."""
    for file in islice(files_below(root, *endings, most=LOOKED_AT), 50):
        head = ends_of(file)
        if all(word in head for word in says) and not any(word in head for word in never):
            return file
    return None


def parsed(file: Path, root: Path) -> Any:
    """The content of a JSON file under `root`.

    Raises:
        DataError: it cannot be read, leaves the root, is too large or no JSON, or has a key twice in a mapping.
    """
    inside(root, file.relative_to(root).as_posix(), str(file))
    return any_json(file)


def packed_bitmap(text: object, *, zipped: bool) -> NDArray[np.bool_]:
    """A mask stored in JSON: a PNG in base 64, packed with zlib before that where `zipped`.

    Its alpha channel is the mask where it has one, else all that is not 0.

    Returns:
        Bool [h, w].

    Raises:
        DataError: it is none; does not name the object.
    """
    from PIL import Image

    if not isinstance(text, str) or len(text) > _MAX_PACKED:
        raise DataError(f"has the bitmap {shown(text)}; it takes a PNG in base 64", "bad_rle")
    try:
        data = base64.b64decode(text, validate=True)
        if zipped:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, _MAX_PACKED)
            if unpacker.unconsumed_tail:
                raise DataError("has a bitmap that unpacks to more than 16 MiB; export it again", "bad_rle")
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(
                    f"has a bitmap of {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} in all", "bad_rle"
                )
            if "A" in picture.getbands() or "transparency" in picture.info:
                return np.asarray(picture.convert("RGBA"))[..., 3] > 0
            return np.asarray(picture.convert("L") if picture.mode not in ("1", "L", "P") else picture) > 0
    except DataError:
        raise
    except (binascii.Error, ValueError, zlib.error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"has a damaged bitmap ({str(error) or type(error).__name__}); export it again", "bad_rle"
        ) from error


def _files(root: Path, endings: tuple[str, ...], most: int | None) -> Iterator[Path]:
    found = 0
    with listing(root):
        for folders, (folder, names) in enumerate(data_folders(root), 1):
            for name in names:
                # the name alone, as a million images may lie before the labels
                if name.lower().endswith(endings) and (path := folder / name).is_file():
                    yield path
                    found += 1
                    if found == most:
                        return
            if folders == most:
                return
