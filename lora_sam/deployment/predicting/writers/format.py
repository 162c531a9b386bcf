"""What a format of predictions is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_sam.deployment.predicting.found import FoundImage

Pixels = Callable[[], NDArray[np.uint8]]
"""Gives the image, RGB [H, W, 3]."""

Each = Callable[[Path, FoundImage, Pixels, Mapping[int, str]], tuple[str, ...]]
"""Writes what belongs to one image below the output directory; takes (output, image, its pixels, names of categories
by id) and returns the paths relative to the output, with `/`."""

Whole = Callable[[Path, Callable[[], Iterable[FoundImage]], Mapping[int, str]], None]
"""Writes what belongs to all images, when all are done; takes (output, all of them as often as wanted, names of
categories by id)."""


@dataclass(frozen=True)
class Format:
    """One way to write predictions.

    Attributes:
        name: As users write it.
        place: What is written, relative to the output.
        meaning: In a few words.
        each: Writes what belongs to one image.
        whole: Writes what belongs to all.
        also: What `whole` writes beside, relative to the output, where `place` is a directory.
        numbers_classes: Whether `each` writes numbers of classes, whose names `whole` writes.
    """

    name: str
    place: str
    meaning: str
    each: Each | None = None
    whole: Whole | None = None
    also: tuple[str, ...] = ()
    numbers_classes: bool = False


def identifiers(categories: Mapping[int, str]) -> dict[str, int]:
    """Ids of the categories by name."""
    return {name: identifier for identifier, name in categories.items()}
