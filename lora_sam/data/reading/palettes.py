"""Palettes of mask files, which say nothing of their values unless files disagree about what 0 is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.core.spaced import evenly_spaced
from lora_sam.data.reading.image_file import ImageFile, opened_image
from lora_sam.data.reading.mask_values import numbers_anew, palette_of
from lora_sam.data.reading.skipping import attempt_all

_MOST = 16  # files that are looked at, evenly spaced
_ENDINGS = frozenset((".png", ".bmp", ".gif"))

_Colours = dict[int, tuple[int, ...]]


def check_palettes(files: Sequence[ImageFile]) -> None:
    """Refuse palette images that number colours each in its own way, as programs do that reduce colours.

    Raises:
        DataError: a file shows 0 in a colour that is another value in another file, which shows 0 otherwise.
    """
    some = [files[place] for place in evenly_spaced(len(files), _MOST)]
    chosen = [file for file in some if isinstance(file, Path) and file.suffix.lower() in _ENDINGS]
    read = [
        (file, found)
        for file, found in zip(chosen, attempt_all(_used, chosen), strict=True)
        if isinstance(found, dict) and 0 in found
    ]
    for file, colours in read:
        for other, others in read:
            value = next((value for value, colour in others.items() if value and colour == colours[0]), None)
            if value is not None and others[0] != colours[0]:
                raise DataError(
                    f"{other}: its palette has the colour {colours[0]} as value {value}, which is 0 in {file.name}, so "
                    "that what is background cannot be known; save masks as grey images with 0 for the background.",
                    "ambiguous_mask",
                )


def _used(file: ImageFile) -> _Colours:
    """The colours of the values that a palette image uses; nothing of another image. Raises `DataError`."""
    with opened_image(file) as image:
        if image.mode != "P" or numbers_anew(image, image.format):
            return {}
        palette = palette_of(image)
        values = np.unique(np.asarray(image)).tolist()
    return {value: tuple(palette[value].tolist()) for value in values if value < len(palette)}
