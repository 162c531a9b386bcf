"""Masks whose objects are told apart by their colours, as iSAID, BBBC039 and COCO's panoptic pictures have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lora_sam.core.calling import data_words
from lora_sam.core.errors import DataError
from lora_sam.data.noticed import Notes
from lora_sam.data.reading.image_file import ImageFile, place_of
from lora_sam.data.reading.images import pixel_kind
from lora_sam.data.reading.looked_at import looked_at
from lora_sam.data.reading.mask_survey import Survey, blended
from lora_sam.data.reading.mask_values import mask_values
from lora_sam.data.reading.skipping import attempt_all

_LOOKED_AT = 4  # files
_BLENDED = 0.05  # of the pixels of objects
_FEW_FILES, _FEW_COLOURS, _IN_MOST = 4, 32, 0.5


def refuse_colours(files: Sequence[ImageFile], images: str, masks: str) -> None:
    """Say how masks with colours are read.

    Args:
        files: Masks; some are looked at.
        images: Directory of a split's images, relative to the root.
        masks: Likewise of its masks.

    Raises:
        DataError: one has colours.
    """
    words = f"data=labels data.colours=objects {data_words(images=images, labels=masks)}"
    some = [file for file in looked_at(files, _LOOKED_AT) if _may_have_colours(file)]
    for file, found in zip(some, attempt_all(lambda one: mask_values(one, colours=True), some), strict=True):
        if not isinstance(found, DataError) and found.coloured:
            raise DataError(
                f"{file}: a mask with colours; if each colour is one object, read it with {words}; if a colour is a "
                "class, with data=common_semantic (docs/data.md); else save it as a grey or palette image with one "
                "value per label.",
                "ambiguous_mask",
            )


def _may_have_colours(file: ImageFile) -> bool:
    try:
        return not (isinstance(file, Path) and file.suffix.lower() == ".npy") and pixel_kind(file) == "colour"
    except DataError:  # of which the reader tells more
        return False


def check_colours(survey: Survey, files: Sequence[ImageFile], notes: Notes) -> None:
    """Whether every colour can be an object.

    Args:
        survey: Of the masks, colours as numbers.
        files: The masks.
        notes: Gets a warning where the same few colours are in most masks, as those of classes are.

    Raises:
        DataError: colours between the colours, as edges have that were smoothed.
    """
    pixels = sum(count for value, count in survey.counts.items() if value > 0)
    alone = sum(count for value, count in survey.alone.items() if value > 0)
    if alone > _BLENDED * pixels:
        raise blended(files[0], "data.colours=objects needs every object in one colour")
    found = Counter(value for value, _ in survey.parts_of_values)
    usual = [value for value, times in found.items() if times > _IN_MOST * survey.files]
    if survey.files >= _FEW_FILES and len(found) <= _FEW_COLOURS and 2 * len(usual) > len(found):
        notes.found(
            "colours_of_classes",
            f"{place_of(files)}: warning: {len(usual)} of {len(found)} colours are in most of the {survey.files} masks "
            "that were looked at, as those of classes are, and each is read as one object of a mask; for classes, list "
            "their colours in class_dict.csv and use data=common_semantic",
        )
