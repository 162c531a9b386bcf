"""Rows come back as they were made, once, whoever makes them and whoever is killed meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_sam.predictors.embeddings import locks, store
from lora_sam.predictors.embeddings.index import Index
from lora_sam.predictors.embeddings.layout import FORMAT_VERSION
from lora_sam.predictors.embeddings.shards import Shards, checksum
from lora_sam.predictors.embeddings.store import CacheMiss, CacheUnavailable, EmbeddingCache, RowTooLarge

GB = 10**9


def same(cache: EmbeddingCache, key: str, numbers) -> bool:
    row = cache.read(key)
    return row.dtype == torch.float32 and torch.equal(row, torch.from_numpy(numbers(key)))


def test_rows_come_back_with_the_same_bits(filled, key, numbers, spec, tmp_path):
    cache = filled(5)
    for number in (3, 0, 4, 3):
        assert same(cache, key(number), numbers)
    again = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
    assert again.missing([key(number) for number in (0, 7, 4, 7, 9)]) == [1, 4]
    assert same(again, key(2), numbers)
    # every read is memory of its own
    row = again.read(key(2))
    row += 1
    assert same(again, key(2), numbers)
    assert again.damaged == 0
    assert again.notes == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_kept_is_the_nearest_number_of_its_type(tmp_path, spec, key, dtype):
    rows = np.random.default_rng(0).standard_normal((1, *spec().shape)).astype(np.float32)
    with EmbeddingCache.open(tmp_path, spec(dtype=dtype), max_bytes=GB) as cache:
        cache.fill([key(0)], lambda positions: rows)
        for _ in range(2):  # checked, then mapped
            assert torch.equal(cache.read(key(0)), torch.from_numpy(rows[0].astype(dtype).astype(np.float32)))


def test_rows_span_shards(tmp_path, spec, key, numbers, maker, monkeypatch):
    monkeypatch.setattr("lora_sam.predictors.embeddings.layout.SHARD_BYTES", 3 * spec().row_bytes + 1)
    keys = [key(number) for number in range(8)]
    cache = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    assert cache.fill(keys[:5], maker(keys), batch=4) == 5
    assert all(same(cache, each, numbers) for each in keys[:5] * 2)
    # a file that grows after it was mapped
    assert cache.fill(keys, maker(keys), batch=4) == 3
    monkeypatch.setattr("lora_sam.predictors.embeddings.shards._MOST_MAPPINGS", 1)
    assert all(same(cache, each, numbers) for each in keys * 2)
    sizes = sorted(path.stat().st_size for path in (tmp_path / spec().name).glob("rows-*.bin"))
    assert sizes == [2 * spec().row_bytes, 3 * spec().row_bytes, 3 * spec().row_bytes]


def test_progress_and_repeated_keys(tmp_path, spec, key, maker):
    keys = [key(number) for number in (0, 1, 0, 2, 1, 3, 4)]
    told: list[tuple[int, int]] = []
    given: list[list[int]] = []
    with EmbeddingCache.open(tmp_path, spec(), max_bytes=GB) as cache:
        cache.fill([key(4)], maker([key(4)]))

        def make(positions):
            given.append(positions)
            return maker(keys)(positions)

        assert cache.fill(keys, make, batch=3, on_rows=lambda done, total: told.append((done, total))) == 4
        assert given == [[0, 1, 3], [5]]
        assert told == [(0, 4), (3, 4), (4, 4)]
        assert cache.fill(keys, make) == 0
        assert len(given) == 2


def test_what_fails_while_a_row_is_made_is_raised_and_lets_others_go_on(tmp_path, spec, key, maker):
    def fail(positions):
        raise FileNotFoundError("image.png")

    cache = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    other = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    with pytest.raises(FileNotFoundError, match="image.png"):
        cache.fill([key(0)], fail)
    assert other.fill([key(0)], maker([key(0)])) == 1
    assert cache.missing([key(0)]) == []


def test_groups_lie_side_by_side(filled, spec, key, numbers, monkeypatch):
    specs = [
        spec(),
        spec(weights="cd" * 32),
        spec(stage="tokens-9"),
        spec(image_size=512),
        spec(precision="bfloat16"),
        spec(dtype="float32"),
        spec(variant="vit_l"),
    ]
    caches = [filled(2, each) for each in specs]
    monkeypatch.setattr("lora_sam.predictors.embeddings.layout.FORMAT_VERSION", FORMAT_VERSION + 1)
    caches.append(filled(2))
    directories = [path for path in caches[0].directory.iterdir() if path.is_dir()]
    assert len(directories) == len(specs) + 1
    assert {oct(path.stat().st_mode & 0o777) for path in (caches[0].directory, *directories)} == {"0o700"}
    monkeypatch.undo()
    assert all(same(cache, key(number), numbers) for cache in caches[:-1] for number in range(2))


def test_eight_processes_make_each_row_once(tmp_path, spec, key, numbers, maker, fork):
    keys = [key(number) for number in range(12)]

    def fill(start: int) -> None:
        mine = keys[start:] + keys[:start]  # each in another order
        cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
        made = cache.fill(mine, maker(mine, tmp_path / "made"), batch=2)
        assert all(same(cache, each, numbers) for each in keys)
        (tmp_path / f"count-{start}").write_text(str(made))

    processes = [fork(fill, start) for start in range(8)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert len((tmp_path / "made").read_text().split()) == 12
    assert sum(int(path.read_text()) for path in tmp_path.glob("count-*")) == 12


@pytest.mark.parametrize("moment", ["making", "writing", "entering"])
def test_a_killed_builder_is_followed_at_once(tmp_path, spec, key, numbers, maker, fork, monkeypatch, moment):
    keys = [key(number) for number in range(6)]

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def build() -> None:
        make = maker(keys, tmp_path / "made")
        if moment == "writing":  # half of the row is on the disk
            write = os.pwrite

            def half(descriptor, data, offset):
                write(descriptor, data[: len(data) // 2], offset)
                die()

        def make_or_die(positions):
            rows = make(positions)
            if 3 in positions:
                if moment == "making":
                    die()
                elif moment == "writing":
                    monkeypatch.setattr(os, "pwrite", half)
                else:
                    monkeypatch.setattr("lora_sam.predictors.embeddings.index.Index.add", die)
            return rows

        EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill(keys, make_or_die)

    process = fork(build)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    begun = time.monotonic()
    cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
    assert cache.missing(keys) == [3, 4, 5]
    assert cache.damaged == 0
    assert cache.fill(keys, maker(keys, tmp_path / "made")) == 3
    assert time.monotonic() - begun < 5
    assert all(same(cache, each, numbers) for each in keys)
    # the row that was being made, and no other, was made twice
    assert sorted((tmp_path / "made").read_text().split()) == ["0", "1", "2", "3", "3", "4", "5"]


def test_a_child_does_not_hold_what_its_killed_parent_held(tmp_path, spec, key, maker, fork):
    """Workers of a DataLoader may outlive the process that forked them by some seconds."""

    def build() -> None:
        def make(positions):
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            (tmp_path / "child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)

        EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill([key(0)], make)

    process = fork(build)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    begun = time.monotonic()
    try:
        cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
        assert cache.fill([key(0)], maker([key(0)])) == 1
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert time.monotonic() - begun < 10


def test_others_wait_and_see_rows_appear(tmp_path, spec, key, maker, fork):
    keys = [key(number) for number in range(3)]

    def build() -> None:
        def slowly(positions):
            (tmp_path / "begun").touch()
            time.sleep(0.4)
            return maker(keys, tmp_path / "made")(positions)

        EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill(keys, slowly, batch=3)

    process = fork(build)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    told: list[tuple[int, int]] = []
    cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
    assert cache.fill(keys, maker(keys, tmp_path / "made"), on_rows=lambda done, total: told.append((done, total))) == 0
    process.join(30)
    assert told == [(0, 3), (3, 3)]
    assert len((tmp_path / "made").read_text().split()) == 3


def _read_elsewhere(cache: EmbeddingCache, key: str, results) -> None:
    results.put(cache.read(key).sum().item())


def test_a_copy_opens_the_files_in_a_spawned_process(filled, key, numbers):
    cache = filled(3)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_read_elsewhere, args=(cache, key(1), results))
    process.start()
    assert results.get(timeout=60) == torch.from_numpy(numbers(key(1))).sum().item()
    process.join(30)
    assert process.exitcode == 0


def test_copies_and_forked_processes_read_on(filled, key, numbers, fork):
    cache = filled(2)
    assert same(cache, key(0), numbers)
    copy = pickle.loads(pickle.dumps(cache))
    assert same(copy, key(1), numbers)
    assert copy.max_bytes == cache.max_bytes

    def check() -> None:
        assert same(cache, key(0), numbers)
        assert same(cache, key(1), numbers)

    process = fork(check)
    process.join(30)
    assert process.exitcode == 0
    cache.close()
    assert same(cache, key(1), numbers)  # opens again


def test_a_copy_that_cannot_open_the_files_misses(filled, key, monkeypatch):
    copy = pickle.loads(pickle.dumps(filled(1)))
    monkeypatch.setattr(locks, "_fcntl", None)
    with pytest.raises(CacheMiss, match="needs file locks, which this operating system does not have"):
        copy.read(key(0))


def test_reads_find_what_another_process_added(filled, key, numbers, maker, spec, tmp_path):
    cache = filled(1)
    with pytest.raises(CacheMiss, match="no row"):
        cache.read(key(1))
    EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill([key(1)], maker([key(1)]))
    assert same(cache, key(1), numbers)


# --- numbers that cannot be kept --------------------------------------------------------------------------------------


def test_numbers_beyond_float16_need_float32(tmp_path, spec, key):
    rows = np.zeros((1, *spec().shape), np.float32)
    rows[0, 3, 2, 1] = -65536
    with EmbeddingCache.open(tmp_path, spec(), max_bytes=GB) as cache:
        with pytest.raises(RowTooLarge, match=r"6\.55e\+04 does not fit in float16; store with cache.dtype=float32"):
            cache.fill([key(0)], lambda positions: rows)
        assert cache.missing([key(0)]) == [0]
        rows[0, 3, 2, 1] = -65504
        assert cache.fill([key(0)], lambda positions: rows) == 1
    rows[0, 3, 2, 1] = -65536
    with EmbeddingCache.open(tmp_path, spec(dtype="float32"), max_bytes=GB) as cache:
        assert cache.fill([key(0)], lambda positions: rows) == 1
        assert cache.read(key(0)).min() == -65536


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_not_finite_is_not_kept(tmp_path, spec, key, value, dtype):
    rows = np.zeros((1, *spec().shape), np.float32)
    rows[0, 0, 0, 1] = value
    with EmbeddingCache.open(tmp_path, spec(dtype=dtype), max_bytes=GB) as cache:
        with pytest.raises(CacheUnavailable, match="not finite") as caught:
            cache.fill([key(0)], lambda positions: rows)
        assert not isinstance(caught.value, RowTooLarge)
        assert cache.missing([key(0)]) == [0]


# --- checksums --------------------------------------------------------------------------------------------------------


def test_the_checksum_sees_every_kind_of_damage(key):
    row = np.random.default_rng(0).integers(0, 256, 8448, np.uint8)
    right = checksum(key(0), row)
    assert right == checksum(key(0), row.copy())
    assert right != checksum(key(1), row)
    for bit in range(0, 8448 * 8, 97):
        flipped = row.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        assert right != checksum(key(0), flipped)
    exchanged = np.concatenate([row[4096:8192], row[:4096], row[8192:]])
    lost = row.copy()
    lost[4096:8192] = 0
    assert right not in (checksum(key(0), exchanged), checksum(key(0), lost))


def test_names_of_groups_do_not_change_by_accident(spec):
    # a new name is a new cache for everybody: change FORMAT_VERSION where the content changes, and then this
    assert spec().name == "c0e269c7243ba99187e395cd26b07f38"
    assert spec().row_bytes == 8448
    assert json.loads(json.dumps(spec().described()))["format"] == FORMAT_VERSION


def test_a_row_is_on_the_disk_before_the_index_names_it(tmp_path, spec, key, maker, monkeypatch):
    cache = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    calls = []

    def noted(owner, name):
        original = getattr(owner, name)

        def call(*arguments):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(owner, name, call)

    noted(os, "pwrite")
    noted(os, "fsync")
    noted(Index, "add")
    cache.fill([key(0), key(1), key(2)], maker([key(0), key(1), key(2)]), batch=2)
    # the second fsync is that of the directory, for the name of a new file
    assert calls == ["pwrite", "pwrite", "fsync", "fsync", "add", "pwrite", "fsync", "add"]


def test_short_writes_go_on(tmp_path, spec, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: write(descriptor, data[:1000], offset))
    rows = np.random.default_rng(0).integers(0, 256, (2, spec().row_bytes), np.uint8)
    shards = Shards(tmp_path, spec(), "00000000")
    shards.write([1, 0], rows)
    assert np.array_equal(shards.load(1), rows[0])
    assert np.array_equal(shards.load(0), rows[1])


# --- pixels of files --------------------------------------------------------------------------------------------------


def test_the_memo_of_pixels(filled, key, tmp_path, monkeypatch):
    cache = filled(0)
    assert cache.known_pixels([key(0)]) == {}
    pixels = {key(number): key(number + 10_000) for number in range(1200)}
    cache.note_pixels(pixels)
    assert cache.known_pixels([*pixels, key(5000)]) == pixels
    cache.note_pixels({key(0): key(1)})
    assert cache.known_pixels([key(0)]) == {key(0): key(1)}
    # another decoder may give other pixels
    monkeypatch.setattr("lora_sam.predictors.embeddings.index.version", lambda name: "0.0")
    assert cache.known_pixels(list(pixels)) == {}


def test_a_memo_that_is_damaged_or_cannot_be_written_is_no_fault(filled, key, monkeypatch):
    cache = filled(0)
    memo = cache.directory / "pixels.sqlite"
    memo.write_bytes(b"no database" * 100)
    assert cache.known_pixels([key(0)]) == {}
    cache.note_pixels({key(0): key(1)})
    assert cache.known_pixels([key(0)]) == {key(0): key(1)}
    memo.unlink()
    outside = cache.directory.parent / "outside"
    outside.write_text("as it was")
    memo.symlink_to(outside)
    cache.note_pixels({key(0): key(1)})
    assert cache.known_pixels([key(0)]) == {}
    assert outside.read_text() == "as it was"
    memo.unlink()

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "touch", refuse)
    cache.note_pixels({key(0): key(1)})
    assert not memo.exists()


def test_the_interface_is_in_one_module():
    assert set(store.__all__) == {"CacheMiss", "CacheUnavailable", "EmbeddingCache", "RowSpec", "RowTooLarge"}
