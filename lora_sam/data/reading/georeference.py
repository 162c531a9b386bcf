"""Where the pixels of a GeoTIFF lie on earth (OGC GeoTIFF 1.1): an affine transform and the EPSG code of its frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCALE, TIEPOINTS, TRANSFORMATION, KEYS, ASCII = 33550, 33922, 34264, 34735, 34737
_RASTER_TYPE, _GEOGRAPHIC, _CITATION, _PROJECTED, _PROJECTED_CITATION = 1025, 2048, 1026, 3072, 3073
_POINT = 2
_LEAST_CODE, _USER_DEFINED = 1024, 32767  # what is below is no code of EPSG
_ORIENTATION = 274


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """The place of an image.

    Attributes:
        transform: (a, b, c, d, e, f): x = a u + b v + c and y = d u + e v + f, of the point u columns to the right of
            the upper left corner of the first pixel and v rows below; rotated and sheared where b and d are not 0.
        epsg: Code of the frame that x and y are in; None where the file does not say it in such a code.
        citation: What the file says about that frame in words; empty where it says nothing.
    """

    transform: tuple[float, float, float, float, float, float]
    epsg: int | None
    citation: str = ""

    def at(self, u: float, v: float) -> tuple[float, float]:
        """x and y of a point u columns to the right and v rows below the upper left corner."""
        a, b, c, d, e, f = self.transform
        return a * u + b * v + c, d * u + e * v + f


def georeference_of(path: object) -> Georeference | None:
    """The place of an image file; None of what is no GeoTIFF, or has none that an affine transform says.

    Several tie points without a scale are none: they are no affine transform. Nor is that of a file that is turned when
    it is read (TIFF orientation), since it is not said of what its place is then.
    """
    if not isinstance(path, Path) or path.suffix.lower() not in (".tif", ".tiff"):
        return None
    import tifffile

    try:
        with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
            tags = {tag.code: tag.value for tag in tiff.pages[0].tags}  # type: ignore[union-attr]
    except (OSError, ValueError, TypeError, KeyError, IndexError):  # whoever reads the pixels says what is wrong
        return None
    transform = _transform(tags)
    if transform is None or tags.get(_ORIENTATION, 1) != 1:
        return None
    keys = _keys(tags)
    if keys.get(_RASTER_TYPE) == _POINT:  # its origin is the middle of the first pixel
        a, b, c, d, e, f = transform
        transform = a, b, c - (a + b) / 2, d, e, f - (d + e) / 2
    code = keys.get(_PROJECTED, keys.get(_GEOGRAPHIC))
    known = isinstance(code, int) and _LEAST_CODE <= code < _USER_DEFINED
    words = str(keys.get(_PROJECTED_CITATION) or keys.get(_CITATION) or "")
    return Georeference(transform=transform, epsg=int(code) if known and code else None, citation=words[:200])


def _transform(tags: dict[int, Any]) -> tuple[float, float, float, float, float, float] | None:
    matrix = _numbers(tags.get(TRANSFORMATION))
    if len(matrix) == 16:
        found = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    else:
        scale, ties = _numbers(tags.get(SCALE)), _numbers(tags.get(TIEPOINTS))
        if len(scale) < 2 or len(ties) != 6:
            return None
        u, v, _, x, y, _ = ties
        found = scale[0], 0.0, x - u * scale[0], 0.0, -scale[1], y + v * scale[1]
    a, b, _, d, e, _ = found
    if not all(map(math.isfinite, found)) or a * e == b * d:
        return None  # all of the image would be on one line
    return found


def _keys(tags: dict[int, Any]) -> dict[int, int | str]:
    """The GeoKeys that are a short number or a text."""
    directory = [int(value) for value in _numbers(tags.get(KEYS))]
    text = tags.get(ASCII, "")
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    found: dict[int, int | str] = {}
    for start in range(4, len(directory) - 3, 4):
        key, place, count, value = directory[start : start + 4]
        if place == 0:
            found[key] = value
        elif place == ASCII:
            found[key] = text[value : value + count].strip("|\0 ")
    return found


def _numbers(value: object) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [float(one) for one in value if isinstance(one, int | float)]
