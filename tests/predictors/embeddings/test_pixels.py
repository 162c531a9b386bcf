"""The pixels of an image file are known when it is met again; a memo that fails is no fault."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from lora_sam.data.reading.images import digest_of_pixels
from lora_sam.predictors.embeddings import images
from lora_sam.predictors.embeddings.images import digests_of
from lora_sam.predictors.embeddings.pixels import MEMO, known_pixels, note_pixels


def test_the_memo_of_pixels(tmp_path, key):
    assert known_pixels(tmp_path, [key(0)]) == {}
    pixels = {key(number): key(number + 10_000) for number in range(1200)}
    note_pixels(tmp_path, pixels)
    assert known_pixels(tmp_path, [*pixels, key(5000)]) == pixels
    note_pixels(tmp_path, {key(0): key(1), key(5000): key(2)})
    assert known_pixels(tmp_path, [key(0), key(1), key(5000)]) == {
        key(0): key(1),
        key(1): key(10_001),
        key(5000): key(2),
    }


class Files:
    """Two images from files; counts how often one is decoded."""

    ids = ("a", "b")

    def __init__(self) -> None:
        self.decoded = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> SimpleNamespace:
        self.decoded += 1
        return SimpleNamespace(image=np.full((2, 3, 3), index, np.uint8))

    def file_digest(self, index: int) -> str:
        return hashlib.sha256(f"file {index}".encode()).hexdigest()

    def labels(self, index: int) -> None:
        raise AssertionError


def test_a_file_that_was_met_is_not_decoded_again_unless_the_decoder_is_another(tmp_path, monkeypatch):
    store, source = SimpleNamespace(directory=tmp_path), Files()
    expected = tuple(digest_of_pixels(np.full((2, 3, 3), index, np.uint8)) for index in range(2))
    assert digests_of(source, store) == expected
    assert source.decoded == 2
    assert digests_of(source, store) == expected
    assert source.decoded == 2
    # another decoder may give other pixels
    monkeypatch.setattr(images, "_DECODING", "decoding 1, Pillow 0.0")
    assert digests_of(source, store) == expected
    assert source.decoded == 4


@pytest.mark.parametrize(
    "content",
    [b"no memo" * 100, b"\xff\xfe" * 100, b"0" * 64 + b" " + b"1" * 63 + b"\n", b"x" + b"0" * 64 + b" " + b"1" * 64],
)
def test_a_memo_that_is_damaged_is_no_fault(tmp_path, key, content):
    (tmp_path / MEMO).write_bytes(content)
    assert known_pixels(tmp_path, ["0" * 64, key(0)]) == {}
    note_pixels(tmp_path, {key(0): key(1)})
    assert known_pixels(tmp_path, ["0" * 64, key(0)]) == {key(0): key(1)}


def test_a_memo_that_is_a_link_or_cannot_be_written_is_no_fault(tmp_path, key, monkeypatch):
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    cache.mkdir()
    outside.write_text(f"{key(0)} {key(2)}\n")
    (cache / MEMO).symlink_to(outside)
    assert known_pixels(cache, [key(0)]) == {}
    note_pixels(cache, {key(0): key(1)})
    assert known_pixels(cache, [key(0)]) == {key(0): key(1)}
    assert outside.read_text() == f"{key(0)} {key(2)}\n"
    (cache / MEMO).unlink()

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.replace", refuse)
    note_pixels(cache, {key(0): key(1)})
    assert list(cache.iterdir()) == []
