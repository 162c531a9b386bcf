"""Labels as a folder of images and a folder of masks with the same file names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions, MaskOptions, NameOptions, SliceOptions
from lora_sam.data.reading.coloured_masks import refuse_colours
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.mask_files import MaskFile, settled
from lora_sam.data.reading.pairs import Pairing, open_pairs
from lora_sam.data.splits import Splits

NEEDS = ("images/*.<image>|image/*.<image>|imgs/*.<image>|img/*.<image>", "masks/*.<image>|mask/*.<image>|gt/*.<image>")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class Folder(MaskOptions, NameOptions, SliceOptions, FormatOptions):
    """Images and masks paired by file name without its ending.

    A mask with one value beside 0 (0/1, 0/255) is binary, one with more values is a label image, unless the masks of
    the split show soft edges. Everything is checked
    when the data is opened. If no split has a folder, but the folders without `{split}` are there, they are the
    training split.

    Attributes:
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name.
        masks: Directory of a split's masks, relative to `root`; `{split}` stands for the split's name.
    """

    images: str
    masks: str

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """

        def reader(
            root: Path, images: Path, files: Sequence[ImageFile], notes: Notes
        ) -> Callable[[ImageFile], MaskFile]:
            refuse_colours(files, self.images, self.masks)
            rules = settled(self, self.min_area, files, notes)
            return lambda file: MaskFile(file, rules)

        return open_pairs(
            self,
            Pairing(self.images, self.masks, "masks", "mask", suffix=self.mask_suffix, slices=self.slices),
            reader,
            seed,
        )
