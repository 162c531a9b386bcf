"""Labelled images that were checked, and decode lazily into samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.structures import Sample
from lora_sam.data.contents import short_digest
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.images import digest_of_file, image_size, read_image
from lora_sam.data.reading.label_map import LabelMap
from lora_sam.data.reading.pixel_scale import PixelScale

MAX_MASK_BYTES = 8 * 2**30
"""An image whose object masks need more memory than this (one byte per pixel and object) is refused."""


class StoredMasks(Protocol):
    """The masks of one image in the form in which they are stored."""

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W); in the order of the object ids. Raises `DataError`."""
        ...


@runtime_checkable
class IgnoresPixels(Protocol):
    """Stored masks of an image beside which some pixels are neither object nor background."""

    def ignored_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Those pixels, bool [H, W]; None where there are none. Raises `DataError` as `read` does."""
        ...


@runtime_checkable
class StoredApart(Protocol):
    """Stored masks that are read one by one, and no more of them than lies in their boxes."""

    def windows(self, size: tuple[int, int], rows: NDArray[np.int64] | None = None) -> MaskWindows:
        """All, or those at `rows`. Raises `DataError` as `read` does."""
        ...

    def union(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels of all, bool [H, W]. Raises `DataError` as `read` does."""
        ...


@runtime_checkable
class StoredAsMap(Protocol):
    """Stored masks that do not overlap, as a map of their numbers."""

    def mapped(self, size: tuple[int, int]) -> LabelMap:
        """All of them, in the order of `read`. Raises `DataError` as that does."""
        ...


@dataclass(frozen=True)
class LabelledImage:
    """One image and where its objects are stored.

    Attributes:
        id: Path of the image relative to the data root, with `/`.
        path: The image file.
        size: (height, width) in pixels.
        object_ids: Names of the N >= 1 objects.
        masks: The N masks.
        classes: Name of the class of each object; empty where the data has no classes.
        group: What it is part of, such as the volume of a slice; None where it is a whole.
    """

    id: str
    path: ImageFile
    size: tuple[int, int]
    object_ids: tuple[str, ...]
    masks: StoredMasks
    classes: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True)
class LabelledImages:
    """A `SampleSource` over labelled images."""

    images: tuple[LabelledImage, ...]
    scale: PixelScale | None = None
    """How values of more than 8 bits become grey levels, for all images of the data set."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.images)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the samples, in order."""
        return tuple(image.id for image in self.images)

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every image in pixels."""
        return tuple(image.size for image in self.images)

    @cached_property
    def object_counts(self) -> tuple[int, ...]:
        """Number of objects of every sample."""
        return tuple(len(image.object_ids) for image in self.images)

    @cached_property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """For every sample the class of each object; empty where the data has no classes."""
        return tuple(image.classes for image in self.images)

    @cached_property
    def groups(self) -> tuple[str | None, ...]:
        """What every sample is part of; None for one that is a whole."""
        return tuple(image.group for image in self.images)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample. Raises `DataError` when its files changed since they were checked."""
        return _sample(self.images[index], self._pixels(index))[0]

    def labels(self, index: int) -> Sample:
        """The sample with a black image. Raises `DataError` when its files changed since they were checked."""
        return _sample(self.images[index], _black(self.images[index].size))[0]

    def some(
        self, index: int, rows: NDArray[np.int64], *, decode: bool, union: bool
    ) -> tuple[Sample, NDArray[np.bool_] | None]:
        """See `lora_sam.data.partly.some_of`."""
        image = self.images[index]
        pixels = self._pixels(index) if decode else _black(image.size)
        return _sample(image, pixels, rows, union=union)

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        image = self.images[index]
        pixels = read_image(image.path, self.scale)
        if pixels.shape[:2] != image.size:
            raise size_mismatch(str(image.path), pixels.shape[:2], "when the data was opened", image.size)
        return pixels

    def file_digest(self, index: int) -> str | None:
        """SHA-256 of the image's file in hexadecimal; None where it cannot be read."""
        try:
            digest = digest_of_file(self.images[index].path)
            return digest if self.scale is None else self.scale.digest_with(digest)
        except OSError:
            return None

    def fingerprint(self, index: int, *, thorough: bool) -> tuple[str, str]:
        """See `lora_sam.data.contents.Fingerprinted`."""
        image = self.images[index]
        pixels = short_digest((image.size, image.path), thorough)
        return pixels, short_digest((image.size, image.classes, image.masks), thorough)


def _sample(
    image: LabelledImage, pixels: NDArray[np.uint8], rows: NDArray[np.int64] | None = None, *, union: bool = False
) -> tuple[Sample, NDArray[np.bool_] | None]:
    """The sample with all objects or those at `rows`, and the pixels of all if these are wanted."""
    masks, whole = _masks_of(image, rows, union=union)
    ids, classes = image.object_ids, image.classes
    if rows is not None:
        ids = tuple(ids[row] for row in rows.tolist())
        classes = tuple(classes[row] for row in rows.tolist()) if classes else ()
    assert len(masks) == len(ids)
    ignored = _ignored(image)
    if isinstance(masks, MaskWindows):
        return Sample.of_windows(image.id, pixels, masks, ids, classes, ignored, image.group), whole
    return Sample(image.id, pixels, masks, ids, classes, ignored, image.group), whole


def _masks_of(
    image: LabelledImage, rows: NDArray[np.int64] | None, *, union: bool
) -> tuple[NDArray[np.bool_] | MaskWindows, NDArray[np.bool_] | None]:
    """Masks, or those at `rows`, as what lies in their boxes where no more need be read; and the union of all."""
    stored, size = image.masks, image.size
    if isinstance(stored, StoredAsMap):
        objects = stored.mapped(size)
        assert len(objects.names) == len(image.object_ids)
        windows = objects.windows(rows)
        return objects.masks(rows) if windows is None else windows, objects.labels != 0 if union else None
    if isinstance(stored, StoredApart):
        return stored.windows(size, rows), stored.union(size) if union else None
    masks = stored.read(size)
    whole: NDArray[np.bool_] | None = np.any(masks, axis=0) if union else None
    return masks if rows is None else masks[rows], whole


def _ignored(image: LabelledImage) -> NDArray[np.bool_] | None:
    return image.masks.ignored_pixels(image.size) if isinstance(image.masks, IgnoresPixels) else None


def _black(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.broadcast_to(np.uint8(0), (*size, 3))


def check_mask_memory(owner: str, objects: int, size: tuple[int, int]) -> None:
    """Refuse masks that would not fit into memory.

    Raises:
        DataError: `objects` masks of `size` need more than `MAX_MASK_BYTES`.
    """
    needed = objects * size[0] * size[1]
    if needed > MAX_MASK_BYTES:
        raise DataError(
            f"{owner}: {objects} masks of {size[1]}x{size[0]} pixels need {needed / 2**30:.1f} GiB; at most "
            f"{MAX_MASK_BYTES / 2**30:g} GiB per image. Cut the image into tiles or scale it down.",
            "too_large",
        )


def check_size(path: ImageFile, size: tuple[int, int]) -> None:
    """Refuse a mask that is not of the `size` (height, width) of its image, by its header, before it is decoded.

    Raises:
        DataError: it has another size, or cannot be read.
    """
    found = image_size(path)
    if found != size:
        raise size_mismatch(str(path), found, "in its image", size)


def size_mismatch(owner: str, size: tuple[int, ...], other: str, expected: tuple[int, int]) -> DataError:
    """The error for an image or mask that is not as large as it should be; sizes are (height, width)."""
    if size == expected[::-1]:
        remedy = "Was it labelled without its EXIF orientation? Turn the picture itself and remove the EXIF tag."
    else:
        remedy = "Image and labels must belong to the same picture: export them again at one size."
    return DataError(
        f"{owner}: is {size[1]}x{size[0]} pixels (width x height), but {expected[1]}x{expected[0]} {other}. {remedy}",
        "size_mismatch",
    )
