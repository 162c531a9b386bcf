"""Instance label images beside the images: 0 is background, and every other value is one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.calling import data_words
from lora_sam.core.errors import DataError
from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions, IgnoreOptions, NameOptions, SliceOptions
from lora_sam.data.reading.annotation_files import any_json
from lora_sam.data.reading.coloured_masks import check_colours, refuse_colours
from lora_sam.data.reading.image_file import MAX_PIXELS, ImageFile, place_of
from lora_sam.data.reading.images import SUFFIXES, is_jpeg
from lora_sam.data.reading.label_map import LabelMap, numbered, stored_values
from lora_sam.data.reading.labelled import check_size, size_mismatch
from lora_sam.data.reading.mask_survey import Survey, blended, surveyed, void_of
from lora_sam.data.reading.mask_values import MaskValues, mask_values, whole_numbers
from lora_sam.data.reading.mask_warnings import odd_values, warn_of_outlines, warn_of_parts
from lora_sam.data.reading.npy_header import MAX_HEADER, read_header
from lora_sam.data.reading.pairs import Pairing, open_pairs
from lora_sam.data.reading.palettes import check_palettes
from lora_sam.data.splits import Splits

LABEL_SUFFIXES = SUFFIXES | {".npy"}
"""Lower-case file name endings of label images."""

_NNUNET = "dataset.json"

NEEDS = (
    "images/*.<image>|image/*.<image>|imgs/*.<image>|img/*.<image>",
    "labels/*.<image>|labels/*.npy|label/*.<image>",
)
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class Labels(IgnoreOptions, NameOptions, SliceOptions, FormatOptions):
    """Images and instance label images paired by file name without its ending, as PNG, TIFF or NumPy's `.npy`.

    Unlike `data=folder`, a file with a single value is one label like any other, no value means a soft edge, and an
    image without objects is left out and counted instead of refused. Everything is checked when the data is opened.
    If no split has a folder, but the folders without `{split}` are there, they are the training split.

    Attributes:
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name.
        labels: Directory of a split's label images, relative to `root`; `{split}` stands for the split's name.
        instances: `values`: every value is one object; `components`: every connected component of a value is one.
        colours: `objects`: every colour but black is a value, 0xRRGGBB; `refuse`: no label image has colours.
    """

    images: str
    labels: str
    instances: Literal["values", "components"]
    colours: Literal["refuse", "objects"]

    def open(self, seed: int) -> Splits:
        """Read and check all label images and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """

        def reader(
            root: Path, images: Path, files: Sequence[ImageFile], notes: Notes
        ) -> Callable[[ImageFile], LabelFile]:
            colours = self.colours == "objects"
            if not colours:
                refuse_colours(files, self.images, self.labels)
            survey = surveyed(files, lambda file: MaskValues(_values(file, None, colours=colours)))
            ignored = void_of(survey, self.ignore, files, notes)
            if self.ignore == "auto":
                ignored = tuple(sorted({*ignored, *_ignored_in(root / _NNUNET, survey, files, notes)}))
            if colours:
                check_colours(survey, files, notes)
            kind = "plain" if colours else survey.kind(ignored)
            images_and_masks = data_words(images=self.images, masks=self.labels)
            if kind == "soft":
                raise DataError(
                    f"{files[0]}: values between 0 and {survey.largest(ignored)} are the soft edges of one object, no "
                    f"labels; read masks with data=folder {images_and_masks}.",
                    "ambiguous_mask",
                )
            if kind == "blended":
                remedy = f"data=folder data.mask_values=labels {images_and_masks}"
                raise blended(files[0], f"{remedy} takes every value for an object")
            check_palettes(files)
            odd_values(survey, ignored, place_of(files), notes, colours=colours)
            warn_of_outlines(survey, place_of(files), notes)
            if self.instances != "components":
                several = len(survey.values(ignored)) > 1
                warn_of_parts(survey, ignored, place_of(files), notes, several=several)
            return lambda file: LabelFile(file, self.instances == "components", self.min_area, ignored, colours)

        return open_pairs(
            self,
            Pairing(self.images, self.labels, "labels", "label image", LABEL_SUFFIXES, self.mask_suffix, self.slices),
            reader,
            seed,
        )


def _ignored_in(file: Path, survey: Survey, files: Sequence[ImageFile], notes: Notes) -> tuple[int, ...]:
    """The value that nnU-Net's `dataset.json` calls `ignore`, where a label image has it; with a note."""
    try:
        content = any_json(file) if file.is_file() else None
    except DataError:  # of another program
        return ()
    labels = content.get("labels") if isinstance(content, dict) else None
    value = labels.get("ignore") if isinstance(labels, dict) else None
    if type(value) is not int or value not in survey.counts:
        return ()
    told = f'{value} is called "ignore" in {file.name}, and is no object, as data.ignore=[{value}] says'
    notes.found("void_values", f"{place_of(files)}: {told}; data.ignore=[] takes it for one")
    return (value,)


@dataclass(frozen=True)
class LabelFile:
    """One label image, and how to read it.

    Attributes:
        path: PNG, TIFF, WebP, BMP, `.npy` or a slice of a volume.
        components: Whether every connected component of a value is an object of its own.
        min_area: Objects with fewer pixels are left out.
        ignored: Values that are background beside 0.
        colours: Whether colours are values.
    """

    path: ImageFile
    components: bool
    min_area: int
    ignored: tuple[int, ...] = ()
    colours: bool = False

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `label_map` does."""
        return self.mapped(size).masks()

    def mapped(self, size: tuple[int, int]) -> LabelMap:
        """See `lora_sam.data.reading.labelled.StoredAsMap`."""
        return self.label_map(size)

    def ignored_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Pixels of the values in `ignored`, and of objects that are too small, bool [H, W]; None for none."""
        if not self.ignored and self.min_area <= 1:
            return None
        neither: NDArray[np.bool_] = (_values(self.path, size, colours=self.colours) != 0) & (
            self.label_map(size).labels == 0
        )
        return neither if neither.any() else None

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects, named by their values ("7", or "7.2" for the second component); maybe none.

        Raises:
            DataError: the file cannot be read, is a JPEG, has another size, or no whole numbers from 0.
        """
        values = _values(self.path, size, colours=self.colours)
        stored = stored_values(values)
        stored = stored[(stored != 0) & ~np.isin(stored, self.ignored)]
        if len(stored) and stored[0] < 0:
            raise DataError(
                f"{self.path}: has negative values ({int(stored[0])}); use 0 for background, labels > 0, or leave them "
                f"out with data.ignore=[{int(stored[0])}].",
                "ambiguous_mask",
            )
        objects = LabelMap(numbered(values, stored), tuple(str(int(value)) for value in stored))
        return (objects.components() if self.components else objects).without_small(self.min_area)


def _values(path: ImageFile, size: tuple[int, int] | None, *, colours: bool) -> NDArray[Any]:
    if isinstance(path, Path) and path.suffix.lower() == ".npy":
        return read_npy(path, size)
    if is_jpeg(path):
        raise DataError(f"{path}: JPEG blurs label values; save label images as PNG, TIFF or .npy.", "ambiguous_mask")
    if size is not None:
        check_size(path, size)
    return mask_values(path, colours=colours).values


def read_npy(path: Path, size: tuple[int, int] | None) -> NDArray[Any]:
    """The whole numbers in NumPy's `.npy` file, [H, W], of any integer, floating or Boolean type; never unpickles.

    Type, shape and length are checked in the header, before memory is taken (the format is NEP 1 of NumPy).

    Args:
        path: The file.
        size: (H, W) that it must have; None for any.

    Raises:
        DataError: it is no such file, or has another type or shape, or fewer bytes than it says.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file)
            _check_header(path, header.shape, header.dtype, size)
            present = path.stat().st_size - header.length
            if present != header.bytes:
                raise ValueError(f"{present} bytes of values, {header.bytes} expected")
            file.seek(0)
            values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=MAX_HEADER)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); restore it, or check its permissions.", "unreadable_file"
        ) from error
    except DataError:
        raise
    except Exception as error:  # the header is parsed as Python literals, which fails in many ways
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{path}: is damaged or no .npy file ({reason}); save it again with numpy.save.", "unreadable_file"
        ) from error
    if values.dtype.kind == "f":
        return whole_numbers(values, str(path))
    return values.view(np.uint8) if values.dtype == np.bool_ else values


def _check_header(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], size: tuple[int, int] | None) -> None:
    if dtype.hasobject:
        raise DataError(
            f"{path}: holds pickled Python objects, which can run any code and are never loaded; save the labels as "
            "an array of integers."
        )
    if dtype.kind not in "biuf":
        raise DataError(f"{path}: has {dtype} values; save labels as uint8, uint16 or int32.", "ambiguous_mask")
    if len(shape) != 2:
        raise DataError(
            f"{path}: has the shape {shape}; save one label image of shape (height, width) per file.", "ambiguous_mask"
        )
    if size is not None and shape != size:
        raise size_mismatch(str(path), shape, "in its image", size)
    if shape[0] * shape[1] > MAX_PIXELS:
        raise DataError(f"{path}: has the shape {shape}; at most {MAX_PIXELS} pixels are read: cut tiles.", "too_large")
