"""Images and labels as the training of MedSAM takes them, in .npy (https://github.com/bowang-lab/MedSAM)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.labels import LabelFile
from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, check_mask_memory
from lora_sam.data.reading.pairs import gathered
from lora_sam.data.reading.paths import data_root, files_in, inside
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.splits import Splits

IMAGES, LABELS = "imgs", "gts"

_COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class MedSam(FormatOptions):
    """`imgs/*.npy` with pixels [H, W, 3] from 0 to 1 or as bytes, and `gts/*.npy` with labels [H, W].

    Every value of a label array but 0 is an object. Folders of splits may be above both.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all labels and images.

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        ledger = Ledger(self.on_error, self.max_skipped)
        single = (root / IMAGES).is_dir()

        def read(split: str, notes: Notes) -> LabelledImages | None:
            place = root if single else root / split
            if not (place / IMAGES).is_dir() or (single and split != self.train):
                return None

            def pair(file: Path) -> tuple[LabelledImage, int]:
                image, labels = (
                    inside(root, path.relative_to(root).as_posix(), str(path))
                    for path in (file, place / LABELS / file.name)
                )
                if not image.is_file():
                    raise DataError(
                        f"{labels}: has no image {image}; add it, or remove the labels.", "label_without_image"
                    )
                if not labels.is_file():
                    raise DataError(f"{image}: has no labels {labels}; add them, or remove it.", "image_without_label")
                picture = NpyImage(image)
                size = picture.read().shape[:2]
                stored = LabelFile(labels, False, self.min_area)
                objects = stored.label_map((size[0], size[1]))
                check_mask_memory(str(labels), len(objects.names), (size[0], size[1]))
                name = image.relative_to(root).as_posix()
                return LabelledImage(name, picture, (size[0], size[1]), objects.names, stored), objects.too_small

            names = {path.name for folder in (IMAGES, LABELS) for path in files_in(place / folder, ".npy")}
            files = [place / IMAGES / name for name in sorted(names)]
            return gathered(attempt_all(pair, files), ledger, notes, place=str(place / IMAGES), min_area=self.min_area)

        return read_splits(
            read, ledger, self, seed=seed, single=single, place=lambda split: str(root if single else root / split)
        )


LAYOUT = "MedSAM: imgs/*.npy and gts/*.npy"
NEEDS = ("imgs/*.npy", "gts/*.npy")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    for place in (root, root / "train", root / "training"):
        if any(next((place / name).glob("*.npy"), None) is None for name in (IMAGES, LABELS)):
            continue
        return f"{IMAGES}/*.npy and {LABELS}/*.npy"
    return None


@dataclass(frozen=True)
class NpyImage:
    """A picture in NumPy's file; see `lora_sam.data.reading.image_file.ImageFile`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def is_file(self) -> bool:
        """Whether there is something to read."""
        return self.path.is_file()

    def exists(self) -> bool:
        """Whether it is there, as a file or as something else."""
        return self.path.exists()

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """The picture as BMP, to be closed. Raises `DataError` as `read` does."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.read()).save(buffer, "BMP")
        buffer.seek(0)
        return buffer

    def read(self) -> NDArray[np.uint8]:
        """RGB, uint8 [H, W, 3].

        Raises:
            DataError: it is no such array, or its values are neither bytes nor from 0 to 1.
        """
        try:
            values: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(
                f"{self}: is damaged or no .npy file ({reason}); save it again with numpy.save.", "unreadable_file"
            ) from error
        if values.ndim not in (2, 3) or (values.ndim == _COLOURS and values.shape[2] not in (1, _COLOURS)):
            raise DataError(f"{self}: has the shape {values.shape}; it takes (height, width, 3).", "unreadable_file")
        if values.shape[0] * values.shape[1] > MAX_PIXELS:
            raise DataError(f"{self}: has more than {MAX_PIXELS} pixels; cut it into tiles.", "too_large")
        if values.dtype == np.uint8:
            pixels = np.asarray(values)
        elif values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:
            pixels = np.round(np.asarray(values) * 255).astype(np.uint8)
        else:
            found = f"{values.dtype} values from {values.min():g} to {values.max():g}"
            remedy = "save pixels from 0 to 1 as floats, or from 0 to 255 as uint8"
            raise DataError(f"{self}: its values are no pixels ({found}); {remedy}.", "unreadable_file")
        pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], _COLOURS)))
