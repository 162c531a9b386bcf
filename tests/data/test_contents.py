"""Fingerprints of images and labels: what changes them, and what does not."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
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


@dataclass(frozen=True)
class Stored:
    """As a format keeps what it knows of a sample."""

    file: Path
    label: str
    place: str = field(default="", compare=False)


def test_files_count_by_their_bytes_or_their_length(tmp_path: Path) -> None:
    one, other, longer = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for path, content in ((one, b"abc"), (other, b"abd"), (longer, b"abcd")):
        path.write_bytes(content)
    thorough = [contents.short_digest(path, True) for path in (one, other, longer, tmp_path / "absent")]
    quick = [contents.short_digest(path, False) for path in (one, other, longer, tmp_path / "absent")]
    assert len(set(thorough)) == 4
    assert quick[0] == quick[1]
    assert len(set(quick)) == 3
    assert thorough[3] == quick[3]
    # in whatever it lies, and what makes no other value makes no other digest
    assert contents.short_digest(Stored(one, "x", "here"), True) == contents.short_digest(Stored(one, "x"), True)
    assert contents.short_digest(Stored(other, "x"), True) != contents.short_digest(Stored(one, "x"), True)
    assert contents.short_digest((other, {"a": [one]}), False) == contents.short_digest((one, {"a": [other]}), False)
    for value in ((one,), [one], {"a": one}):
        changed = [longer] if isinstance(value, list) else (longer,) if isinstance(value, tuple) else {"a": longer}
        assert contents.short_digest(value, True) != contents.short_digest(changed, True)


def test_digests_of_values_are_those_of_runs_that_were_made_before() -> None:
    """They are compared with what a run wrote down long ago."""
    value = {"b": (1, [2.5, None]), "a": b"xy"}
    assert contents.short_digest(value, True) == hashlib.sha256(
        b"2{2('a',2:xy2('b',2(1,2(2.5,None,"
    ).hexdigest()[:16]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "read"), [(1, 1), (1000, 1000), (1001, 501), (2000, 1000), (2001, 667)]
)  # fmt: skip
def test_at_most_a_thousand_files_of_a_split_are_read_evenly_spaced(count: int, read: int) -> None:
    asked: list[bool] = []

    class Source:
        def __len__(self) -> int:
            return count

        def fingerprint(self, index: int, *, thorough: bool) -> tuple[str, str]:
            assert index == len(asked)
            asked.append(thorough)
            return f"i{index}", f"l{index}"

    images, labels = fingerprints(Source())  # type: ignore[arg-type]
    assert (images[0], labels[0], len(images), len(labels)) == ("i0", "l0", count, count)
    assert sum(asked) == read
    (step,) = set(np.diff(np.flatnonzero(asked)).tolist()) or {1}
    assert step == -(-count // 1000)


def test_of_a_source_that_knows_nothing_sizes_and_counts_are_compared() -> None:
    def source(size: tuple[int, int], counts: tuple[int, ...] | None) -> Any:
        return SimpleNamespace(sizes=(size,), object_counts=counts)

    found = [
        contents.fingerprint_of(source(size, counts), 0, thorough=True)
        for size, counts in (((3, 4), (5,)), ((3, 4), (6,)), ((4, 3), (5,)), ((3, 4), None))
    ]
    assert len({image for image, _ in found}) == 2
    assert len({labels for _, labels in found}) == 3
    assert all(len(digest) == 16 for pair in found for digest in pair)
