"""Which of many mask files are looked at, before all of them are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.core.spaced import evenly_spaced
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.images import image_size

_MOST_IN_ALL = 2**26  # pixels of them, roughly; at least four masks


def looked_at(files: Sequence[ImageFile], most: int) -> list[ImageFile]:
    """At most so many of these, evenly spaced, fewer where they are large, and none that is much larger than most."""
    sizes = {place: _pixels(files[place]) for place in evenly_spaced(len(files), most)}
    known = [size for size in sizes.values() if size]
    if not known:
        return []
    usual = float(np.median(known))
    places = evenly_spaced(len(files), max(4, min(most, int(_MOST_IN_ALL / usual))))
    return [files[place] for place in places if _pixels(files[place]) <= 4 * usual]


def _pixels(file: ImageFile) -> int:
    """Pixels of a picture by its header, or of an array by the size of its file; 0 for what cannot be read."""
    try:
        if isinstance(file, Path) and file.suffix.lower() == ".npy":
            return file.stat().st_size
        height, width = image_size(file)
    except (DataError, OSError):
        return 0
    return height * width
