"""Labels as a folder of images and a folder of masks with the same file names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.data.reading.mask_files import MaskFile, MaskRules
from lora_sam.data.reading.pairs import Pairing, open_pairs
from lora_sam.data.splits import Splits


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Images and masks paired by file name without its ending.

    A mask with one value beside 0 (0/1, 0/255) is binary, one with more values is a label image. Everything is checked
    when the data is opened. If no split has a folder, but the folders without `{split}` are there, they are the
    training split.

    Attributes:
        root: Directory of the data set; nothing outside it is read.
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name.
        masks: Directory of a split's masks, relative to `root`; `{split}` stands for the split's name.
        train: Name of the training split.
        val: Name of the validation split; null, or a name without folder, carves it out of train.
        test: Name of the test split; null, or a name without folder, carves it out of train.
        val_fraction: Share of the training images that becomes an absent val split.
        test_fraction: Share of the training images that becomes an absent test split.
        mask_values: `binary`: any object or none; `labels`: every value but 0 is an object; `auto`: by the number of
            values in the file, and JPEG is binary.
        instances: `whole`: all that is not background is one object; `components`: every connected component (of a
            binary mask, or of each label) is one; `auto`: a binary mask is one object, every label is one object.
        threshold: Foreground of a binary mask with more than two values (JPEG, soft edges) is at or above this.
        on_error: `raise` stops at the first bad image or mask, `skip` leaves the pair out and lists it.
        max_skipped: Share of images or of objects that `skip` may leave out before it stops.
        min_area: Objects with fewer pixels are left out.
        max_objects_per_image: Training uses at most this many objects of an image per step; null for all.
        check: `full` also decodes every image once, which finds truncated files before training; `header` trusts them.
            Masks are always decoded, to know their objects.
    """

    root: str
    images: str
    masks: str
    train: str
    val: str | None
    test: str | None
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    mask_values: Literal["auto", "binary", "labels"]
    instances: Literal["auto", "whole", "components"]
    threshold: Annotated[int, Field(ge=1, le=65535)]
    on_error: Literal["raise", "skip"]
    max_skipped: Annotated[float, Field(ge=0, le=1)]
    min_area: Annotated[int, Field(ge=1)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None
    check: Literal["full", "header"]

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """
        rules = MaskRules(self.mask_values, self.instances, self.threshold, self.min_area)

        def reader(root: Path, images: Path) -> Callable[[Path], MaskFile]:
            return lambda file: MaskFile(file, rules)

        return open_pairs(self, Pairing(self.images, self.masks, "masks", "mask"), reader, seed)
