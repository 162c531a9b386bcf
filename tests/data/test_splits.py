from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_sam.data.paths import data_root, inside, shown
from lora_sam.data.skipping import Ledger, attempt_all
from lora_sam.errors import DataError

Make = Callable[..., Any]


def test_carving_depends_on_the_seed_alone_and_takes_every_image_once(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=12, splits=("train",))
    config = folder(root, val_fraction=0.25, test_fraction=0.25)
    first, again, other = config.open(1), config.open(1), config.open(2)
    for role in ("train", "val", "test"):
        assert getattr(first, role).ids == getattr(again, role).ids
    assert first.test.ids != other.test.ids
    assert sorted((*first.train.ids, *first.val.ids, *first.test.ids)) == sorted(
        f"train/images/train{index}.png" for index in range(12)
    )
    assert [len(first.train), len(first.val), len(first.test)] == [6, 3, 3]
    assert first.val[1].id == first.val.ids[1]
    assert first.val.sizes == ((20, 30),) * 3
    assert first.val.object_counts == (1, 1, 1)


def test_only_what_is_absent_is_carved(folder: Make, folder_set: Make) -> None:
    splits = folder(folder_set(count=5, splits=("train", "val"))).open(3)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [4, 5, 1]
    assert splits.val.ids[0].startswith("val/")
    assert splits.notes == ("no test split: 1 of 5 training images were set aside for it",)
    both = folder(splits_root := data_root(str(Path(splits.train.source.images[0].path).parents[2])), val=None).open(3)
    assert splits_root.name == "set"
    assert both.test.ids == splits.test.ids


def test_too_few_images_to_carve(folder: Make, folder_set: Make) -> None:
    with pytest.raises(
        DataError, match=r"2 images are too few to set aside test and val; add images, give these splits"
    ):
        folder(folder_set(count=2, splits=("train",))).open(0)


def test_ledger_counts_and_stops() -> None:
    ledger = Ledger("skip", 0.1)
    ledger.saw(images=10, objects=30)
    ledger.skip_image(DataError("first"), objects=2)
    ledger.skip_object(DataError("second"))
    assert ledger.close() == ("first", "second")
    ledger.lost_object()
    with pytest.raises(DataError, match=r"4 of 30 objects \(13\.3%\) would be skipped; .* First: first \| second$"):
        ledger.close()
    with pytest.raises(DataError, match="^third$"):
        Ledger("raise", 1.0).skip_object(DataError("third"))


def test_attempts_keep_their_order_and_let_other_errors_through() -> None:
    def even(number: int) -> int:
        if number % 2:
            raise DataError(str(number))
        return number

    outcomes = attempt_all(even, range(50))
    assert [int(str(outcome)) for outcome in outcomes] == list(range(50))
    assert all(isinstance(outcome, DataError) == bool(number % 2) for number, outcome in enumerate(outcomes))
    with pytest.raises(ZeroDivisionError):
        attempt_all(lambda number: 1 // number, [0])


def test_paths_stay_under_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = data_root(str(tmp_path))
    assert inside(root, "a/./b.png", "x") == root / "a/b.png"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for bad in ("", "a/../b", "..\\b", "\\b", "C:/b", "/b", "loop/b", "a" * 300):
        with pytest.raises(DataError, match="^owner: the path"):
            inside(root, bad, "owner")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    assert data_root("~/pictures") == root / "pictures"
    assert len(shown("x" * 1000)) == 121
