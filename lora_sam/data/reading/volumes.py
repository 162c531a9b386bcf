"""Files that hold several images of one object: TIFF stacks and NIfTI volumes, slice by slice.

A TIFF of several pages is a stack, in the order of its pages; the axes of ImageJ and OME (tifffile's series) are
followed, and channels are bands of a slice. A NIfTI-1 or NIfTI-2 volume (https://nifti.nimh.nih.gov) has slices along
its third axis; the first axis runs to the right and the second one down, as SimpleITK and nnU-Net have them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.reading.deep_images import is_tiff
from lora_sam.data.reading.file_types import ending
from lora_sam.data.reading.image_file import MAX_PIXELS

NIFTI = frozenset({".nii", ".nii.gz"})
"""Lower-case endings of NIfTI files."""

MAX_BYTES = 4 * 2**30
"""A volume that has to be unpacked as a whole is refused where it needs more memory than this."""

MAX_SLICES = 100_000

Slices = Literal["all", "middle"] | tuple[int, ...]


@dataclass(frozen=True)
class Slice:
    """One slice of a volume; see `lora_sam.data.reading.image_file.ImageFile`.

    Attributes:
        path: The volume.
        index: Which slice, from 0.
        labels: Whether its values are labels: whole numbers that a NIfTI file has as fractions are whole numbers then.
    """

    path: Path
    index: int
    labels: bool = False

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

        values, photometric = _values(self.path, self.index)
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


def slice_count(path: Path) -> int:
    """How many slices a file has; 1 for an image that is no volume.

    Raises:
        DataError: it cannot be read, has several images of different sizes, or axes that are no slices.
    """
    if ending(path.name) in NIFTI:
        return int(_nifti(path).shape[2])
    if ending(path.name) not in (".tif", ".tiff"):
        return 1
    try:
        with path.open("rb") as file:
            if not is_tiff(file.read(4)):
                return 1
    except OSError:
        return 1  # whoever reads it says why
    with _stack(path) as stack:
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


def check_alike(image: Path, labels: Path) -> None:
    """Raise `DataError` where two NIfTI files do not have the same axes, so that slices would not fit each other."""
    if not all(ending(path.name) in NIFTI for path in (image, labels)):
        return
    first, second = _nifti(image), _nifti(labels)
    if first.axes != second.axes:
        raise DataError(
            f"{labels}: its axes run to {second.axes}, those of {image.name} to {first.axes}, so that slices would not "
            "fit; save both in one orientation, for example with nibabel.as_closest_canonical.",
            "size_mismatch",
        )


def _values(path: Path, index: int) -> tuple[NDArray[Any], str]:
    """Values [H, W] or [H, W, C] of a slice, and what they show in the words of TIFF."""
    if ending(path.name) in NIFTI:
        stat = path.stat()
        return _nifti_values(path, stat.st_mtime_ns, stat.st_size)[:, :, index].T, "minisblack"
    with _stack(path) as stack:
        return stack.read(index), stack.photometric


@dataclass(frozen=True)
class _Stack:
    """An open TIFF of several images, as tifffile sees it."""

    path: Path
    series: Any
    page: Any
    count: int

    @property
    def photometric(self) -> str:
        kind = getattr(self.page.photometric, "name", "").lower()
        return kind if kind in ("miniswhite", "rgb") else "minisblack"

    def read(self, index: int) -> NDArray[Any]:
        pages = self.series.pages
        if len(pages) == self.count and all(page is not None for page in pages):
            values: NDArray[Any] = pages[index].asarray()
            if "S" in self.page.axes and self.page.axes.index("S") == 0:
                values = np.moveaxis(values, 0, -1)
            return values
        if self.series.nbytes > MAX_BYTES:
            raise _too_large(self.path, self.series.nbytes)
        values = self.series.asarray()
        axes = self.series.axes
        last = [axes.index(axis) for axis in "YX"] + [axes.index(axis) for axis in "CS" if axis in axes]
        values = np.moveaxis(values, last, range(-len(last), 0))
        rest = values.reshape(-1, *values.shape[len(axes) - len(last) :])
        plane: NDArray[Any] = rest[index]
        return plane if plane.ndim == 2 else plane.reshape(*plane.shape[:2], -1)


@contextmanager
def _stack(path: Path) -> Iterator[_Stack]:
    import tifffile

    with _read(path, "tifffile"), path.open("rb") as file, tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        sizes = dict(zip(axes, shape, strict=True))
        if "Y" not in sizes or "X" not in sizes:
            raise DataError(
                f"{path}: has axes {axes}, of which none are rows and columns; save images.", "unreadable_file"
            )
        if sizes["Y"] * sizes["X"] > MAX_PIXELS:
            raise _too_large(path, series.nbytes)
        bands = sizes.get("S", 1) * sizes.get("C", 1)
        count = int(np.prod(shape, dtype=np.int64)) // (sizes["Y"] * sizes["X"] * bands)
        others = [other for other in tiff.series[1:] if not getattr(other.keyframe, "is_reduced", False)]
        if others:
            raise DataError(
                f"{path}: its pages have different sizes or kinds ({'x'.join(map(str, shape))} and "
                f"{'x'.join(map(str, others[0].shape))}); save one image per file.",
                "unreadable_file",
            )
        if count > MAX_SLICES:
            raise DataError(f"{path}: has {count} slices; at most {MAX_SLICES} are read. Cut it.", "too_large")
        yield _Stack(path, series, series.keyframe, count)


@dataclass(frozen=True)
class _Nifti:
    """What the header of a NIfTI file says: three axes, and where they run, such as RAS."""

    shape: tuple[int, ...]
    axes: str


def _nifti(path: Path) -> _Nifti:
    stat = path.stat() if path.is_file() else None
    return _nifti_header(path, stat.st_mtime_ns if stat else 0, stat.st_size if stat else 0)


@lru_cache(maxsize=4096)
def _nifti_header(path: Path, changed: int, size: int) -> _Nifti:
    return _described(path, _opened(path))


def _opened(path: Path) -> Any:
    with _read(path, "nibabel"):
        try:
            import nibabel
        except ImportError as error:
            raise DataError(
                f"{path}: is NIfTI, which the package nibabel reads; install it with pip install nibabel.",
                "unreadable_file",
            ) from error
        return nibabel.load(path)


def _described(path: Path, image: Any) -> _Nifti:
    import nibabel

    axes_of: Any = nibabel.orientations.aff2axcodes
    with _read(path, "nibabel"):
        shape = tuple(int(side) for side in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape = (*shape, 1) if len(shape) == 2 else shape
        if len(shape) != 3 or min(shape) < 1 or shape[2] > MAX_SLICES:
            raise DataError(
                f"{path}: has the shape {image.shape}; a volume has three axes: save one for each time or channel.",
                "unreadable_file",
            )
        if shape[0] * shape[1] > MAX_PIXELS:
            raise DataError(
                f"{path}: slices of {shape[0]}x{shape[1]} pixels; at most {MAX_PIXELS // 10**6} megapixels are read.",
                "too_large",
            )
        codes = axes_of(image.affine)
        return _Nifti(shape, "".join(code or "?" for code in codes))


@lru_cache(maxsize=2)  # the image's and that of its labels; `.nii.gz` is unpacked once and not for every slice
def _nifti_values(path: Path, changed: int, size: int) -> NDArray[Any]:
    image = _opened(path)
    shape = _described(path, image).shape
    with _read(path, "nibabel"):
        slope, inter = image.header.get_slope_inter()
        scaled = slope not in (None, 1.0) or inter not in (None, 0.0)
        bytes_each = 8 if scaled else image.get_data_dtype().itemsize
        if int(np.prod(shape, dtype=np.int64)) * bytes_each > MAX_BYTES:
            raise _too_large(path, int(np.prod(shape, dtype=np.int64)) * bytes_each)
        values: NDArray[Any] = np.asarray(image.dataobj if scaled else image.dataobj.get_unscaled()).reshape(shape)
        if values.dtype.kind not in "uif":
            raise DataError(f"{path}: has {values.dtype} values; save numbers.", "unreadable_file")
        return values


def _too_large(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: needs {size / 2**30:.1f} GiB as a whole; at most {MAX_BYTES // 2**30} GiB and slices of "
        f"{MAX_PIXELS // 10**6} megapixels are read. Cut it.",
        "too_large",
    )


@contextmanager
def _read(path: Path, package: str) -> Iterator[None]:
    """Failures of the package that reads `path` as a `DataError`."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{path}: truncated or damaged ({package}: {reason}); copy it again from its source, or leave it out.",
            "unreadable_file",
        ) from error
