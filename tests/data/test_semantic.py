"""All objects of a class as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.core.structures import Sample
from lora_sam.data.semantic import WHOLE, ClassMasks, by_class
from lora_sam.data.splits import Splits


def sample(classes: tuple[str, ...]) -> Sample:
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :2, :2] = masks[1, 4:, 4:] = masks[2, :2, 6:] = True
    return Sample("a", np.zeros((8, 8, 3), np.uint8), masks, ("1", "2", "3"), classes)


@dataclass(frozen=True)
class One:
    one: Sample
    classes: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...] = ("a",)
    sizes: tuple[tuple[int, int], ...] = ((8, 8),)
    object_counts: tuple[int, ...] | None = field(default=(3,))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.one


def test_objects_of_a_class_are_one() -> None:
    classes = ("dog", "cat", "dog")
    source = ClassMasks(One(sample(classes), (classes,)))
    whole = source[0]
    assert whole.object_ids == whole.classes == source.classes[0] == ("cat", "dog")
    assert whole.masks.sum((1, 2)).tolist() == [16, 8]
    assert (len(source), source.object_counts, source.sizes, source.ids) == (1, (2,), ((8, 8),), ("a",))


def test_without_classes_an_image_has_one_object() -> None:
    source = ClassMasks(One(sample(()), ((),)))
    whole = source[0]
    assert (whole.object_ids, whole.classes, source.object_counts) == ((WHOLE,), (), (1,))
    assert np.array_equal(whole.masks[0], sample(()).masks.any(0))


def test_all_splits_are_taken() -> None:
    part = One(sample(()), ((),))
    splits = by_class(Splits(part, part, part, (), ()))
    assert [len(split[0].masks) for split in (splits.train, splits.val, splits.test)] == [1, 1, 1]


def test_it_is_an_option_of_a_run(option: Callable[..., Any], blobs: Path) -> None:
    from hydra import compose, initialize_config_dir

    from lora_sam.cli.jobs import plain
    from lora_sam.training.settings import settings_from

    conf = str(Path(__file__).resolve().parents[2] / "conf")
    with initialize_config_dir(conf, version_base="1.3"):
        words = ["model=tiny_random", f"data.root={blobs}"]
        each, whole = (
            settings_from(plain(compose("train", [*words, f"semantic={value}"]))).open_data()
            for value in ("false", "true")
        )
    assert (each.train.object_counts, whole.train.object_counts) == ((3,) * 6, (1,) * 6)
    assert whole.train[0].classes == ("blob",)
    assert np.array_equal(whole.train[0].masks[0], each.train[0].masks.any(0))
