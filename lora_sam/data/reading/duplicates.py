"""Images that look alike, by a small perceptual hash: none of them may be in two splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.images import digest_of_pixels, is_jpeg, read_reduced
from lora_sam.data.reading.skipping import attempt_all

MAX_DISTANCE = 3
"""Images whose hashes differ in at most so many of 64 bits look alike."""

MAX_IMAGES = 20_000
"""In larger sets duplicates are not looked for."""

MAX_PIXELS = 2 * 10**9
"""Nor in sets with more pixels to decode than that; of a JPEG about an eighth is."""

MAX_DIFFERENCE = 8.0
"""And differ by at most so much on the mean of their reduced pictures, of 255: hashes of flat pictures say little."""

REDUCED = (9, 8)
"""Width and height in pixels of what is hashed."""

_FLAT = 2.0  # standard deviation of a reduced picture, in grey levels, below which its hash tells nothing


def groups_of_duplicates(
    paths: Sequence[ImageFile], sizes: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], ...] | None:
    """Groups of two and more images that look alike; None where looking would take long.

    Two images look alike if their difference hashes differ in at most `MAX_DISTANCE` bits and their reduced pictures
    are about as bright; so does, by way of others, whatever is in their group.

    Args:
        paths: The files. One that cannot be read looks like no other.
        sizes: (height, width) of each in pixels.

    Returns:
        Ascending indices into `paths`, in the order of the first of each group.
    """
    if len(paths) > MAX_IMAGES or _work(paths, sizes) > MAX_PIXELS:
        return None
    pictures = attempt_all(lambda path: read_reduced(path, *REDUCED), paths)
    rows = [index for index, picture in enumerate(pictures) if not isinstance(picture, DataError)]
    if not rows:
        return ()
    # copies first: they are many in some sets, and one of them is enough to compare with others
    reduced, copy_of = np.unique(np.stack([np.asarray(pictures[index]) for index in rows]), axis=0, return_inverse=True)
    hashes, levels = _described(reduced)
    labels = np.arange(len(reduced))
    for row in range(len(reduced) - 1):
        near, _ = _alike(hashes[row], levels[row], hashes[row + 1 :], levels[row + 1 :])
        labels[np.isin(labels, labels[row + 1 + near])] = labels[row]
    members: dict[int, list[int]] = {}
    for index, label in zip(rows, labels[copy_of.ravel()].tolist(), strict=True):
        members.setdefault(label, []).append(index)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


@dataclass(frozen=True)
class Likeness:
    """What is kept of a decoded image to compare it with others.

    Attributes:
        pixels: Digest of its size and pixels.
        reduced: Its grey levels in 9 x 8 pixels, uint8 [8, 9].
    """

    pixels: str
    reduced: NDArray[np.uint8]


def likeness(image: NDArray[np.uint8]) -> Likeness:
    """What is kept of an RGB image uint8 [H, W, 3]."""
    grey = Image.fromarray(image).convert("L").resize(REDUCED, Image.Resampling.BOX)
    return Likeness(digest_of_pixels(image), np.asarray(grey))


def alike(first: Sequence[Likeness], second: Sequence[Likeness]) -> Iterator[tuple[int, int]]:
    """(place in `first`, place in `second`) for each of `second` that looks like one of `first`: the nearest one.

    Flat images look like none.
    """
    known = [place for place, one in enumerate(first) if one.reduced.std() >= _FLAT]
    if not known:
        return
    hashes, levels = _described(np.stack([first[place].reduced for place in known]))
    for place, one in enumerate(second):
        if one.reduced.std() >= _FLAT:
            own_hash, own_levels = _described(one.reduced[None])
            near, apart = _alike(own_hash[0], own_levels[0], hashes, levels)
            if len(near):
                yield known[near[apart.argmin()]], place


def _described(reduced: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Hash and grey levels, [N] and [N, 72], of reduced pictures uint8 [N, 8, 9]."""
    return difference_hashes(reduced), reduced.reshape(len(reduced), -1).astype(np.float32)


def _alike(
    one: np.uint64, levels: NDArray[np.float32], others: NDArray[np.uint64], levels_of_others: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Places of the others that look like one picture, and how far they are apart in grey levels."""
    near = np.flatnonzero(distances(one, others) <= MAX_DISTANCE)
    apart = np.abs(levels_of_others[near] - levels).mean(axis=1)
    return near[apart <= MAX_DIFFERENCE], apart[apart <= MAX_DIFFERENCE]


def difference_hashes(reduced: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Difference hash of pictures: a bit says whether a pixel is brighter than the one to its left.

    N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013.

    Args:
        reduced: Pictures of 9 x 8 pixels, uint8 [N, 8, 9].

    Returns:
        uint64 [N], the first pair of the first row in the highest bit.
    """
    brighter = reduced[:, :, 1:] > reduced[:, :, :-1]
    return np.packbits(brighter.reshape(len(reduced), -1), axis=1).view(">u8")[:, 0].astype(np.uint64)


def distances(one: np.uint64, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """In how many bits `one` differs from each of `others`, int64 [N]."""
    # the sum of the bits in parallel: of pairs, of fours, of bytes, of the word
    bits = others ^ one
    bits = bits - (bits >> np.uint64(1) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + (bits >> np.uint64(2) & np.uint64(0x3333333333333333))
    bits = bits + (bits >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (bits * np.uint64(0x0101010101010101) >> np.uint64(56)).astype(np.int64)


def _work(paths: Sequence[ImageFile], sizes: Sequence[tuple[int, int]]) -> float:
    """Pixels to decode."""
    pixels = 0.0
    for path, (height, width) in zip(paths, sizes, strict=True):
        try:
            pixels += height * width / (8 if is_jpeg(path) else 1)
        except DataError:
            continue
    return pixels
