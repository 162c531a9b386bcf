"""Rows come back as they were made, once, whoever makes them and whoever is killed meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lora_sam.predictors.embeddings import rows, store
from lora_sam.predictors.embeddings.layout import FORMAT_VERSION
from lora_sam.predictors.embeddings.store import CacheMiss, CacheUnavailable, EmbeddingCache, RowTooLarge

GB = 10**9


def test_rows_come_back_with_the_same_bits(filled, key, same, spec, tmp_path):
    cache = filled(5)
    assert all(same(cache, key(number)) for number in (3, 0, 4, 3))
    again = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
    assert again.missing([key(number) for number in (0, 7, 4, 7, 9)]) == [1, 4]
    assert same(again, key(2))
    # every read is memory of its own
    again.read(key(2))["values"].add_(1)
    assert same(again, key(2))
    assert again.damaged == 0
    assert again.notes == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_kept_is_the_nearest_number_of_its_type(tmp_path, spec, key, dtype):
    made = np.random.default_rng(0).standard_normal((1, 8, 16, 33)).astype(np.float32)
    with EmbeddingCache.open(tmp_path, spec(dtype=dtype), max_bytes=GB) as cache:
        cache.fill([key(0)], lambda positions: {"values": made})
        found = cache.read(key(0))["values"]
        assert torch.equal(found, torch.from_numpy(made[0].astype(dtype).astype(np.float32)))


def test_a_row_may_be_several_maps(tmp_path, spec, key):
    several = spec(shapes={"low": (2, 3), "high": (4, 5, 6)})
    rng = np.random.default_rng(0)
    made = {name: rng.integers(-9, 9, (2, *shape)).astype(np.float32) for name, shape in several.shapes.items()}
    keys = [key(0), key(1)]
    with EmbeddingCache.open(tmp_path, several, max_bytes=GB) as cache:
        assert cache.fill(keys, lambda positions: {name: made[name][positions] for name in made}, batch=2) == 2
        for position in range(2):
            row = cache.read(keys[position])
            assert row.keys() == made.keys()
            assert all(torch.equal(row[name], torch.from_numpy(made[name][position])) for name in made)
    with EmbeddingCache.open(tmp_path, spec(shapes={"low": (2, 3)}), max_bytes=GB) as other:
        assert other.missing(keys) == [0, 1]


def test_a_row_is_a_file_that_anybody_can_read(filled, key, numbers, spec):
    cache = filled(1)
    path = cache.directory / spec().name / key(0)[:2] / f"{key(0)}.safetensors"
    with safe_open(path, "np") as file:
        assert list(file.metadata()) == ["sha256"]
        assert np.array_equal(file.get_tensor("values"), numbers(key(0)).astype(np.float16))
    assert spec().row_bytes == 8448
    assert spec().row_bytes < path.stat().st_size <= spec().file_bytes


def test_many_rows_are_spread_over_directories(filled, key, spec):
    cache = filled(40)
    found = sorted(path.relative_to(cache.directory / spec().name) for path in cache.directory.rglob("*.safetensors"))
    assert found == sorted(Path(key(number)[:2], f"{key(number)}.safetensors") for number in range(40))


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


def test_groups_lie_side_by_side(filled, spec, key, same, monkeypatch):
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
    inner = [path for directory in directories for path in directory.iterdir() if path.is_dir()]
    assert {oct(path.stat().st_mode & 0o777) for path in (caches[0].directory, *directories, *inner)} == {"0o700"}
    monkeypatch.undo()
    assert all(same(cache, key(number)) for cache in caches[:-1] for number in range(2))


def _read_elsewhere(cache: EmbeddingCache, key: str, results) -> None:
    results.put(cache.read(key)["values"].sum().item())


def test_a_copy_opens_the_files_in_a_spawned_process(filled, key, numbers):
    cache = filled(3)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_read_elsewhere, args=(cache, key(1), results))
    process.start()
    assert results.get(timeout=60) == torch.from_numpy(numbers(key(1))).sum().item()
    process.join(30)
    assert process.exitcode == 0


def test_copies_and_forked_processes_read_on(filled, key, same, fork):
    cache = filled(2)
    assert same(cache, key(0))
    copy = pickle.loads(pickle.dumps(cache))
    assert same(copy, key(1))
    assert copy.max_bytes == cache.max_bytes

    def check() -> None:
        assert same(cache, key(0))
        assert same(cache, key(1))

    process = fork(check)
    process.join(30)
    assert process.exitcode == 0
    cache.close()
    assert same(cache, key(1))
    assert cache.missing([key(1)]) == []  # opens again


def test_a_copy_that_cannot_open_the_files_misses(filled, key, monkeypatch):
    copy = pickle.loads(pickle.dumps(filled(1)))

    def refuse(*_):
        raise OSError("too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CacheMiss, match="too many open files"):
        copy.read(key(0))
    monkeypatch.undo()
    assert copy.read(key(0))  # which is no reason to remove a row


def test_reads_find_what_another_process_added(filled, key, same, maker, spec, tmp_path):
    cache = filled(1)
    with pytest.raises(CacheMiss, match="no row"):
        cache.read(key(1))
    EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill([key(1)], maker([key(1)]))
    assert same(cache, key(1))


# --- numbers that cannot be kept --------------------------------------------------------------------------------------


def test_numbers_beyond_float16_need_float32(tmp_path, spec, key):
    made = np.zeros((1, 8, 16, 33), np.float32)
    made[0, 3, 2, 1] = -65536
    with EmbeddingCache.open(tmp_path, spec(), max_bytes=GB) as cache:
        with pytest.raises(RowTooLarge, match=r"6\.55e\+04 does not fit in float16; store with cache.dtype=float32"):
            cache.fill([key(0)], lambda positions: {"values": made})
        assert cache.missing([key(0)]) == [0]
        made[0, 3, 2, 1] = -65504
        assert cache.fill([key(0)], lambda positions: {"values": made}) == 1
    made[0, 3, 2, 1] = -65536
    with EmbeddingCache.open(tmp_path, spec(dtype="float32"), max_bytes=GB) as cache:
        assert cache.fill([key(0)], lambda positions: {"values": made}) == 1
        assert cache.read(key(0))["values"].min() == -65536


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_not_finite_is_not_kept(tmp_path, spec, key, value, dtype):
    made = np.zeros((1, 8, 16, 33), np.float32)
    made[0, 0, 0, 1] = value
    with EmbeddingCache.open(tmp_path, spec(dtype=dtype), max_bytes=GB) as cache:
        with pytest.raises(CacheUnavailable, match="not finite") as caught:
            cache.fill([key(0)], lambda positions: {"values": made})
        assert not isinstance(caught.value, RowTooLarge)
        assert cache.missing([key(0)]) == [0]


# --- names and digests ------------------------------------------------------------------------------------------------


def test_the_digest_sees_every_kind_of_damage(filled, key, spec):
    cache = filled(2)
    path, other = (rows.row_path(cache.directory / spec().name, key(number)) for number in range(2))
    right = path.read_bytes()

    def found(data: bytes) -> bool:
        path.write_bytes(data)
        with pytest.raises(CacheMiss, match="is damaged"):
            cache.read(key(0))
        return not path.exists()  # so that it is made again

    for bit in (*range(0, 8 * (len(right) - 8448), 13), *range(8 * (len(right) - 8448), 8 * len(right), 997)):
        flipped = bytearray(right)
        flipped[bit // 8] ^= 1 << bit % 8
        assert found(bytes(flipped))
    start = len(right) - 8448
    assert found(
        right[:start] + right[start + 4096 : start + 8192] + right[start : start + 4096] + right[start + 8192 :]
    )
    assert found(right[:start] + bytes(4096) + right[start + 4096 :])
    assert found(other.read_bytes())
    assert found(right[:-1])
    assert found(right + b"\0")
    assert found(b"")
    path.write_bytes(right)
    cache.read(key(0))


def test_names_of_groups_do_not_change_by_accident(spec):
    # a new name is a new cache for everybody: change FORMAT_VERSION where the content changes, and then this
    assert spec().name == "144204c3c3a9d63991e55b9ee2ae6222"
    assert json.loads(json.dumps(spec().described()))["format"] == FORMAT_VERSION


def test_a_row_is_on_the_disk_before_its_name_is_there(tmp_path, spec, key, maker, monkeypatch):
    cache = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    calls = []

    def noted(owner, name):
        original = getattr(owner, name)

        def call(*arguments):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(owner, name, call)

    noted(Path, "write_bytes")
    noted(os, "fsync")
    noted(os, "replace")
    cache.fill([key(0), key(1)], maker([key(0), key(1)]), batch=2)
    # the second fsync is that of the directory
    assert calls == ["write_bytes", "fsync", "replace", "fsync"] * 2


# --- pixels of files --------------------------------------------------------------------------------------------------


def test_the_interface_is_in_one_module():
    assert set(store.__all__) == {"CacheMiss", "CacheUnavailable", "EmbeddingCache", "RowSpec", "RowTooLarge"}
