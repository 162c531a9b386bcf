"""Fingerprints of images and labels: what changes them, and what does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.data import contents
from lora_sam.data.contents import digest_of_source, fingerprints
from lora_sam.data.semantic import ClassMasks
from lora_sam.data.splits import Subset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of images and masks."""
    for split, count in (("train", 4), ("val", 1), ("test", 1)):
        for number in range(count):
            pixels = np.full((20, 30, 3), 10 * number, np.uint8)
            mask = np.zeros((20, 30), np.uint8)
            mask[2:8, 3 : 9 + number] = 255
            for kind, array in (("images", pixels), ("masks", mask)):
                path = tmp_path / "data" / split / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return tmp_path / "data"


def opened(option: Callable[..., Any], root: Path, name: str = "data/folder", **changes: Any) -> Any:
    return option(name, root=str(root), **changes).open(0).train


def shift_mask(path: Path) -> None:
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 4, axis=1)).save(path)


def test_only_what_was_edited_has_another_fingerprint(option: Callable[..., Any], folder: Path) -> None:
    images, labels = fingerprints(opened(option, folder))
    assert len(set(images)) == 4
    shift_mask(folder / "train" / "masks" / "2.png")
    now = fingerprints(opened(option, folder))
    assert now[0] == images
    assert [one == other for one, other in zip(now[1], labels, strict=True)] == [True, True, False, True]


def test_the_place_of_the_data_is_no_part_of_it(option: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    before = fingerprints(opened(option, folder))
    shutil.move(folder, tmp_path / "moved")
    assert fingerprints(opened(option, tmp_path / "moved")) == before


def test_seen_through_other_sources(option: Callable[..., Any], folder: Path) -> None:
    def digests() -> tuple[str, ...]:
        source = opened(option, folder)
        return tuple(digest_of_source(one) for one in (source, Subset(source, (2,)), ClassMasks(Subset(source, (2,)))))

    before = digests()
    shift_mask(folder / "train" / "masks" / "2.png")
    assert all(one != other for one, other in zip(before, digests(), strict=True))


def test_of_most_files_of_a_large_split_the_length_counts(
    option: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "THOROUGH", 2)
    source = opened(option, folder)
    before = fingerprints(source)
    for number in (1, 2):  # the second is not read, the third is
        path = folder / "train" / "images" / f"{number}.png"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert [a == b for a, b in zip(before[0], fingerprints(source)[0], strict=True)] == [True, True, False, True]
    path = folder / "train" / "images" / "1.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert fingerprints(source)[0][1] != before[0][1]
    path.unlink()
    assert fingerprints(source)[0][1] != before[0][1]


def test_drawn_images_have_their_sizes(option: Callable[..., Any]) -> None:
    source = option("data/ellipses", train=3).open(0).train
    assert [len(one) for one in fingerprints(source)] == [3, 3]


def test_every_value_counts_and_what_is_not_known_is_no_value() -> None:
    values = [
        0,
        1,
        1.5,
        "1",
        None,
        b"1",
        (1,),
        (1, 1),
        [(1,), 1],
        np.float32(1),
        np.arange(3),
        np.arange(4),
        np.zeros(3),
    ]
    digests = {contents.short_digest(value, True) for value in values}
    assert len(digests) == len(values)
    with pytest.raises(TypeError, match="set"):
        contents.short_digest({"a", 1}, True)

    assert contents.short_digest({"a": 1, "b": 2}, True) == contents.short_digest({"b": 2, "a": 1}, True)
    different = [{"a": 1}, {"a": 2}, {"b": 1}, {}, {"a": {"a": 1}}]
    assert len({contents.short_digest(value, True) for value in different}) == len(different)
