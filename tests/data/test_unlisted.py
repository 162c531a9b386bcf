"""Folders that cannot be listed: an error that names them, never fewer images; `Path.rglob` leaves them out."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_sam.core.errors import DataError
from lora_sam.data.reading.hf_tables import find_tables
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.pair_names import names_in
from lora_sam.data.reading.tool_files import files_below
from lora_sam.data.splits import Splits

from . import attack_sets
from .tool_sets import images, labelme, medsam

Closed = Callable[..., None]

# for lack of a permission on every Python, for another reason from Python 3.13 on
REASONS = pytest.mark.parametrize(
    ("number", "reason"), [(errno.EACCES, "Permission denied"), (errno.EIO, "Input/output error")]
)


@REASONS
def test_labels_in_such_a_folder_are_not_left_out(
    opened: Callable[..., Splits], cannot_be_listed: Closed, tmp_path: Path, number: int, reason: str
) -> None:
    labelme(tmp_path / "first")
    labelme(tmp_path / "second")
    assert len(files_below(tmp_path, ".json")) == 8
    cannot_be_listed(tmp_path / "second", number)
    for option in ("auto", "labelme"):
        with pytest.raises(DataError) as caught:
            opened(tmp_path, option)
        said = str(caught.value).replace("looked into", "listed").replace("check", "correct")
        assert said.endswith(f"{tmp_path}/second: cannot be listed ({reason}); correct its permissions.")


@REASONS
def test_no_image_is_said_to_be_missing_that_may_lie_there(
    cannot_be_listed: Closed, tmp_path: Path, number: int, reason: str
) -> None:
    images(tmp_path / "some" / "deeper", ("a.png",))
    assert ImageFinder(tmp_path).search("a.png", "labels.json") == tmp_path / "some" / "deeper" / "a.png"
    cannot_be_listed(tmp_path / "some" / "deeper", number)
    for ask in (ImageFinder(tmp_path).find, ImageFinder(tmp_path).search):
        with pytest.raises(DataError) as caught:
            ask("a.png", "labels.json")
        assert f"{tmp_path}/some/deeper: cannot be listed ({reason})" in str(caught.value)


@REASONS
def test_no_table_and_no_name_is_left_out(cannot_be_listed: Closed, tmp_path: Path, number: int, reason: str) -> None:
    for name in ("data/train-00000-of-00002.parquet", "more/train-00001-of-00002.parquet"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    cannot_be_listed(tmp_path / "more", number)
    for ask in (lambda: find_tables(tmp_path, tmp_path), lambda: names_in(tmp_path)):
        with pytest.raises(DataError) as caught:
            ask()
        assert f"{tmp_path}/more: cannot be listed ({reason})" in str(caught.value)


@REASONS
@pytest.mark.parametrize(
    ("write", "data", "folder"),
    [
        (attack_sets.voc, "voc", "ImageSets/Segmentation"),  # without lists all images were one split
        (medsam, "medsam", "gts"),
        (medsam, "medsam", "imgs"),
    ],
)
def test_lists_and_arrays_are_not_taken_for_absent(
    opened: Callable[..., Splits],
    cannot_be_listed: Closed,
    tmp_path: Path,
    write: Callable[[Path], None],
    data: str,
    folder: str,
    number: int,
    reason: str,
) -> None:
    write(tmp_path)
    opened(tmp_path, data)
    cannot_be_listed(tmp_path / folder, number)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, data)
    assert str(caught.value) == f"{tmp_path}/{folder}: cannot be listed ({reason}); correct its permissions."


@pytest.mark.parametrize("name", [".Trash-1000", "lost+found", "System Volume Information"])
def test_what_a_disk_keeps_for_itself_is_not_looked_into(
    opened: Callable[..., Splits], cannot_be_listed: Closed, tmp_path: Path, name: str
) -> None:
    labelme(tmp_path)
    labelme(tmp_path / name)
    cannot_be_listed(tmp_path / name)
    splits = opened(tmp_path)
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 4


def test_many_images_before_the_labels_hide_none(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / "labels" / str(number)).mkdir(parents=True)
        (tmp_path / "labels" / f"{number}.txt").touch()
    assert len(files_below(tmp_path, ".txt", most=7)) == 7
    assert len(files_below(tmp_path, ".txt", most=2)) == 2
    (tmp_path / "labels" / "8" / "a.csv").touch()
    assert len(files_below(tmp_path, ".csv", most=11)) == 1
    assert files_below(tmp_path, ".csv", most=2) == []  # in a folder beyond
