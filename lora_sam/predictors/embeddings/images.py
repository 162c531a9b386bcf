"""The images of a split, what they are looked at as, and the rows of the cache that belong to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import PIL

from lora_sam.core.seeds import generator_for
from lora_sam.data.augmentation import Augmentation, View
from lora_sam.data.reading.images import digest_of_pixels
from lora_sam.data.sources import SampleSource, file_digest_of
from lora_sam.predictors.embeddings.pixels import known_pixels, note_pixels
from lora_sam.predictors.embeddings.store import CacheMiss, EmbeddingCache

if TYPE_CHECKING:
    from torch import Tensor

VALUES = "values"
"""Name of the one map in a row of what a stage of SAM's image encoder makes."""

_DECODING = f"decoding 1, Pillow {PIL.__version__}"


@dataclass(frozen=True)
class EncodedSplit:
    """What the frozen part of the image encoder made of the training images; see `lora_sam.training.examples`.

    With flips and quarter turns, an image has a few views, drawn once, and each epoch takes one of them; that is so
    without a store as well, so that a run does not depend on whether there is one.

    Attributes:
        store: The rows; None where they cannot be kept.
        pixels: Digest of every image; empty without a store.
        ids: Id of every image.
        augmentation: Says which views there may be.
        views: Views of an image.
        seed: Draws them.
    """

    store: EmbeddingCache | None
    pixels: tuple[str, ...]
    ids: tuple[str, ...]
    augmentation: Augmentation
    views: int
    seed: int

    def view(self, epoch: int, index: int) -> View:
        """How the image is looked at in an epoch."""
        name = self.ids[index]
        number = int(generator_for(self.seed, "cached view", epoch, name).integers(self.views))
        return self.augmentation.view(self.seed, "cached views", number, name)

    def key(self, epoch: int, index: int) -> str:
        """Key of the row that the image has in an epoch."""
        return row_key(self.pixels[index], self.view(epoch, index))

    def read(self, epoch: int, index: int) -> Tensor | None:
        """That row, float32; None where it is not there or damaged."""
        if self.store is None:
            return None
        try:
            return self.store.read(self.key(epoch, index))[VALUES]
        except CacheMiss:
            return None


def row_key(pixels: str, view: View | None = None) -> str:
    """Key of the row for an image by the digest of its pixels, and how it is looked at."""
    if view is None or view == View():
        return pixels
    return hashlib.sha256(f"{pixels} {view.mirrored} {view.quarters}".encode()).hexdigest()


def digests_of(source: SampleSource, store: EmbeddingCache) -> tuple[str, ...]:
    """Digest of the pixels of every image; an image file that was met before is not decoded again.

    Raises:
        DataError: an image cannot be read any more.
    """
    files = [file_digest_of(source, index) for index in range(len(source))]
    names = [None if file is None else hashlib.sha256(f"{_DECODING} {file}".encode()).hexdigest() for file in files]
    known = known_pixels(store.directory, [name for name in names if name is not None])
    fresh: dict[str, str] = {}
    digests = []
    for index, name in enumerate(names):
        digest = None if name is None else known.get(name)
        if digest is None:
            digest = digest_of_pixels(source[index].image)
            if name is not None:
                fresh[name] = digest
        digests.append(digest)
    if fresh:
        note_pixels(store.directory, fresh)
    return tuple(digests)
