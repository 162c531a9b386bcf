from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Corrections, Prompts, Sample
from lora_sam.data.augmentation import View
from lora_sam.data.transforms import preprocess
from lora_sam.prompts import BoxPrompt
from lora_sam.training.examples import EpochBatches, Example, TrainingExamples, collate

Make = Callable[..., Any]


@dataclass(frozen=True)
class Repeated:
    """A source of `count` copies of one sample."""

    sample: Sample
    count: int = 5

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{index}.png" for index in range(self.count))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return (self.sample.size,) * self.count

    @property
    def object_counts(self) -> tuple[int, ...]:
        return (len(self.sample.masks),) * self.count

    def __getitem__(self, index: int) -> Sample:
        return replace(self.sample, id=self.ids[index])


class Points:
    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        count = len(sample.masks)
        return Prompts(points=np.full((count, 1, 2), 30, np.float32), labels=np.ones((count, 1), np.int64))


BOXES = BoxPrompt(jitter="uniform", jitter_pixels=1.0, jitter_fraction=0.1, jitter_evaluation=False)
TIGHT = BoxPrompt(jitter="uniform", jitter_pixels=0.0, jitter_fraction=0.0, jitter_evaluation=False)


def examples(sample: Sample, augmentation: Any, prompt: Any = BOXES, **changes: Any) -> TrainingExamples:
    settings = {"frame": Frame(32, square=False), "seed": 0, "max_objects": None} | changes
    return TrainingExamples(Repeated(sample), prompt, augmentation, **settings)


def flat(batches: list[list[Any]]) -> list[Any]:
    return [item for batch in batches for item in batch]


def equal(first: Example, second: Example) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(vars(first).values(), vars(second).values(), strict=True)
    )


def test_everything_is_in_the_input_frame(augmentation: Make, sample: Sample) -> None:
    example = examples(sample, augmentation("none"), TIGHT)[0, 2]
    assert example.id == "2.png"
    assert example.extent == (21, 32)
    assert example.object_ids == ("7", "8", "9")
    assert torch.equal(example.image, preprocess(sample.image, Frame(32, square=False)))
    assert example.targets.shape == (3, 32, 32)
    assert example.boxes is not None
    scale = torch.tensor([32 / 60, 21 / 40] * 2)
    torch.testing.assert_close(
        example.boxes, torch.tensor([[3.0, 2, 15, 12], [40, 5, 53, 15], [20, 25, 34, 35]]) * scale
    )
    for box, target in zip(example.boxes, example.targets, strict=True):
        ys, xs = target.nonzero().T
        tight = torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        assert (tight - box).abs().max() <= 0.51


def test_points_are_moved_too(augmentation: Make, sample: Sample) -> None:
    example = examples(sample, augmentation("none"), Points())[0, 0]
    assert example.boxes is None
    assert example.points is not None
    torch.testing.assert_close(example.points, torch.tensor([[[16.0, 15.75]]] * 3))
    assert example.labels is not None
    assert example.labels.tolist() == [[1]] * 3


class Masks:
    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        masks = np.full((len(sample.masks), 64, 64), np.nan, np.float32)
        masks[0, :, :32], masks[0, :, 32:] = 5, -5
        return Prompts(boxes=sample.boxes.copy(), mask_inputs=masks)

    def corrections(self, sample: Sample, seed: int, epoch: int) -> Corrections:
        return Corrections(np.full((len(sample.masks), 2), 0.25), np.ones((len(sample.masks), 2), np.bool_))


def test_masks_are_scaled_and_corrections_come_along(augmentation: Make, sample: Sample) -> None:
    example = examples(sample, augmentation("none"), Masks())[0, 0]
    assert example.mask_inputs is not None
    assert example.places is not None
    assert example.corrected_masks is not None
    assert example.mask_inputs.shape == (3, 8, 8)
    assert example.mask_inputs[0, :, 0].tolist() == [5.0] * 8
    assert example.mask_inputs[0, :, 7].tolist() == [-5.0] * 8
    assert example.mask_inputs[1:].isnan().all()
    assert example.places.tolist() == [[0.25, 0.25]] * 3
    assert example.corrected_masks.all()
    plain = examples(sample, augmentation("none"), Points())[0, 0]
    assert plain.mask_inputs is plain.places is plain.corrected_masks is None


@dataclass(frozen=True)
class Beside(Points):
    """A point on each pixel that is not occupied."""

    background_points: int = 1

    def background(self, occupied: np.ndarray, seed: int, epoch: int, sample_id: str) -> np.ndarray:
        rows, columns = np.nonzero(~occupied)
        return np.stack([columns + 0.5, rows + 0.5], axis=1).astype(np.float32)


def test_the_background_is_beside_all_objects_however_few_are_drawn(augmentation: Make, sample: Sample) -> None:
    """Objects that an epoch leaves out are no background."""
    example = examples(sample, augmentation("none"), Beside(), max_objects=1, frame=Frame(60, square=False))[0, 0]
    assert len(example.targets) == 1
    assert example.background is not None
    taken = sample.masks.any(axis=0)
    assert len(example.background) == np.count_nonzero(~taken)
    for x, y in example.background.tolist():
        assert not taken[int(y), int(x)]
    halved = examples(sample, augmentation("none"), Beside(), frame=Frame(30, square=False))[0, 0].background
    assert halved is not None
    torch.testing.assert_close(halved, example.background / 2)
    assert examples(sample, augmentation("none"), Beside(0))[0, 0].background is None
    assert examples(sample, augmentation("none"), Points())[0, 0].background is None


@pytest.mark.parametrize("name", ["flips", "strong"])
def test_the_background_is_augmented_with_the_image(augmentation: Make, sample: Sample, name: str) -> None:
    """With objects in white on black, no point beside them is white, and the rest is what it is without points."""
    white = replace(sample, image=np.where(sample.masks.any(axis=0)[..., None], 255, 0).astype(np.uint8).repeat(3, 2))
    chosen = augmentation(name, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    beside = examples(white, chosen, Beside(), max_objects=1)
    plain = examples(white, chosen, Points(), max_objects=1)
    moved = 0
    for epoch in range(12):
        seen, occupied = beside._seen((epoch, 1), decode=True)
        without, _ = plain._seen((epoch, 1), decode=True)
        np.testing.assert_array_equal(seen.image, without.image)
        np.testing.assert_array_equal(seen.masks, without.masks)
        assert seen.object_ids == without.object_ids
        assert occupied is not None
        assert occupied.shape == seen.size
        # mean colour around a shrunk image is grey; edges of an enlarged one are mixed
        assert (seen.image[..., 0] > 200)[~occupied].mean() < 0.02
        assert (seen.image[..., 0] > 200)[occupied].mean() > 0.8
        moved += not np.array_equal(seen.image, white.image)
    assert moved > 3


def test_the_background_follows_a_cached_view(augmentation: Make, sample: Sample) -> None:
    class Turned:
        def view(self, epoch: int, index: int) -> View:
            return View(mirrored=True, quarters=1)

        def read(self, epoch: int, index: int) -> None:
            return None

    example = examples(sample, augmentation("none"), Beside(), frame=Frame(60, square=False), encoded=Turned())[0, 0]
    taken = View(mirrored=True, quarters=1).of(sample.masks.any(axis=0), (0, 1))
    assert example.extent == (60, 40)
    assert taken.shape == (60, 40)
    assert example.background is not None
    assert len(example.background) == np.count_nonzero(~taken)
    assert not any(taken[int(y), int(x)] for x, y in example.background.tolist())


def test_an_example_is_a_function_of_its_key(augmentation: Make, sample: Sample) -> None:
    first, second = (examples(sample, augmentation("strong"), max_objects=2) for _ in range(2))
    order = [(epoch, index) for epoch in (0, 3) for index in range(5)]
    made = {key: first[key] for key in order}
    assert all(equal(made[key], second[key]) for key in reversed(order))
    assert not equal(made[0, 1], made[3, 1])
    other = examples(sample, augmentation("strong"), max_objects=2, seed=1)
    assert not all(equal(made[key], other[key]) for key in order)


def test_objects_are_drawn_anew_every_epoch(augmentation: Make, sample: Sample) -> None:
    some = examples(sample, augmentation("none"), TIGHT, max_objects=2)
    drawn = {some[epoch, 0].object_ids for epoch in range(20)}
    assert drawn == {("7", "8"), ("7", "9"), ("8", "9")}
    assert examples(sample, augmentation("none"), max_objects=3)[0, 0].object_ids == ("7", "8", "9")
    example = some[0, 0]
    whole = examples(sample, augmentation("none"), TIGHT)[0, 0]
    rows = [("7", "8", "9").index(name) for name in example.object_ids]
    assert torch.equal(example.targets, whole.targets[rows])


def test_workers_do_not_change_the_batches(augmentation: Make, sample: Sample) -> None:
    dataset = examples(sample, augmentation("strong"), max_objects=2)
    batches = EpochBatches(len(dataset), 2, seed=0, epoch=1)
    alone, together = (
        [list(batch) for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers)]
        for workers in (0, 2)
    )
    assert [len(batch) for batch in alone] == [len(batch) for batch in together] == [2, 2, 1]
    for first, second in zip(flat(alone), flat(together), strict=True):
        assert equal(first, second)


def test_an_epoch_takes_every_sample_once_in_an_order_of_its_own() -> None:
    epochs = [list(EpochBatches(11, 4, seed=0, epoch=epoch)) for epoch in range(3)]
    for number, batches in enumerate(epochs):
        assert [len(batch) for batch in batches] == [4, 4, 3] == [4, 4, len(batches[-1])]
        assert sorted(flat(batches)) == [(number, index) for index in range(11)]
    orders = {tuple(index for _, index in flat(batches)) for batches in epochs}
    assert len(orders) == 3
    assert list(EpochBatches(11, 4, seed=0, epoch=1)) == epochs[1]
    assert list(EpochBatches(11, 4, seed=1, epoch=1)) != epochs[1]


@pytest.mark.parametrize("start", range(5))
def test_resuming_leaves_out_what_was_done(start: int) -> None:
    whole = list(EpochBatches(11, 4, seed=0, epoch=1))
    rest = EpochBatches(11, 4, seed=0, epoch=1, start=start)
    assert list(rest) == whole[start:]
    assert len(rest) == len(whole[start:])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 11, 24])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_processes_share_every_step_evenly(length: int, world_size: int) -> None:
    shares = [
        list(EpochBatches(length, 2, seed=0, epoch=0, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    sizes = [[len(batch) for batch in share] for share in shares]
    assert all(share == sizes[0] for share in sizes)
    assert len(sizes[0]) == len(EpochBatches(length, 2, seed=0, epoch=0, world_size=world_size))
    assert all(size > 0 for size in sizes[0])
    seen = [index for share in shares for batch in share for _, index in batch]
    assert set(seen) == set(range(length))
    assert len(seen) == -(-length // world_size) * world_size


def test_what_is_ignored_is_no_background(augmentation: Make, sample: Sample) -> None:
    """Neither in the image as it is, nor mirrored, turned or enlarged."""
    ignored = np.zeros(sample.size, np.bool_)
    ignored[:11, 30:] = True
    with_crowd = replace(sample, ignored=ignored)
    example = examples(with_crowd, augmentation("none"), Beside(), frame=Frame(60, square=False))[0, 0]
    assert example.background is not None
    assert len(example.background) == np.count_nonzero(~(sample.masks.any(axis=0) | ignored))
    assert not any(ignored[int(y), int(x)] for x, y in example.background.tolist())
    view = View(mirrored=True, quarters=1)
    np.testing.assert_array_equal(view.on(with_crowd).ignored, view.of(ignored, (0, 1)))
    shown = replace(with_crowd, image=np.where(ignored, 255, 0).astype(np.uint8)[..., None].repeat(3, 2))
    chosen = augmentation("strong", brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    for epoch in range(8):
        seen, occupied = examples(shown, chosen, Beside())._seen((epoch, 0), decode=True)
        assert occupied is not None
        assert (seen.image[..., 0] > 200)[~occupied].mean() < 0.02
        assert seen.ignored is not None
        assert seen.ignored.shape == seen.size
        assert len(seen.masks) == len(seen.object_ids)
