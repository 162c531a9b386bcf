"""Large images as tiles: what a model of a small input can learn of them, and be measured on.

Tiles lie as at prediction (`lora_sam.core.tile_grid`), neighbours share an eighth of their side. Every object belongs
to one tile, so that it counts once: of those that see it whole the one with the most around it. An object that no tile
sees whole, as one larger than a tile, belongs to the tile with the largest part of it, cut by its edge. In all other
tiles its pixels are `ignored`: neither object nor background.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.groups import Parts
from lora_sam.core.structures import Sample, tight_boxes
from lora_sam.core.tile_grid import Box, tile_id, tiles_of
from lora_sam.core.wording import plural
from lora_sam.data.contents import fingerprint_of, short_digest
from lora_sam.data.partly import some_of
from lora_sam.data.sources import Classified, SampleSource, file_digest_of, groups_of
from lora_sam.data.splits import Splits

HALO = 8
"""Neighbours share this part of a tile's side."""

_MASK_BYTES = 2**28  # of objects whose places are looked up at once


@dataclass(frozen=True)
class Tile:
    """A part of an image that is a sample of its own.

    Attributes:
        image: Index of the image in its source.
        box: Where it lies; None for an image that is small enough, which stays as it is.
        rows: The objects that belong to it.
        others: Objects of which it sees something, and which belong to other tiles.
    """

    image: int
    box: Box | None
    rows: tuple[int, ...]
    others: tuple[int, ...] = ()


class Tiles:
    """A source whose large images are cut.

    Args:
        source: The images.
        tiles: The samples, each with at least one object.
    """

    def __init__(self, source: SampleSource, tiles: Sequence[Tile]) -> None:
        self._source = source
        self.tiles = tuple(tiles)
        self._last: tuple[int, NDArray[np.uint8]] | None = None
        self._reading = threading.Lock()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.tiles)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the samples, in order: that of the image, and where the tile begins, as `image.png/1024,0`."""
        return tuple(
            self._source.ids[tile.image] if tile.box is None else tile_id(self._source.ids[tile.image], tile.box)
            for tile in self.tiles
        )

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every sample in pixels."""
        return tuple(
            self._source.sizes[tile.image]
            if tile.box is None
            else (tile.box[3] - tile.box[1], tile.box[2] - tile.box[0])
            for tile in self.tiles
        )

    @cached_property
    def object_counts(self) -> tuple[int, ...]:
        """Number of objects of every sample."""
        return tuple(len(tile.rows) for tile in self.tiles)

    @cached_property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """For every sample the class of each object; empty where the data has no classes."""
        if not isinstance(self._source, Classified):
            return ((),) * len(self.tiles)
        every = self._source.classes
        return tuple(
            tuple(every[tile.image][row] for row in tile.rows) if every[tile.image] else () for tile in self.tiles
        )

    @cached_property
    def groups(self) -> tuple[str | None, ...]:
        """What every sample is part of: that of its image, or the image; None for one that is a whole."""
        groups, ids = groups_of(self._source), self._source.ids
        return tuple(
            groups[tile.image] if tile.box is None or groups[tile.image] is not None else ids[tile.image]
            for tile in self.tiles
        )

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample."""
        return self.some(index, np.arange(len(self.tiles[index].rows)), decode=True, union=False)[0]

    def labels(self, index: int) -> Sample:
        """See `LabelsApart`."""
        return self.some(index, np.arange(len(self.tiles[index].rows)), decode=False, union=False)[0]

    def some(
        self, index: int, rows: NDArray[np.int64], *, decode: bool, union: bool
    ) -> tuple[Sample, NDArray[np.bool_] | None]:
        """See `lora_sam.data.partly.some_of`."""
        tile = self.tiles[index]
        own = np.array(tile.rows, np.int64)
        if tile.box is None:
            return some_of(self._source, tile.image, own[rows], decode=decode, union=union)
        seen = np.concatenate([own, np.array(tile.others, np.int64)])
        order = np.argsort(seen)
        whole, pixels = self._read(tile.image, seen[order], decode)
        x1, y1, x2, y2 = tile.box
        place = np.argsort(order)  # where each of `seen` is in what was read
        masks = whole.masks[place, y1:y2, x1:x2]
        mine, foreign = masks[: len(own)], masks[len(own) :]
        ignored = np.any(foreign, axis=0)
        if whole.ignored is not None:
            ignored |= whole.ignored[y1:y2, x1:x2]
        all_mine = np.any(mine, axis=0)
        ignored &= ~all_mine
        sample = Sample(
            id=self.ids[index],
            image=np.ascontiguousarray(pixels[y1:y2, x1:x2]),
            masks=mine,
            object_ids=tuple(whole.object_ids[row] for row in place[: len(own)]),
            classes=tuple(whole.classes[row] for row in place[: len(own)]) if whole.classes else (),
            ignored=ignored if ignored.any() else None,
            group=self.groups[index],
        )
        return sample.only(rows), all_mine if union else None

    def file_digest(self, index: int) -> str | None:
        """See `LabelsApart`; of the image's file and the place in it."""
        tile = self.tiles[index]
        digest = file_digest_of(self._source, tile.image)
        if digest is None or tile.box is None:
            return digest
        return hashlib.sha256(f"{digest} {tile.box}".encode()).hexdigest()

    def fingerprint(self, index: int, *, thorough: bool) -> tuple[str, str]:
        """See `lora_sam.data.contents.Fingerprinted`."""
        tile = self.tiles[index]
        image, labels = fingerprint_of(self._source, tile.image, thorough=thorough)
        if tile.box is None:
            return image, labels
        return short_digest([image, list(tile.box)], False), short_digest([labels, list(tile.rows)], False)

    def _read(self, image: int, rows: NDArray[np.int64], decode: bool) -> tuple[Sample, NDArray[np.uint8]]:
        """Some objects of an image, and its pixels, black without `decode`; the last image is not decoded again."""
        with self._reading:
            last = self._last if decode else None
        if last is not None and last[0] == image:
            return some_of(self._source, image, rows, decode=False)[0], last[1]
        sample = some_of(self._source, image, rows, decode=decode)[0]
        if decode:
            with self._reading:
                self._last = image, sample.image
        return sample, sample.image


def in_tiles(splits: Splits, tile: int) -> Splits:
    """The data with its large images cut into tiles of a side; splits stay what they are.

    Args:
        splits: The data as it was opened.
        tile: Side of a tile in pixels.

    Raises:
        DataError: as their sources do.
    """
    made: dict[int, Tiles] = {}
    large = count = cut = 0
    for source in (splits.train, splits.val, splits.test):
        if id(source) in made:
            continue
        every: list[Tile] = []
        for image, size in enumerate(source.sizes):
            if max(size) <= tile:
                every.append(Tile(image, None, tuple(range(_objects(source, image)))))
                continue
            parts, pieces = _tiles_of_image(source, image, tile)
            every += parts
            large, count, cut = large + 1, count + len(parts), cut + pieces
        made[id(source)] = Tiles(source, every)
    train, val, test = (made[id(source)] for source in (splits.train, splits.val, splits.test))
    note = f"data.tile = {tile}: "
    note += f"{plural(large, 'image')} cut into {plural(count, 'tile')} with objects" if large else "no image is larger"
    if cut:
        note += (
            f"; {plural(cut, 'object')} that no tile sees whole {'is' if cut == 1 else 'are'} cut by the edge of the "
            "tile with the largest part"
        )
    words = Parts("image" if splits.parts is None else splits.parts.whole, "tile") if large else splits.parts
    return replace(splits, train=train, val=val, test=test, notes=(*splits.notes, note), parts=words)


def _objects(source: SampleSource, image: int) -> int:
    counts = source.object_counts
    return len(source[image].masks) if counts is None else counts[image]


def _tiles_of_image(source: SampleSource, image: int, tile: int) -> tuple[list[Tile], int]:
    """The tiles of an image that have objects, and how many objects are cut."""
    size = source.sizes[image]
    boxes = np.array(tiles_of(size, tile, tile // HALO), np.int64)
    places = _places(source, image)
    owners: dict[int, list[int]] = {}
    cut = 0
    for row, place in enumerate(places):
        owner, whole = _owner(place, boxes, size)
        if not whole:
            owner = _largest_part(source, image, row, boxes)
            cut += 1
        owners.setdefault(owner, []).append(row)
    made = []
    for number, rows in sorted(owners.items()):
        box = boxes[number]
        meets = (places[:, :2] < box[2:]).all(axis=1) & (places[:, 2:] > box[:2]).all(axis=1)
        others = tuple(row for row in np.flatnonzero(meets).tolist() if row not in set(rows))
        made.append(Tile(image, tuple(box.tolist()), tuple(rows), others))
    return made, cut


def _places(source: SampleSource, image: int) -> NDArray[np.int64]:
    """The tight box of each object of an image, int64 [N, 4]."""
    height, width = source.sizes[image]
    count, step = _objects(source, image), max(1, _MASK_BYTES // (height * width))
    parts = []
    for start in range(0, count, step):
        rows = np.arange(start, min(count, start + step))
        parts.append(tight_boxes(some_of(source, image, rows, decode=False)[0].masks).astype(np.int64))
    if not parts:
        raise DataError(f"{source.ids[image]}: has no objects; leave it out")
    return np.concatenate(parts)


def _owner(place: NDArray[np.int64], boxes: NDArray[np.int64], size: tuple[int, int]) -> tuple[int, bool]:
    """The tile that sees an object whole, with the most around it; whether there is one."""
    around = np.concatenate([place[:2] - boxes[:, :2], boxes[:, 2:] - place[2:]], axis=1)
    # an edge of the image cuts nothing
    at_edge = np.concatenate([boxes[:, :2] == 0, boxes[:, 2:] == np.array([size[1], size[0]])], axis=1)
    least = np.where(at_edge & (around >= 0), np.iinfo(np.int64).max, around).min(axis=1)
    best = int(least.argmax())
    return best, bool(least[best] >= 0)


def _largest_part(source: SampleSource, image: int, row: int, boxes: NDArray[np.int64]) -> int:
    mask = some_of(source, image, np.array([row]), decode=False)[0].masks[0]
    return int(np.argmax([np.count_nonzero(mask[y1:y2, x1:x2]) for x1, y1, x2, y2 in boxes]))
