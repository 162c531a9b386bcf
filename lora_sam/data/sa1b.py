"""Labels as SA-1B has them: one JSON with RLE for each image (https://ai.meta.com/datasets/segment-anything)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import whole
from lora_sam.data.reading.outline import Outline
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, shown
from lora_sam.data.reading.tool_files import files_below, parsed, recognised
from lora_sam.data.splits import Splits

_SAYS, _NEVER = (b'"annotations"', b'"image"', b'"counts"'), (b'"images"', b'"items"')


@dataclass(frozen=True, kw_only=True)
class Sa1b(FormatOptions):
    """`sa_1.jpg` and `sa_1.json`: masks of everything, as Segment Anything itself was trained on.

    Every annotation is an object, without a class. Folders called train, val or test are splits.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the annotation and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="SA-1B's JSON")


LAYOUT = "SA-1B: a JSON with RLE for each image"
NEEDS = ("*.<image>", '*.json with "image"')
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = recognised(root, ".json", says=_SAYS, never=_NEVER)
    return None if file is None else f'"image" and "annotations" in {file.relative_to(root)}'


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    for file in files_below(root, ".json"):
        try:
            content = parsed(file, root)
            if isinstance(content, dict) and isinstance(content.get("image"), dict) and "annotations" in content:
                yield _picture(content, file, root)
        except DataError as error:
            yield error


def _picture(content: dict[str, Any], file: Path, root: Path) -> Picture:
    image, entries = content["image"], content["annotations"]
    height, width = whole(image.get("height")), whole(image.get("width"))
    if height is None or width is None or not isinstance(entries, list):
        raise DataError(
            f'{file}: has no "image" with width and height, or no list "annotations"; fetch it again.', "bad_annotation"
        )
    outlines: list[Outline | DataError] = []
    for entry in entries:
        rle = entry.get("segmentation") if isinstance(entry, dict) else None
        if isinstance(rle, dict):
            outlines.append(Outline(name=str(entry.get("id", "")), rle=rle))
        elif isinstance(rle, list):
            outlines.append(Outline(name=str(entry.get("id", "")), rings=tuple(rle)))
        else:
            outlines.append(DataError(f"has the segmentation {shown(rle)}; it takes RLE", "bad_annotation"))
    return Picture(
        owner=str(file),
        image=image.get("file_name"),
        folders=(file.parent,),
        size=(height, width),
        outlines=outlines,
        split=split_in(file, root),
    )
