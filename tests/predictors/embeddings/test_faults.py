"""Whatever happens to the files, a run gets the right rows or none, and is told."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from lora_sam.predictors.embeddings import locks, store
from lora_sam.predictors.embeddings.layout import GROUP
from lora_sam.predictors.embeddings.store import CacheMiss, CacheUnavailable, EmbeddingCache

GB = 10**9


def reopened(cache: EmbeddingCache) -> EmbeddingCache:
    return EmbeddingCache.open(cache.directory, cache.spec, max_bytes=cache.max_bytes)


def group(cache: EmbeddingCache) -> Path:
    return cache.directory / cache.spec.name


def shard(cache: EmbeddingCache) -> Path:
    (path,) = group(cache).glob("rows-*.bin")
    return path


def flip(path: Path, byte: int, bit: int = 3) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        (value,) = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))


def good(cache: EmbeddingCache, keys, numbers) -> bool:
    return all(torch.equal(cache.read(key), torch.from_numpy(numbers(key))) for key in keys)


@pytest.mark.parametrize("byte", [0, 5000, 8447])
def test_a_flipped_bit_is_found_before_the_row_is_used(filled, key, numbers, maker, byte):
    cache = filled(3)
    keys = [key(number) for number in range(3)]
    flip(shard(cache), cache.spec.row_bytes + byte)
    with pytest.raises(CacheMiss, match="damaged"):
        reopened(cache).read(key(1))
    # what one process found, all know
    assert reopened(cache).missing(keys) == [1]
    assert cache.missing(keys) == [1]
    assert cache.fill(keys, maker(keys)) == 1
    assert good(cache, keys, numbers)
    assert good(reopened(cache), keys, numbers)


def test_missing_finds_damaged_rows(filled, key):
    keys = [key(number) for number in range(4)]
    cache = filled(4)
    flip(shard(cache), 17)
    flip(shard(cache), 3 * cache.spec.row_bytes)
    found = reopened(cache)
    assert found.missing(keys) == [0, 3]
    assert found.damaged == 2
    assert found.missing(keys) == [0, 3]
    assert found.damaged == 2


def test_a_row_is_checked_once_in_a_process(filled, key, monkeypatch):
    cache = filled(2)
    loads = []
    load = cache._group.shards.load
    monkeypatch.setattr(cache._group.shards, "load", lambda slot: loads.append(slot) or load(slot))
    for _ in range(3):
        assert cache.missing([key(1), key(0)]) == []
        cache.read(key(0))
    assert loads == [0, 1]
    assert cache.verify() == 2
    assert loads == [0, 1, 0, 1]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [0, 100, 8448 + 4096])
def test_a_truncated_shard_is_a_miss_and_no_crash(filled, key, numbers, maker, mapped, size):
    keys = [key(number) for number in range(3)]
    cache = filled(3)
    if mapped:
        assert good(cache, keys * 2, numbers)
    os.truncate(shard(cache), size)
    if size > 8448:
        assert good(cache, keys[:1], numbers)
    with pytest.raises(CacheMiss, match="too short"):
        cache.read(key(2))
    assert cache.damaged == 1
    lost = [position for position in range(3) if (position + 1) * 8448 > size]
    assert cache.fill(keys, maker(keys)) == len(lost) or mapped
    again = reopened(cache)
    assert again.fill(keys, maker(keys)) + cache.damaged >= len(lost)
    assert good(again, keys, numbers)


def test_a_shard_that_is_gone_is_made_again(filled, key, numbers, maker):
    keys = [key(number) for number in range(3)]
    cache = filled(3)
    shard(cache).unlink()
    assert cache.missing(keys) == [0, 1, 2]
    assert cache.damaged == 3
    assert cache.fill(keys, maker(keys)) == 3
    assert good(cache, keys, numbers)


def test_a_row_in_the_place_of_another_is_not_taken_for_it(filled, key):
    cache = filled(2)
    with sqlite3.connect(group(cache) / "index.sqlite") as connection:
        connection.execute("UPDATE slots SET slot = -1 WHERE key = ?", (key(0),))
        connection.execute("UPDATE slots SET slot = 0 WHERE key = ?", (key(1),))
        connection.execute("UPDATE slots SET slot = 1 WHERE key = ?", (key(0),))
    connection.close()
    assert reopened(cache).missing([key(0), key(1)]) == [0, 1]


@pytest.mark.parametrize("place", [(-1, 5), (10**15, 5), (7, "text"), (7, None)])
def test_nonsense_in_the_index_is_a_miss(filled, key, place):
    cache = filled(2)
    with sqlite3.connect(group(cache) / "index.sqlite") as connection:
        connection.execute("UPDATE slots SET slot = ?, checksum = ? WHERE key = ?", (*place, key(0)))
    connection.close()
    found = reopened(cache)
    with pytest.raises(CacheMiss):
        found.read(key(0))
    assert found.missing([key(0), key(1)]) == [0]


# --- the index --------------------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def flip_pages(path: Path) -> None:
    for byte in range(4096, path.stat().st_size, 64):
        flip(path, byte)


def without_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other(a)")
    connection.close()


def with_another_name(path: Path) -> None:
    """A generation that would be a path."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET generation = '../../xx'")
    connection.close()


@pytest.mark.parametrize("spoil", [overwrite, cut, flip_pages, without_tables, with_another_name])
def test_a_damaged_index_is_moved_aside_and_the_group_begins_anew(filled, key, numbers, maker, spoil):
    keys = [key(number) for number in range(3)]
    cache = filled(3)
    old = shard(cache)
    cache.missing(keys)
    index = group(cache) / "index.sqlite"
    spoil(index)
    (group(cache) / "index.sqlite-journal").write_bytes(b"")
    found = reopened(cache)
    (note,) = found.notes
    assert note.startswith(f"the index of {group(cache)} was damaged and is now ")
    assert (group(cache) / "index.damaged").is_file()
    assert not old.exists()
    assert found.missing(keys) == [0, 1, 2]
    assert found.fill(keys, maker(keys)) == 3
    assert good(found, keys, numbers)
    assert reopened(cache).notes == []
    # who was reading goes on, first with what it has, then with what is new
    assert cache.missing(keys) == []
    assert good(cache, keys, numbers)


def test_an_index_that_is_spoilt_during_a_run_stops_the_cache_and_no_more(filled, key, numbers, maker):
    cache = filled(1)
    assert good(cache, [key(0)], numbers)
    overwrite(group(cache) / "index.sqlite")
    assert good(cache, [key(0)], numbers)
    with pytest.raises(CacheMiss, match="damaged"):
        cache.read(key(1))
    with pytest.raises(CacheUnavailable, match="whoever opens these embeddings next begins them anew"):
        cache.fill([key(1)], maker([key(1)]))


def test_an_index_that_is_gone(filled, key, maker):
    cache = filled(1)
    (group(cache) / "index.sqlite").unlink()
    with pytest.raises(CacheUnavailable, match="unable to open database file"):
        cache.missing([key(0)])
    found = reopened(cache)
    assert found.missing([key(0)]) == [0]
    assert not list(group(cache).glob("rows-*"))  # nobody knows what these were


def test_an_index_whose_maker_was_killed(filled, key):
    cache = filled(0)
    os.truncate(group(cache) / "index.sqlite", 0)
    found = reopened(cache)
    assert found.notes == []
    assert found.missing([key(0)]) == [0]


def test_an_index_that_links_elsewhere_is_not_followed(filled, key, tmp_path):
    cache = filled(1)
    index = group(cache) / "index.sqlite"
    shutil.move(index, tmp_path / "elsewhere.sqlite")
    index.symlink_to(tmp_path / "elsewhere.sqlite")
    found = reopened(cache)
    assert found.missing([key(0)]) == [0]
    assert len(found.notes) == 1
    assert not index.is_symlink()


def test_shards_that_link_elsewhere_are_not_followed(filled, key, maker, tmp_path):
    cache = filled(1)
    path = shard(cache)
    shutil.move(path, tmp_path / "elsewhere.bin")
    path.symlink_to(tmp_path / "elsewhere.bin")
    before = (tmp_path / "elsewhere.bin").read_bytes()
    found = reopened(cache)
    assert found.missing([key(0)]) == [0]
    with pytest.raises(CacheUnavailable):
        found.fill([key(1)], maker([key(1)]))
    assert (tmp_path / "elsewhere.bin").read_bytes() == before


# --- group.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["rows"].update(weights="ef" * 32), "describes other rows than the name of its directory"),
        (lambda found: found["rows"].update(shape=[0]), "describes other rows"),
        (lambda found: found["rows"].update(shape="8"), "describes other rows"),
        (lambda found: found["rows"].update(dtype="bfloat16"), "describes other rows"),
        (lambda found: found["rows"].pop("stage"), "describes other rows"),
        (lambda found: found.update(more=1), "describes other rows"),
        (lambda found: found.update(rows=[]), "describes other rows"),
        (lambda found: found.update(format=0), "is of format 0, this is 1"),
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


def test_a_group_that_links_elsewhere_is_not_followed(filled, tmp_path):
    cache = filled(1)
    shutil.move(group(cache), tmp_path / "elsewhere")
    group(cache).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheUnavailable, match="is not a directory"):
        reopened(cache)


# --- the disk ---------------------------------------------------------------------------------------------------------


def refusing(code: int):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_disk_that_fills_up_keeps_what_is_whole(filled, key, numbers, maker, monkeypatch):
    keys = [key(number) for number in range(5)]
    cache = filled(2)
    write, left = os.pwrite, [8448 + 4096]

    def until_full(descriptor, data, offset):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(descriptor, data[: left[0]], offset)
        left[0] -= count
        return count

    monkeypatch.setattr(os, "pwrite", until_full)
    with pytest.raises(CacheUnavailable, match="the disk of .* is full; free some space"):
        cache.fill(keys, maker(keys))
    monkeypatch.undo()
    again = reopened(cache)
    assert again.missing(keys) == [3, 4]
    assert again.damaged == 0
    assert good(again, keys[:3], numbers)
    assert again.fill(keys, maker(keys)) == 2
    assert good(again, keys, numbers)


def test_a_directory_that_may_only_be_read_is_read(filled, key, numbers, maker, monkeypatch):
    cache = filled(2)
    cache.close()
    opened = os.open

    def read_only(path, flags, mode=0o777, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "utime", refusing(errno.EROFS))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    found = reopened(cache)
    assert found.missing([key(0), key(1), key(2)]) == [2]
    assert good(found, [key(0), key(1)], numbers)
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


def test_a_file_system_without_locks_is_told(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    with pytest.raises(CacheUnavailable, match="the file system of .* has no locks"):
        EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)


def test_a_system_without_locks_is_told(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(locks, "_fcntl", None)
    with pytest.raises(
        CacheUnavailable, match="this operating system does not have; go without with trainer.cache=off"
    ):
        EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)


def test_nobody_waits_for_ever_for_the_directory(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.05)
    with locks.directory_lock(tmp_path), pytest.raises(CacheUnavailable, match="another process has held"):
        EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    EmbeddingCache.open(tmp_path, spec(), max_bytes=GB).close()


STOPPED = """
import os, signal, sys
from pathlib import Path
from lora_sam.predictors.embeddings.store import EmbeddingCache
from tests.predictors.embeddings.conftest import SPEC
def make(todo):
    print("making", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
EmbeddingCache.open(Path(sys.argv[1]), SPEC, max_bytes=10**9).fill(["00" * 32], make)
"""


def test_a_stopped_builder_is_not_waited_for(tmp_path, spec, key, maker, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.3)
    process = subprocess.Popen([sys.executable, "-c", STOPPED, tmp_path / "cache"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "making\n"
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
        keys = [key(1)]
        with pytest.raises(CacheUnavailable, match=r"build.* and has done nothing for 0 s, as if it was stopped; end"):
            cache.fill(keys, maker(keys))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert cache.fill(keys, maker(keys)) == 1  # what is killed lets go


def test_a_slow_builder_is_waited_for(tmp_path, spec, key, maker, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.02)
    keys, begun = [key(1)], threading.Event()
    make = maker(keys)

    def slowly(todo):
        begun.set()
        time.sleep(1)
        return make(todo)

    def build():
        with EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB) as cache:
            cache.fill(keys, slowly)

    builder = threading.Thread(target=build)
    builder.start()
    begun.wait()
    assert EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill(keys, make) == 0
    builder.join()
