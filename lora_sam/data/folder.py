"""Labels as a folder of images and a folder of masks with the same file names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.mask_files import MaskFile, MaskRules
from lora_sam.data.reading.pairs import Pairing, open_pairs
from lora_sam.data.splits import Splits


@dataclass(frozen=True, kw_only=True)
class Folder(FormatOptions):
    """Images and masks paired by file name without its ending.

    A mask with one value beside 0 (0/1, 0/255) is binary, one with more values is a label image. Everything is checked
    when the data is opened. If no split has a folder, but the folders without `{split}` are there, they are the
    training split.

    Attributes:
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name.
        masks: Directory of a split's masks, relative to `root`; `{split}` stands for the split's name.
        mask_values: `binary`: any object or none; `labels`: every value but 0 is an object; `auto`: by the number of
            values in the file, and JPEG is binary.
        instances: `whole`: all that is not background is one object; `components`: every connected component (of a
            binary mask, or of each label) is one; `auto`: a binary mask is one object, every label is one object.
        threshold: Foreground of a binary mask with more than two values (JPEG, soft edges) is at or above this.
    """

    images: str
    masks: str
    mask_values: Literal["auto", "binary", "labels"]
    instances: Literal["auto", "whole", "components"]
    threshold: Annotated[int, Field(ge=1, le=65535)]

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
