"""Whether two images are the same, or nearly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.data.reading.duplicates import MAX_DIFFERENCE, MAX_DISTANCE, REDUCED, difference_hashes, distances

_FLAT = 2.0  # standard deviation of a reduced picture, in grey levels, below which its hash tells nothing


@dataclass(frozen=True)
class Likeness:
    """What is kept of an image to compare it with others.

    Attributes:
        pixels: Digest of its size and pixels.
        reduced: Its grey levels in 9 x 8 pixels, uint8 [8, 9].
    """

    pixels: bytes
    reduced: NDArray[np.uint8]


def likeness(image: NDArray[np.uint8]) -> Likeness:
    """What is kept of an RGB image uint8 [H, W, 3]."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    grey = Image.fromarray(image).convert("L").resize(REDUCED, Image.Resampling.BOX)
    return Likeness(digest.digest(), np.asarray(grey))


def alike(first: Sequence[Likeness], second: Sequence[Likeness]) -> Iterator[tuple[int, int]]:
    """(place in `first`, place in `second`) for each of `second` that looks like one of `first`: the nearest one.

    They look alike as in `lora_sam.data.reading.duplicates`; flat images look like none.
    """
    known = [place for place, one in enumerate(first) if one.reduced.std() >= _FLAT]
    if not known:
        return
    pictures = np.stack([first[place].reduced for place in known])
    hashes, levels = difference_hashes(pictures), pictures.astype(np.float32)
    for place, one in enumerate(second):
        if one.reduced.std() < _FLAT:
            continue
        near = np.flatnonzero(distances(difference_hashes(one.reduced[None])[0], hashes) <= MAX_DISTANCE)
        if len(near):
            apart = np.abs(levels[near] - one.reduced).mean(axis=(1, 2))
            if apart.min() <= MAX_DIFFERENCE:
                yield known[near[apart.argmin()]], place
