"""Whatever happens to the files, a run gets the right rows or none, and is told."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from lora_sam.predictors.embeddings import rows
from lora_sam.predictors.embeddings.layout import GROUP
from lora_sam.predictors.embeddings.store import CacheMiss, CacheUnavailable, EmbeddingCache

GB = 10**9


def reopened(cache: EmbeddingCache) -> EmbeddingCache:
    return EmbeddingCache.open(cache.directory, cache.spec, max_bytes=cache.max_bytes)


def group(cache: EmbeddingCache) -> Path:
    return cache.directory / cache.spec.name


def row(cache: EmbeddingCache, key: str) -> Path:
    return rows.row_path(group(cache), key)


def flip(path: Path, byte: int, bit: int = 3) -> None:
    """Flip a bit; from the end of the file, where the numbers are, for a `byte` below 0."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("byte", [0, 20, -8448, -4000, -1])
def test_a_flipped_bit_is_found_before_the_row_is_used(filled, key, same, maker, byte):
    cache = filled(3)
    keys = [key(number) for number in range(3)]
    assert cache.missing(keys) == []
    flip(row(cache, key(1)), byte)
    with pytest.raises(CacheMiss, match="damaged"):
        reopened(cache).read(key(1))
    # what one process found, all know
    assert reopened(cache).missing(keys) == [1]
    assert cache.missing(keys) == [1]
    assert cache.fill(keys, maker(keys)) == 1
    assert all(same(each, key) for each in (cache, reopened(cache)) for key in keys)


def test_a_bit_that_flips_after_it_was_checked_is_found_at_the_next_read(filled, key, same):
    cache = filled(1)
    assert cache.missing([key(0)]) == []
    assert same(cache, key(0))
    flip(row(cache, key(0)), -77)
    with pytest.raises(CacheMiss, match="its digest is another"):
        cache.read(key(0))
    assert cache.damaged == 1
    assert cache.missing([key(0)]) == [0]


def test_missing_finds_damaged_rows(filled, key):
    keys = [key(number) for number in range(4)]
    cache = filled(4)
    flip(row(cache, key(0)), 17)
    flip(row(cache, key(3)), -17)
    found = reopened(cache)
    assert found.missing(keys) == [0, 3]
    assert found.damaged == 2
    assert found.missing(keys) == [0, 3]
    assert found.damaged == 2


def test_rows_that_were_read_in_a_process_are_not_read_again_to_know_that_they_are_there(filled, key, monkeypatch):
    cache = filled(2)
    read = []
    read_row = rows.read_row

    def counted(place, spec, key):
        read.append(key)
        return read_row(place, spec, key)

    monkeypatch.setattr("lora_sam.predictors.embeddings.store.read_row", counted)
    for _ in range(3):
        assert cache.missing([key(1), key(0)]) == []
    assert read == [key(1), key(0)]
    assert cache.verify() == 2
    assert len(read) == 4


@pytest.mark.parametrize("size", [0, 7, 8, 100, 176, 8448, 8623])
def test_a_truncated_row_is_a_miss_and_no_crash(filled, key, same, maker, size):
    keys = [key(number) for number in range(3)]
    cache = filled(3)
    assert all(same(cache, each) for each in keys)
    os.truncate(row(cache, key(2)), size)
    with pytest.raises(CacheMiss, match="no whole file"):
        cache.read(key(2))
    assert cache.damaged == 1
    assert cache.fill(keys, maker(keys)) == 1
    assert all(same(reopened(cache), each) for each in keys)


def test_rows_that_are_gone_are_made_again(filled, key, same, maker):
    keys = [key(number) for number in range(3)]
    cache = filled(3)
    assert cache.missing(keys) == []
    for path in (row(cache, key(1)), row(cache, key(2))):
        path.unlink()
        path.parent.rmdir()
    assert cache.missing(keys) == [1, 2]
    assert cache.damaged == 0
    assert cache.fill(keys, maker(keys)) == 2
    assert all(same(cache, each) for each in keys)


def test_a_row_in_the_place_of_another_is_not_taken_for_it(filled, key, spec):
    cache, other = filled(2), filled(1, spec(weights="cd" * 32))
    one, two = (row(cache, key(number)) for number in range(2))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(row(other, key(0)).read_bytes())
    found = reopened(cache)
    assert found.missing([key(0), key(1)]) == [0, 1]
    # of the same image, made by other weights
    row(other, key(0)).write_bytes(first)
    assert reopened(other).missing([key(0)]) == [0]


def test_a_file_of_another_shape_or_type_or_a_very_large_one_is_a_miss(filled, key, spec):
    import torch
    from safetensors.torch import save_file

    cache = filled(1)
    for tensors in (
        {"values": torch.zeros(8, 16, 32, dtype=torch.float16)},
        {"values": torch.zeros(8, 16, 33)},
        {"other": torch.zeros(8, 16, 33, dtype=torch.float16)},
        {"values": torch.zeros(8, 16, 33, dtype=torch.float16), "more": torch.zeros(1)},
        {"values": torch.zeros(8, 16, 33, dtype=torch.float16)},  # without a digest
        {"values": torch.zeros(2**22)},
    ):
        row(cache, key(0)).parent.mkdir(exist_ok=True)
        save_file(tensors, row(cache, key(0)))
        with pytest.raises(CacheMiss, match="is damaged"):
            cache.read(key(0))
        assert not row(cache, key(0)).exists()


def test_rows_that_link_elsewhere_are_not_followed(filled, key, same, maker, tmp_path):
    cache = filled(1)
    path, elsewhere = row(cache, key(0)), tmp_path / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    found = reopened(cache)
    assert found.missing([key(0)]) == [0]
    assert found.damaged == 1
    assert found.fill([key(0)], maker([key(0)])) == 1
    assert same(found, key(0))
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == before


def test_directories_that_link_elsewhere_are_not_followed(filled, key, maker, tmp_path):
    cache = filled(0)
    (tmp_path / "outside").mkdir()
    row(cache, key(0)).parent.symlink_to(tmp_path / "outside")
    with pytest.raises(CacheUnavailable, match="is not a directory"):
        cache.fill([key(0)], maker([key(0)]))
    assert list((tmp_path / "outside").iterdir()) == []
    shutil.move(group(cache), tmp_path / "elsewhere")
    group(cache).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheUnavailable, match="is not a directory"):
        reopened(cache)


# --- group.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["rows"].update(weights="ef" * 32), "describes other rows than the name of its directory"),
        (lambda found: found["rows"].update(shapes={"values": [0]}), "describes other rows"),
        (lambda found: found["rows"].update(shapes="8"), "describes other rows"),
        (lambda found: found["rows"].update(shapes={}), "describes other rows"),
        (lambda found: found["rows"].update(dtype="bfloat16"), "describes other rows"),
        (lambda found: found["rows"].pop("stage"), "describes other rows"),
        (lambda found: found["rows"].update(more=1), "describes other rows"),
        (lambda found: found.update(more=1), "describes other rows"),
        (lambda found: found.update(rows=[]), "describes other rows"),
        (lambda found: found.update(format=1), "is of format 1, this is 2"),
        (lambda found: found.clear(), "is of format None"),
    ],
)
def test_a_group_that_says_something_else_is_not_used(filled, change, message):
    cache = filled(1)
    found = json.loads((group(cache) / GROUP).read_text())
    change(found)
    (group(cache) / GROUP).write_text(json.dumps(found))
    with pytest.raises(CacheUnavailable, match=message) as caught:
        reopened(cache)
    assert str(caught.value).endswith("prune max_gb=0")


def test_a_group_whose_description_is_damaged_is_not_used(filled):
    cache = filled(1)
    (group(cache) / GROUP).write_bytes(b"\xff{")
    with pytest.raises(CacheUnavailable, match="is damaged"):
        reopened(cache)


def test_a_file_in_the_place_of_a_group_or_of_the_directory(tmp_path, spec):
    (tmp_path / spec().name).touch()
    with pytest.raises(CacheUnavailable, match="is a file, not a directory; choose another with cache.directory="):
        EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheUnavailable, match="is a file, not a directory"):
            EmbeddingCache.open(place, spec(), max_bytes=GB)


# --- the disk ---------------------------------------------------------------------------------------------------------


def refusing(code: int):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_disk_that_fills_up_keeps_what_is_whole(filled, key, same, maker, monkeypatch):
    keys = [key(number) for number in range(5)]
    cache = filled(2)
    write, left = Path.write_bytes, [1]

    def until_full(path, data):
        if left[0] == 0:
            write(path, data[:5000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(CacheUnavailable, match="the disk of .* is full; free some space"):
        cache.fill(keys, maker(keys))
    monkeypatch.undo()
    again = reopened(cache)
    assert again.missing(keys) == [3, 4]
    assert again.damaged == 0
    assert all(same(again, each) for each in keys[:3])
    assert again.fill(keys, maker(keys)) == 2
    assert all(same(again, each) for each in keys)


def test_a_directory_that_may_only_be_read_is_read(filled, key, same, maker, monkeypatch):
    cache = filled(3)
    flip(row(cache, key(2)), -5)
    cache.close()
    opened = os.open

    def read_only(path, flags, mode=0o777, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "utime", refusing(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", refusing(errno.EROFS))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    found = reopened(cache)
    for _ in range(2):
        assert found.missing([key(0), key(1), key(2), key(3)]) == [2, 3]
        assert found.damaged == 1
    assert all(same(found, each) for each in [key(0), key(1)])
    with pytest.raises(CacheUnavailable, match="is read-only; choose another place with cache.directory="):
        found.fill([key(2)], lambda positions: pytest.fail("made although it cannot be kept"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EROFS, "is read-only; choose another"),
        (errno.EACCES, "is read-only; choose another"),
        (errno.ENOSPC, "is full; free some space"),
        (errno.EIO, "cannot be used: Input/output error; choose another"),
    ],
)
def test_a_directory_that_cannot_be_made_is_told(tmp_path, spec, monkeypatch, code, message):
    monkeypatch.setattr(Path, "mkdir", refusing(code))
    with pytest.raises(CacheUnavailable, match=message):
        EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)


def test_a_description_that_cannot_be_written_is_told(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(os, "replace", refusing(errno.ENOSPC))
    with pytest.raises(CacheUnavailable, match="is full; free some space"):
        EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)


@pytest.mark.parametrize("there_are", ["none of this system", "none of this file system"])
def test_no_locks_are_needed(tmp_path, spec, key, same, maker, monkeypatch, there_are):
    if there_are == "none of this system":
        monkeypatch.setattr("lora_sam.core.beside._fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refusing(errno.ENOLCK))
        monkeypatch.setattr("fcntl.lockf", refusing(errno.ENOLCK))
    keys = [key(0), key(1)]
    with EmbeddingCache.open(tmp_path, spec(), max_bytes=GB) as cache:
        assert cache.fill(keys, maker(keys)) == 2
        assert all(same(cache, each) for each in keys)
