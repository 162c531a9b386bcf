"""Training examples in the input frame, batched in an order that depends on seed and epoch only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lora_sam.core.frame import Frame
from lora_sam.core.seeds import drawn_places, generator_for
from lora_sam.core.structures import Corrections, Prompts, Sample
from lora_sam.data.augmentation import Augmentation, View
from lora_sam.data.partly import some_of
from lora_sam.data.sources import SampleSource, labels_of
from lora_sam.data.transforms import (
    boxes_to_input_frame,
    mask_inputs_to_input_frame,
    masks_to_input_frame,
    points_to_input_frame,
    preprocess,
)


@dataclass(frozen=True)
class Example:
    """One image with prompts and targets for N objects, all in the input frame of side S.

    Attributes:
        id: Id of the sample.
        image: Pre-processed, float32 [3, S, S]; None where `encoded` is there.
        boxes: XYXY, float32 [N, 4], or None; NaN as in `Prompts`.
        points: (x, y), float32 [N, K, 2], or None.
        labels: int64 [N, K] as in `Prompts`, or None.
        targets: bool [N, S, S].
        extent: (height, width) that the image takes in the input frame; what is below and to the right is padding.
        object_ids: Names of the N objects.
        mask_inputs: Logits, float32 [N, S/4, S/4], or None; NaN as in `Prompts`.
        places: `Corrections.places` of the rounds after the first, float64 [N, R], or None for one round.
        corrected_masks: `Corrections.masks`, bool [N, R], or None with `places`.
        encoded: What the frozen part of the image encoder made of the image, float32, shape of its stage; or None.
        background: Points (x, y) where no object is, each a prompt of its own with an empty target, float32 [K, 2]; or
            None.
    """

    id: str
    image: Tensor | None
    boxes: Tensor | None
    points: Tensor | None
    labels: Tensor | None
    targets: Tensor
    extent: tuple[int, int]
    object_ids: tuple[str, ...]
    mask_inputs: Tensor | None = None
    places: Tensor | None = None
    corrected_masks: Tensor | None = None
    encoded: Tensor | None = None
    background: Tensor | None = None


class TrainingPrompts(Protocol):
    """What training needs of a prompt source (`lora_sam.prompts` is above this package)."""

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        """One prompt per object; a pure function of its arguments."""
        ...


@runtime_checkable
class CorrectedPrompts(Protocol):
    """What training needs of a prompt source with rounds of correction."""

    def corrections(self, sample: Sample, seed: int, epoch: int) -> Corrections:
        """The draws for the rounds after the first; a pure function of its arguments."""
        ...


@runtime_checkable
class BackgroundPrompts(Protocol):
    """What training needs of a prompt source with points beside the objects."""

    @property
    def background_points(self) -> int:
        """Most points of an image."""
        ...

    def background(self, occupied: NDArray[np.bool_], seed: int, epoch: int, sample_id: str) -> NDArray[np.float32]:
        """Points on pixels that are not occupied; a pure function of its arguments."""
        ...


class EncodedImages(Protocol):
    """What the frozen part of the image encoder made of the images of a source."""

    def view(self, epoch: int, index: int) -> View:
        """How the image is looked at in an epoch."""
        ...

    def read(self, epoch: int, index: int) -> Tensor | None:
        """What was made of it then, or None where that is not at hand."""
        ...


class TrainingExamples(Dataset[Example]):
    """Samples made ready for training. Stateless: an example is a function of seed, epoch and index alone."""

    def __init__(
        self,
        source: SampleSource,
        prompt: TrainingPrompts,
        augmentation: Augmentation,
        *,
        frame: Frame,
        seed: int,
        max_objects: int | None,
        encoded: EncodedImages | None = None,
    ) -> None:
        """Prepare samples of `source` for an input frame.

        Args:
            source: Labelled samples.
            prompt: Makes the prompts, after augmentation.
            augmentation: Changes the samples.
            frame: The input frame.
            seed: With epoch and sample id, decides objects, augmentation and prompts.
            max_objects: At most this many objects per example, others are drawn in other epochs; None for all.
            encoded: Images that need not be decoded; says how they are looked at, instead of `augmentation`.
        """
        self._source = source
        self._prompt = prompt
        self._augmentation = augmentation
        self._frame = frame
        self._seed = seed
        self._max_objects = max_objects
        self._encoded = encoded

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._source)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        """The example for `key` = (epoch, index). Raises `DataError` when its files changed since they were checked."""
        epoch, index = key
        encoded = None if self._encoded is None else self._encoded.read(epoch, index)
        sample, occupied = self._seen(key, decode=encoded is None)
        prompts = self._prompt.training_prompts(sample, self._seed, epoch)
        corrections = None
        if isinstance(self._prompt, CorrectedPrompts):
            corrections = self._prompt.corrections(sample, self._seed, epoch)
        size, frame = sample.size, self._frame
        masks = mask_inputs_to_input_frame(prompts, size, frame)
        boxes = None if prompts.boxes is None else boxes_to_input_frame(prompts.boxes, size, frame)
        points = None if prompts.points is None else points_to_input_frame(prompts.points, size, frame)
        return Example(
            id=sample.id,
            image=preprocess(sample.image, frame) if encoded is None else None,
            boxes=None if boxes is None else torch.from_numpy(boxes),
            points=None if points is None else torch.from_numpy(points),
            labels=None if prompts.labels is None else torch.from_numpy(prompts.labels),
            targets=masks_to_input_frame(sample.windows, frame),
            extent=frame.extent(size),
            object_ids=sample.object_ids,
            mask_inputs=None if masks is None else torch.from_numpy(masks),
            places=None if corrections is None else torch.from_numpy(corrections.places),
            corrected_masks=None if corrections is None else torch.from_numpy(corrections.masks),
            encoded=encoded,
            background=self._background(sample, occupied, epoch),
        )

    def prompted(self, key: tuple[int, int]) -> tuple[Sample, Prompts]:
        """What `key` = (epoch, index) is before it is brought into the input frame: augmented sample and prompts."""
        sample, _ = self._seen(key, decode=True)
        return sample, self._prompt.training_prompts(sample, self._seed, key[0])

    def _seen(self, key: tuple[int, int], *, decode: bool) -> tuple[Sample, NDArray[np.bool_] | None]:
        """The augmented sample with the objects that are drawn, and the pixels [H, W] that are no background.

        Those only where points beside them are wanted: of all objects, and what is neither object nor background. They
        go through the augmentation as one more object.
        """
        epoch, index = key
        sample, occupied = self._with_some_objects(key, decode=decode)
        if occupied is not None and sample.ignored is not None:
            occupied |= sample.ignored
        if self._encoded is not None:
            view = self._encoded.view(epoch, index)
            return view.on(sample), None if occupied is None else view.of(occupied, (0, 1)).astype(np.bool_)
        if occupied is None:
            return self._augmentation.apply(sample, self._seed, epoch, sample.id), None
        marked = replace(
            sample,
            masks=np.concatenate([sample.masks, occupied[None]]),
            object_ids=(*sample.object_ids, ""),
            classes=(*sample.classes, "") if sample.classes else (),
        )
        changed = self._augmentation.apply(marked, self._seed, epoch, sample.id)
        if len(changed.masks) == 1:  # the drawn objects left the image, others did not: unchanged, as without others
            return sample, occupied
        return changed.only(np.arange(len(changed.masks) - 1)), changed.masks[-1]

    @property
    def _wants_background(self) -> bool:
        return isinstance(self._prompt, BackgroundPrompts) and self._prompt.background_points > 0

    def _background(self, sample: Sample, occupied: NDArray[np.bool_] | None, epoch: int) -> Tensor | None:
        if occupied is None:
            return None
        assert isinstance(self._prompt, BackgroundPrompts)
        points = self._prompt.background(occupied, self._seed, epoch, sample.id)
        return torch.from_numpy(points_to_input_frame(points, sample.size, self._frame))

    def _with_some_objects(self, key: tuple[int, int], *, decode: bool) -> tuple[Sample, NDArray[np.bool_] | None]:
        """The sample with the objects that are drawn, and the pixels [H, W] of all where background is wanted."""
        (epoch, index), counts = key, self._source.object_counts
        if counts is not None:
            rows = self._drawn(counts[index], epoch, self._source.ids[index])
            if rows is not None:
                return some_of(self._source, index, rows, decode=decode, union=self._wants_background)
        whole = self._source[index] if decode else labels_of(self._source, index)
        rows = self._drawn(len(whole.object_ids), epoch, whole.id)
        occupied: NDArray[np.bool_] | None = np.any(whole.masks, axis=0) if self._wants_background else None
        return whole if rows is None else whole.only(rows), occupied

    def _drawn(self, count: int, epoch: int, id: str) -> NDArray[np.int64] | None:
        return drawn_places(count, self._max_objects, self._seed, "objects", epoch, id)


@dataclass(frozen=True)
class EpochBatches:
    """The batches of one epoch as lists of keys (epoch, index) for `TrainingExamples`; a `batch_sampler`.

    With several processes, each step takes `batch_size` samples per process. The samples of the last, incomplete step
    are divided evenly, and where that does not come out, the first of the epoch are used again, so that every process
    has the same number of batches of the same sizes.

    Attributes:
        length: Number of samples.
        batch_size: Samples per batch and process.
        seed: With `epoch`, decides the order.
        epoch: Number of the epoch.
        start: Batches to leave out at the beginning, to resume within the epoch.
        rank: Number of this process.
        world_size: Number of processes.
    """

    length: int
    batch_size: int
    seed: int
    epoch: int
    start: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check our own use of it."""
        assert self.length > 0, "an empty source"
        assert self.batch_size > 0
        assert 0 <= self.rank < self.world_size
        assert self.start >= 0

    def __len__(self) -> int:
        """Number of batches that are left."""
        return max(0, -(-self.length // (self.batch_size * self.world_size)) - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (epoch, index)."""
        order = [int(index) for index in generator_for(self.seed, "order", self.epoch).permutation(self.length)]
        missing = -self.length % self.world_size
        order += (order * -(-missing // self.length))[:missing]
        step = self.batch_size * self.world_size
        for first in range(self.start * step, len(order), step):
            together = order[first : first + step]
            share = len(together) // self.world_size
            own = together[self.rank * share : (self.rank + 1) * share]
            yield [(self.epoch, index) for index in own]


def collate(examples: list[Example]) -> list[Example]:
    """A batch is a list: images may have different numbers of objects."""
    return examples
