"""Volumes of NIfTI (https://nifti.nimh.nih.gov), whose slices lie along the third axis, as nnU-Net has them."""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.calling import typed_here
from lora_sam.core.errors import DataError
from lora_sam.data.reading.file_types import ending
from lora_sam.data.reading.volume_limits import check_memory, check_slices, damaged, reading

NIFTI = frozenset({".nii", ".nii.gz"})
"""Lower-case endings of NIfTI files."""

_MOST_EXTENDED = 64 * 2**20  # bytes of header and extensions, before the values
_MOST_BEHIND = 2**20  # bytes behind the values that are looked at, to reach the sum of a gzip file
_MOST_PACKED = 1032  # bytes that a byte of deflate can stand for (RFC 1951)


@dataclass(frozen=True)
class Nifti:
    """What the header of a NIfTI file says.

    Attributes:
        shape: Three axes, of which the last one counts slices.
        axes: Where they run, such as RAS.
    """

    shape: tuple[int, int, int]
    axes: str


def is_nifti(path: Path) -> bool:
    """Whether a file is named as NIfTI is."""
    return ending(path.name) in NIFTI


def header_of(path: Path) -> Nifti:
    """Shape and axes of a file.

    Raises:
        DataError: it cannot be read, is no volume of three axes, or too large.
    """
    stat = path.stat() if path.is_file() else None
    return _header(path, stat.st_mtime_ns if stat else 0, stat.st_size if stat else 0)


def plane(path: Path, index: int) -> NDArray[Any]:
    """Values [H, W] of a slice: the first axis of the file runs to the right, the second one down.

    Raises:
        DataError: as `header_of`, or the values are damaged, no numbers, or need too much memory.
    """
    stat = path.stat()
    return _values(path, stat.st_mtime_ns, stat.st_size)[:, :, index].T


def check_alike(image: Path, labels: Path) -> None:
    """Raise `DataError` where two NIfTI files do not have the same axes and sides, so that slices would not fit."""
    if not (is_nifti(image) and is_nifti(labels)):
        return
    first, second = header_of(image), header_of(labels)
    if first.axes != second.axes:
        raise DataError(
            f"{labels}: its axes run to {second.axes}, those of {image.name} to {first.axes}, so that slices would not "
            "fit; save both in one orientation, for example with nibabel.as_closest_canonical.",
            "size_mismatch",
        )
    if first.shape[:2] != second.shape[:2]:
        sizes = ["x".join(map(str, found.shape[:2])) for found in (second, first)]
        raise DataError(
            f"{labels}: has slices of {sizes[0]} pixels, and {image.name} of {sizes[1]}; resample the labels to the "
            "grid of their image, with nearest neighbour.",
            "size_mismatch",
        )


@lru_cache(maxsize=4096)
def _header(path: Path, changed: int, size: int) -> Nifti:
    return _described(path, _opened(path))


def _opened(path: Path) -> Any:
    with reading(path, "nibabel"):
        try:
            import nibabel
        except ImportError as error:
            raise DataError(
                f"{path}: is NIfTI, which the package nibabel reads; install it with "
                f"{typed_here('pip install nibabel')}.",
                "unreadable_file",
            ) from error
        logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it reports what every other file has
        return nibabel.load(path)


def _described(path: Path, image: Any) -> Nifti:
    import nibabel

    axes_of: Any = nibabel.orientations.aff2axcodes
    with reading(path, "nibabel"):
        shape = tuple(int(side) for side in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape = (*shape, 1) if len(shape) == 2 else shape
        if min(shape) < 1:
            raise damaged(path, f"its header says that its sides are {list(shape)}")
        if len(shape) != 3:
            raise DataError(
                f"{path}: has the shape {image.shape}; a volume has three axes: save one for each time or channel.",
                "unreadable_file",
            )
        check_slices(path, shape[1], shape[0], shape[2])
        if image.affine is None or not np.isfinite(image.affine).all():
            raise DataError(
                f"{path}: the directions of its axes (affine) are no finite numbers, so that nothing tells which way a "
                "slice lies; write it again with the affine of its source.",
                "unreadable_file",
            )
        codes = axes_of(image.affine)
        return Nifti((shape[0], shape[1], shape[2]), "".join(code or "?" for code in codes))


@lru_cache(maxsize=2)  # the image's and that of its labels; `.nii.gz` is unpacked once and not for every slice
def _values(path: Path, changed: int, size: int) -> NDArray[Any]:
    image = _opened(path)
    shape = _described(path, image).shape
    with reading(path, "nibabel"):
        proxy = image.dataobj  # not the header: nibabel takes the scale out of that
        if proxy.dtype.kind not in "uif":
            raise DataError(f"{path}: has {proxy.dtype} values; save numbers.", "unreadable_file")
        scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
        count = int(np.prod(shape, dtype=np.int64))
        check_memory(path, count * (8 if scaled else proxy.dtype.itemsize))
        if ending(path.name) != ".nii.gz":
            stored: NDArray[Any] = proxy.get_unscaled()
        else:
            stored = _unpacked(path, proxy, count * proxy.dtype.itemsize, size)
        values = stored.reshape(shape)
        return values * float(proxy.slope) + float(proxy.inter) if scaled else values


def _unpacked(path: Path, proxy: Any, needed: int, size: int) -> NDArray[Any]:
    """Values of a packed file, whose sum is compared: nibabel ends before it, and takes turned bits for values."""
    from nibabel.volumeutils import array_from_file

    if proxy.offset > _MOST_EXTENDED or needed > _MOST_PACKED * size:
        raise damaged(path, f"{size} bytes cannot hold {needed} bytes of values")
    with gzip.open(path) as file:
        values: NDArray[Any] = array_from_file(proxy.shape, proxy.dtype, file, offset=proxy.offset, mmap=False)
        file.read(_MOST_BEHIND)  # to the sum, which is compared there
    return values
