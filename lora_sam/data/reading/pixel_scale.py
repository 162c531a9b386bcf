"""One scale from stored values to grey levels for all images of a data set that have more than 8 bits or many bands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError

_FACTS = "lora_sam.json"

ScaleOption = Literal["auto", "dtype", "minmax"] | tuple[float, float]
"""How a scale is found; or its two ends, the values of black and white."""

_PER_IMAGE = 2**16  # pixels that are looked at
_LOW, _HIGH = 0.1, 99.9  # percentiles
_BITS = (8, 10, 11, 12, 14, 16)  # of cameras
_USED = 0.75  # of a camera's range, if that is the scale
_ZERO_SHARE = 0.5  # black is 0 if the darkest values are below this share of the brightest


@dataclass(frozen=True)
class PixelScale:
    """What becomes black and what white in each of three bands.

    Attributes:
        bands: The bands that become red, green and blue, counted from 1.
        low: Their values that become 0.
        high: Their values that become 255.
    """

    bands: tuple[int, int, int]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def applied(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """RGB, uint8 [H, W, 3], of values [H, W, C]; what is not finite becomes black. Raises `DataError`."""
        if max(self.bands) > values.shape[2]:
            raise DataError(
                f"has {values.shape[2]} bands, but band {max(self.bands)} is wanted; correct data.bands, or save all "
                "images with the same bands"
            )
        shown = np.empty((*values.shape[:2], 3), np.uint8)
        for place, (band, low, high) in enumerate(zip(self.bands, self.low, self.high, strict=True)):
            grey = (values[..., band - 1].astype(np.float32) - low) * (255.0 / (high - low))
            shown[..., place] = np.nan_to_num(np.rint(grey), nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
        return shown

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `splits.json` and `lora_sam.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PixelScale:
        """Read back. Raises `ValueError` for anything else."""
        try:
            bands, low, high = (tuple(values[key]) for key in ("bands", "low", "high"))
            found = cls(bands, low, high)
            good = all(
                len(part) == 3 and all(type(value) in (int, float) for value in part) for part in (bands, low, high)
            )
            good = good and all(type(band) is int and band > 0 for band in bands)
            good = good and all(np.isfinite([one, two]).all() and one < two for one, two in zip(low, high, strict=True))
        except (KeyError, TypeError) as error:
            raise ValueError("no scale of pixels") from error
        if not good:
            raise ValueError("no scale of pixels")
        return found

    @classmethod
    def of_run(cls, directory: Path) -> PixelScale | None:
        """The scale that a run or an adapter was trained with; None where its images had 8 bits. Raises `DataError`."""
        places = [directory / "adapter" / _FACTS, directory / _FACTS]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise DataError(f"{directory}: has no {_FACTS}; give the directory of a finished run, or its adapter.")
        try:
            stored = json.loads(file.read_text(encoding="utf-8")).get("scale")
            return None if stored is None else cls.from_json(stored)
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{file}: is damaged ({error}); restore it, or train again.") from error

    def digest_with(self, digest: str) -> str:
        """The digest of a file and the scale that it is read with."""
        return hashlib.sha256(f"{digest} {json.dumps(self.to_json())}".encode()).hexdigest()

    def in_words(self) -> str:
        """`values 0 to 2047`, or one such for each band."""
        ends = [f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True)]
        return f"values {ends[0]}" if len(set(ends)) == 1 else "values " + ", ".join(ends)


def usual_bands(count: int) -> tuple[int, int, int]:
    """The bands that are taken of so many if nothing is said."""
    return (1, 2, 3) if count >= 3 else (1, 1, 1)


def measured(
    images: Sequence[NDArray[Any]], option: ScaleOption, bands: tuple[int, ...] | None, nodata: Sequence[float | None]
) -> PixelScale:
    """The scale of a data set, from some of its images.

    Args:
        images: Values [H, W, C] of images that have more than 8 bits or more than four bands.
        option: `auto`: percentiles 0.1 and 99.9 of each band, where black is 0 unless all is bright, and white is the
            end of a camera's range (8 to 16 bits), of [0, 1] or [0, 255], if much of it is used; `minmax`: the least
            and the largest value; `dtype`: the range of the integer type; or two values.
        bands: The three bands, or the one, that are shown; None for the first.
        nodata: What each file calls a pixel without a value.

    Raises:
        DataError: there is no such band, or `dtype` is said of fractions.
    """
    count = min(image.shape[2] for image in images)
    chosen = usual_bands(count) if bands is None else tuple(bands)
    chosen = chosen * 3 if len(chosen) == 1 else chosen
    if len(chosen) != 3 or max(chosen) > count or min(chosen) < 1:
        raise DataError(
            f"data.bands={list(bands or ())}: images have {count} bands; give one or three, from 1 to {count}."
        )
    red, green, blue = chosen
    picked = (red, green, blue)
    if not isinstance(option, str):
        low, high = (float(end) for end in option)
        if not low < high:
            raise DataError(f"data.scale={list(option)}: the first value becomes black, so it must be the smaller one.")
        return PixelScale(picked, (low,) * 3, (high,) * 3)
    kinds = {image.dtype.kind for image in images}
    if option == "dtype":
        if "f" in kinds:
            raise DataError(
                "data.scale=dtype: images have fractions, whose type has no range; set data.scale=[low,high]."
            )
        limits = [np.iinfo(image.dtype) for image in images]
        return PixelScale(picked, (float(min(x.min for x in limits)),) * 3, (float(max(x.max for x in limits)),) * 3)
    parts = [_sampled(image, none) for image, none in zip(images, nodata, strict=True)]
    ends = [_ends(np.concatenate([part[band - 1] for part in parts]), option) for band in picked]
    if option == "auto":
        ends = _snapped(ends, "f" in kinds)
    lows, highs = zip(*ends, strict=True)
    return PixelScale(picked, lows, highs)


def _sampled(image: NDArray[Any], nodata: float | None) -> list[NDArray[np.float64]]:
    step = max(1, int(np.ceil(np.sqrt(image.shape[0] * image.shape[1] / _PER_IMAGE))))
    values = image[::step, ::step].reshape(-1, image.shape[2]).astype(np.float64)
    good = np.isfinite(values) & (np.abs(values) < 1e30)
    if nodata is not None:
        good &= values != nodata
    return [values[good[:, band], band] for band in range(values.shape[1])]


def _ends(values: NDArray[np.float64], option: str) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    if option == "minmax":
        low, high = float(values.min()), float(values.max())
    else:
        low, high = (float(end) for end in np.percentile(values, (_LOW, _HIGH)))
        low = 0.0 if 0 <= low < _ZERO_SHARE * high else low
    return low, high if high > low else low + 1.0


def _snapped(ends: list[tuple[float, float]], fractions: bool) -> list[tuple[float, float]]:
    """All bands at the range of the camera, where they begin at 0, the brightest uses it, and none is far below."""
    highest = max(high for _, high in ends)
    ranges = [1.0, 255.0] if fractions else [2.0**bits - 1 for bits in _BITS]
    for limit in ranges:
        if highest <= limit:
            least = 0.25 if fractions or limit == 255.0 else _USED
            alike = all(low == 0.0 and high >= 0.5 * highest for low, high in ends)
            return [(0.0, limit)] * len(ends) if alike and highest >= least * limit else ends
    return ends
