from __future__ import annotations

from dataclasses import dataclass

import pytest

from lora_sam.training.cross_validation import CrossValidated, folds_of


@dataclass(frozen=True)
class Parted:
    """Samples of which only the groups are known."""

    groups: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.groups)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_every_image_is_measured_once_and_never_by_what_it_trained(count: int) -> None:
    folds = folds_of(Parted((None,) * count))  # type: ignore[arg-type]
    assert len(folds) == 2
    assert sorted(index for _, measured in folds for index in measured) == list(range(count))
    for trains, measured in folds:
        assert trains
        assert sorted({*trains, *measured}) == list(range(count))
        assert not set(trains) & set(measured)


def test_no_fold_parts_a_group() -> None:
    folds = folds_of(Parted(("a", "a", "b", None, "a", "b")))  # type: ignore[arg-type]
    assert [measured for _, measured in folds] == [(0, 1, 3, 4), (2, 5)]
    assert folds_of(Parted(("a", "a"))) == ()  # type: ignore[arg-type]
    assert folds_of(Parted((None,))) == ()  # type: ignore[arg-type]


def test_what_is_recorded_is_read_again() -> None:
    found = CrossValidated(0.5, 0.25)
    log = [{"step": 0, "epoch": 0, "validation_iou": 0.4, **found.record()}, {"step": 3, "loss": 1.0}]
    assert CrossValidated.recorded(log) == found
    assert CrossValidated.recorded(log[1:]) is None
    assert CrossValidated.recorded([{"step": 0, "validation_iou": 0.4}]) is None


def test_equal_is_no_gain() -> None:
    assert CrossValidated(0.5, 0.51).gained
    assert not CrossValidated(0.5, 0.5).gained
