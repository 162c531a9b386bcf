"""Files that hold several images of one object: TIFF stacks and NIfTI volumes, slice by slice.

A TIFF of several pages is a stack, in the order of its pages; the axes of ImageJ and OME (tifffile's series) are
followed, and channels are bands of a slice. Of NIfTI-1 and NIfTI-2 see `lora_sam.data.reading.nifti`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.reading.deep_images import is_tiff
from lora_sam.data.reading.file_types import ending
from lora_sam.data.reading.nifti import header_of, is_nifti, plane
from lora_sam.data.reading.volume_limits import check_memory, check_slices, damaged, reading

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # our errors say what is wrong with a file

Slices = Literal["all", "middle"] | tuple[int, ...]


@dataclass(frozen=True)
class Slice:
    """One slice of a volume; see `lora_sam.data.reading.image_file.ImageFile`.

    Attributes:
        path: The volume.
        index: Which slice, from 0.
        labels: Whether its values are labels: whole numbers that a NIfTI file has as fractions are whole numbers then.
        planes: Whether channels are slices; see `slice_count`.
    """

    path: Path
    index: int
    labels: bool = False
    planes: bool = False

    def __str__(self) -> str:
        return f"{self.path}, slice {self.index}"

    @property
    def name(self) -> str:
        """Name of the volume with the number of the slice: no file has it."""
        return f"{self.path.name}/{self.index:04d}"

    @property
    def parent(self) -> Path:
        """Folder of the volume."""
        return self.path.parent

    def is_file(self) -> bool:
        """Whether the volume is there."""
        return self.path.is_file()

    def exists(self) -> bool:
        """Whether the volume is there, as a file or as something else."""
        return self.path.exists()

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """The slice as a TIFF of its own with the values that are stored, to be closed.

        Raises:
            DataError: the volume cannot be read, or the slice is too large.
        """
        import tifffile

        values, photometric = _values(self.path, self.index, self.planes)
        if self.labels and values.dtype.kind == "f":
            whole = np.rint(values)
            if not np.isfinite(values).all() or (whole != values).any() or np.abs(whole).max(initial=0) >= 2**31:
                raise DataError(
                    f"{self}: labels that are no whole numbers; save the label volume as integers.", "ambiguous_mask"
                )
            values = whole.astype(np.int32)
        if values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("="))
        file = io.BytesIO()
        bands: dict[str, Any] = {"planarconfig": "contig"} if values.ndim == 3 else {}
        # no name of a program or date in it: the same slice has the same bytes
        tifffile.imwrite(
            file, np.ascontiguousarray(values), photometric=photometric, metadata=None, software="", **bands
        )
        file.seek(0)
        return file


def slice_count(path: Path, *, planes: bool = False) -> int:
    """How many slices a file has; 1 for an image that is no volume.

    Args:
        path: The file.
        planes: Count channels and separate planes of samples as slices: tifffile writes a stack of three or four so,
            where it is not told better.

    Raises:
        DataError: it cannot be read, has several images of different sizes, or axes that are no slices.
    """
    if is_nifti(path):
        return header_of(path).shape[2]
    if ending(path.name) not in (".tif", ".tiff"):
        return 1
    try:
        with path.open("rb") as file:
            if not is_tiff(file.read(4)):
                return 1
    except OSError:
        return 1  # whoever reads it says why
    with _stack(path, planes) as stack:
        return stack.count


def chosen(slices: Slices, count: int, path: Path) -> Sequence[int]:
    """The slices that are used of a volume of `count`, from 0.

    Raises:
        DataError: one of them is not there.
    """
    if slices == "all":
        return range(count)
    if slices == "middle":
        return (count // 2,)
    absent = [index for index in slices if index >= count]
    if absent:
        raise DataError(
            f"{path}: has {plural(count, 'slice')}, from 0 to {count - 1}; data.slices={list(slices)} asks for "
            f"{absent[0]}. Leave it out, or set data.slices=all.",
            "bad_annotation",
        )
    return slices


def _values(path: Path, index: int, planes: bool) -> tuple[NDArray[Any], str]:
    """Values [H, W] or [H, W, C] of a slice, and what they show in the words of TIFF."""
    if is_nifti(path):
        return plane(path, index), "minisblack"
    with _stack(path, planes) as stack:
        return stack.read(index), "minisblack" if planes else stack.photometric


@dataclass(frozen=True)
class _Stack:
    """An open TIFF of several images, as tifffile sees it."""

    path: Path
    series: Any
    page: Any
    count: int
    bands: tuple[str, ...]

    @property
    def photometric(self) -> str:
        kind = getattr(self.page.photometric, "name", "").lower()
        return kind if kind in ("miniswhite", "rgb") else "minisblack"

    def read(self, index: int) -> NDArray[Any]:
        pages = self.series.pages
        wanted = (pages[index],) if len(pages) == self.count else pages
        if any(page is None for page in wanted):  # which tifffile reads as zeros
            raise damaged(self.path, f"not all of the {plural(self.count, 'slice')} that its metadata names are in it")
        if len(pages) == self.count:
            values: NDArray[Any] = wanted[0].asarray()
            if "S" in self.page.axes and self.page.axes.index("S") == 0:
                values = np.moveaxis(values, 0, -1)
            return values
        check_memory(self.path, self.series.nbytes)
        values = self.series.asarray()
        axes = self.series.axes
        last = [axes.index(axis) for axis in "YX"] + [axes.index(axis) for axis in self.bands]
        values = np.moveaxis(values, last, range(-len(last), 0))
        rest = values.reshape(-1, *values.shape[len(axes) - len(last) :])
        found: NDArray[Any] = rest[index]
        return found if found.ndim == 2 else found.reshape(*found.shape[:2], -1)


@contextmanager
def _stack(path: Path, planes: bool) -> Iterator[_Stack]:
    import tifffile

    # pages of other files that its metadata names are not its own, and may lie outside the root
    alone: dict[str, Any] = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
    with reading(path, "tifffile"), path.open("rb") as file, tifffile.TiffFile(file, **alone) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        sizes = dict(zip(axes, shape, strict=True))
        if "Y" not in sizes or "X" not in sizes:
            raise DataError(
                f"{path}: has axes {axes}, of which none are rows and columns; save images.", "unreadable_file"
            )
        if not sizes["Y"] * sizes["X"]:
            raise damaged(path, f"its pages have {sizes['X']}x{sizes['Y']} pixels")
        check_slices(path, sizes["Y"], sizes["X"], 1)
        bands = tuple(axis for axis in "CS" if axis in axes and not (planes and axes.index(axis) < axes.index("Y")))
        count = int(np.prod([size for axis, size in sizes.items() if axis not in ("Y", "X", *bands)], dtype=np.int64))
        others = [other for other in tiff.series[1:] if not getattr(other.keyframe, "is_reduced", False)]
        if others:
            raise DataError(
                f"{path}: its pages have different sizes or kinds ({'x'.join(map(str, shape))} and "
                f"{'x'.join(map(str, others[0].shape))}); save one image per file.",
                "unreadable_file",
            )
        check_slices(path, sizes["Y"], sizes["X"], count)
        yield _Stack(path, series, series.keyframe, count, bands)
