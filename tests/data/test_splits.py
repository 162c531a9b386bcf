from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.drawn.synthetic import Ellipses
from lora_sam.data.reading import duplicates
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.splits import Subset, class_counts, split_ids

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
    root = folder_set(count=2, splits=("train",))
    for always in ({"few_images": 0}, {"val": None}):
        with pytest.raises(
            DataError, match=r"2 images are too few to set aside test and val; add images, give these splits"
        ):
            folder(root, **always).open(0)


def test_an_error_about_too_few_images_names_what_works(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=1, splits=("train",))
    with pytest.raises(DataError, match=r"1 image is too few to set aside test; .* or set data\.test=train to look"):
        folder(root).open(0)
    splits = folder(root, test="train").open(0)
    assert splits.train is splits.val is splits.test
    (root / "train").rename(root / "labelled")
    with pytest.raises(DataError, match=r"set data\.val=labelled data\.test=labelled to look"):
        folder(root, train="labelled", few_images=0).open(0)


def test_of_few_images_none_is_set_aside_for_validation(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=4, splits=("train", "test"))
    splits = folder(root).open(0)
    assert splits.val is splits.train
    assert len(splits.train) == 4
    assert splits.notes == (
        "no val split, and no more than 4 training images: those that train choose the weights too, none is held out "
        "for it (data.val=null sets some aside; data.few_images)",
    )
    # as many as that, and one more
    assert folder(root, few_images=4).open(0).val.ids == splits.train.ids
    for parted in (folder(root, few_images=3).open(0), folder(root, val=None).open(0)):
        assert not set(parted.train.ids) & set(parted.val.ids)
        assert (len(parted.train), len(parted.val)) == (3, 1)


def test_few_images_are_parted_for_the_test_alone(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=5, splits=("train",))
    splits, before = folder(root).open(3), folder(root, few_images=0).open(3)
    assert splits.val is splits.train
    assert splits.test.ids == before.test.ids
    assert not set(splits.train.ids) & set(splits.test.ids)
    assert (len(splits.train), len(before.train)) == (4, 3)


def test_a_val_split_that_is_there_counts_however_few_images_train(folder: Make, folder_set: Make) -> None:
    splits = folder(folder_set(count=2)).open(0)
    assert splits.val.ids == ("val/images/val0.png", "val/images/val1.png")
    assert splits.notes == ()


def test_ledger_counts_and_stops() -> None:
    ledger = Ledger("skip", 0.1)
    ledger.saw(images=10, objects=30)
    ledger.skip_image(DataError("first"), objects=2)
    ledger.skip_object(DataError("second"))
    assert ledger.close() == ("first", "second")
    ledger.lost_object()
    with pytest.raises(
        DataError, match=r"4 of 30 objects \(13\.3%\) would be .* data\.max_skipped=0\.134\. First: first \| second$"
    ):
        ledger.close()
    with pytest.raises(
        DataError, match=r"^third\. To go on without: data\.on_error=skip data\.max_skipped=0\.5 \(at most half\)\.$"
    ):
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
    # in the same words on every Python: from 3.13 on a circle was taken for a file that may be read
    with pytest.raises(DataError, match=r"cannot be used \(Too many levels of symbolic links\); only files under"):
        inside(root, "loop/b", "owner")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    assert data_root("~/pictures") == root / "pictures"
    assert len(shown("x" * 1000)) == 121


def lookalike(root: Path, names: list[str]) -> None:
    """Makes these images nearly the same picture."""
    picture = np.random.default_rng(9).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(picture).resize((30, 20), Image.Resampling.BICUBIC)).astype(int)
    for index, name in enumerate(names):
        Image.fromarray((large + index).clip(0, 255).astype(np.uint8)).save(root / name)


def test_images_that_look_alike_are_in_one_split(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=12, splits=("train",))
    config = folder(root, val_fraction=0.25, test_fraction=0.25)
    apart = config.open(1)
    group = [apart.train.ids[0], apart.test.ids[0], apart.val.ids[0]]
    lookalike(root, group)
    splits = config.open(1)
    ids = split_ids(splits)
    assert sum(bool(set(group) & set(ids[role])) for role in ids) == 1
    assert {role: len(names) for role, names in ids.items()} == {"train": 6, "val": 3, "test": 3}
    assert splits.notes[-1] == "1 groups of images that look alike (3 images) were kept on one side each"
    assert split_ids(config.open(1)) == ids
    assert split_ids(config.open(2)) != ids
    assert len(apart.notes) == 2


def test_given_splits_are_not_changed_by_lookalikes(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=4)
    lookalike(root, ["train/images/train0.png", "train/images/train1.png", "test/images/test0.png"])
    splits = folder(root).open(0)
    assert splits.notes == ()
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [4, 4, 4]


def test_it_is_said_where_lookalikes_were_not_looked_for(
    folder: Make, folder_set: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MAX_IMAGES", 3)
    notes = folder(folder_set(count=4, splits=("train",))).open(0).notes
    assert notes[-1].partition(": ")[2].startswith("images that look alike were not looked for")


def test_the_ids_of_every_split_are_listed(folder: Make, folder_set: Make) -> None:
    ids = split_ids(folder(folder_set(count=2)).open(0))
    assert ids == {
        role: [f"{role}/images/{role}{index}.png" for index in range(2)] for role in ("train", "val", "test")
    }


@pytest.mark.parametrize(("split", "spelling"), [("train", "training"), ("val", "valid"), ("val", "validation")])
def test_splits_may_be_spelled_otherwise(folder: Make, folder_set: Make, split: str, spelling: str) -> None:
    root = folder_set()
    (root / split).rename(root / spelling)
    splits = folder(root).open(0)
    assert getattr(splits, split).ids[0] == f"{spelling}/images/{split}0.png"
    assert splits.notes == ()
    assert class_counts(splits.train) == class_counts(Ellipses(**DRAWN).open(0).train) == {}
    assert Subset(Ellipses(**DRAWN).open(0).train, (1, 0)).classes == ((), ())


DRAWN: Any = {"train": 2, "val": 1, "test": 1, "side": 32, "objects": 1, "max_objects_per_image": None}


def test_a_split_called_like_train_is_what_trains(folder: Make, folder_set: Make) -> None:
    root = folder_set(count=4, splits=("train",))
    splits = folder(root, val="train").open(0)
    assert splits.val.ids == splits.train.ids
    assert not set(splits.test.ids) & set(splits.val.ids)
    splits = folder(root, val="train", test="train").open(0)
    assert splits.train.ids == splits.val.ids == splits.test.ids
    assert len(splits.train) == 4
    assert "4 images are in both train and test (e.g. train/images/train0.png): figures flatter" in splits.notes
