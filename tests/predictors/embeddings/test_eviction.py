"""How much a cache may hold, what goes first, and what stays."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple

import pytest
import torch

from lora_sam.predictors.embeddings.eviction import FREE_BYTES, groups, prune, total_bytes
from lora_sam.predictors.embeddings.store import CacheMiss, CacheUnavailable, EmbeddingCache

GB = 10**9
ROW = 8448 + 256  # with its part of the index


def old(cache: EmbeddingCache, seconds: float) -> None:
    """Close a cache, as if so long ago."""
    cache.close()
    os.utime(cache.directory / cache.spec.name / "lease", (seconds, seconds))


def present(cache: EmbeddingCache, specs) -> list[bool]:
    return [(cache.directory / spec.name).is_dir() for spec in specs]


def test_the_group_used_least_recently_goes_first(filled, spec, key, maker):
    specs = [spec(stage=f"tokens-{block}") for block in range(4)]
    for number, when in ((0, 2000), (1, 1000), (2, 3000)):
        old(filled(20, specs[number]), when)
    directory = filled(0, specs[3]).directory
    keys = [key(number) for number in range(10)]
    held = total_bytes(directory)
    with EmbeddingCache.open(directory, specs[3], max_bytes=held + 2 * ROW) as cache:
        assert cache.fill(keys, maker(keys), batch=4) == 10
    assert present(cache, specs) == [True, False, True, True]
    # and those that follow, where one is not enough
    keys = [key(number) for number in range(40)]
    with EmbeddingCache.open(directory, specs[3], max_bytes=total_bytes(directory)) as cache:
        assert cache.fill(keys, maker(keys), batch=40) == 30
    assert present(cache, specs) == [False, False, False, True]


def test_a_group_in_use_stays(filled, spec, key, maker, numbers, fork, tmp_path):
    specs = [spec(stage=f"tokens-{block}") for block in range(3)]
    old(filled(20, specs[1]), 2000)
    used = filled(20, specs[0])
    os.utime(used.directory / specs[0].name / "lease", (1000, 1000))
    keys = [key(number) for number in range(10)]
    with EmbeddingCache.open(used.directory, specs[2], max_bytes=total_bytes(used.directory) + ROW) as cache:
        assert cache.fill(keys, maker(keys)) == 10
    assert present(used, specs) == [True, False, True]
    assert torch.equal(used.read(key(7)), torch.from_numpy(numbers(key(7))))


def test_nothing_goes_where_that_would_not_be_enough(filled, spec, key):
    specs = [spec(stage=f"tokens-{block}") for block in range(2)]
    old(filled(5, specs[0]), 1000)
    cache = filled(5, specs[1])
    keys = [key(number) for number in range(100, 200)]
    limited = EmbeddingCache.open(cache.directory, specs[1], max_bytes=60 * ROW)
    with pytest.raises(CacheUnavailable) as caught:
        limited.fill(keys, lambda positions: pytest.fail("made although there is no room"))
    assert str(caught.value).startswith(
        f"the embedding cache needs {100 * ROW / 1e9:.3g} GB for 100 images, and there is no room: {cache.directory} "
    )
    assert f"at most cache.max_gb={60 * ROW / 1e9:g}" in str(caught.value)
    assert "raise cache.max_gb" in str(caught.value)
    assert present(cache, specs) == [True, True]


def test_a_full_disk_is_told_before_anything_is_made(filled, key, monkeypatch):
    cache = filled(1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, FREE_BYTES + 10 * ROW))
    keys = [key(number) for number in range(1, 12)]
    with pytest.raises(CacheUnavailable, match=r"the disk of .* can give 8\.7e-05 GB; free some space"):
        cache.fill(keys, lambda positions: pytest.fail("made although there is no room"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 0))
    with pytest.raises(CacheUnavailable, match="can give 0 GB"):
        cache.fill(keys, lambda positions: pytest.fail("made although there is no room"))


def test_a_limit_that_another_process_reaches_first_stops_in_between(filled, key, maker, spec):
    cache = filled(0)
    keys = [key(number) for number in range(6)]
    other = EmbeddingCache.open(cache.directory, spec(stage="tokens-3"), max_bytes=GB)
    cache.max_bytes = total_bytes(cache.directory) + 7 * ROW

    def make(positions):
        if positions == [2]:
            other.fill(keys, maker(keys))
        return maker(keys)(positions)

    with pytest.raises(CacheUnavailable, match="there is no room"):
        cache.fill(keys, make)
    assert cache.missing(keys) == [3, 4, 5]


def backdated(cache: EmbeddingCache, keys) -> None:
    """As if the rows had been wanted last in this order, long ago."""
    import sqlite3

    with sqlite3.connect(cache.directory / cache.spec.name / "index.sqlite") as connection:
        for number, each in enumerate(keys):
            connection.execute("UPDATE slots SET used = ? WHERE key = ?", (1000.0 + number, each))
    connection.close()


def test_rows_that_nobody_wants_make_room_in_their_own_group(filled, key, maker, numbers, spec):
    keys = [key(number) for number in range(30)]
    first = filled(20)
    first.close()
    backdated(first, [*keys[10:20], *keys[:10]])
    (path,) = (first.directory / spec().name).glob("rows-*.bin")
    limited = EmbeddingCache.open(first.directory, spec(), max_bytes=total_bytes(first.directory))
    wanted = [*keys[10:13], *keys[20:25]]
    assert limited.fill(wanted, maker(wanted), batch=2) == 5
    assert path.stat().st_size == 20 * 8448
    # of those not wanted, the ones used least recently went
    gone = [number for number in range(20) if keys[number] not in limited._group.places]
    assert gone == [13, 14, 15, 16, 17]
    assert all(torch.equal(limited.read(each), torch.from_numpy(numbers(each))) for each in wanted)
    limited.close()
    again = EmbeddingCache.open(first.directory, spec(), max_bytes=GB)
    assert again.missing(keys[:25]) == [13, 14, 15, 16, 17]
    assert again.damaged == 0


def test_rows_go_only_while_nobody_else_has_the_group_open(filled, key, maker, spec):
    keys = [key(number) for number in range(25)]
    reader = filled(20)
    limited = EmbeddingCache.open(reader.directory, spec(), max_bytes=total_bytes(reader.directory))
    with pytest.raises(CacheUnavailable, match="there is no room"):
        limited.fill(keys[20:], maker(keys))
    assert reader.missing(keys[:20]) == []
    reader.close()
    assert limited.fill(keys[20:], maker(keys[20:])) == 5


def test_slots_of_damaged_rows_wait_until_nobody_can_read_them(filled, key, maker, numbers, spec):
    keys = [key(number) for number in range(4)]
    reader = filled(3)
    assert reader.missing(keys[:3]) == []
    (path,) = (reader.directory / spec().name).glob("rows-*.bin")
    builder = EmbeddingCache.open(reader.directory, spec(), max_bytes=GB)
    with path.open("r+b") as file:
        file.seek(8448)
        file.write(b"\0\0\0\0\0\0")
    assert builder.fill([*keys], maker(keys)) == 2
    # in new places, as the reader may still look into the old one
    assert path.stat().st_size == 5 * 8448
    reader.close()
    builder.close()
    alone = EmbeddingCache.open(reader.directory, spec(), max_bytes=GB)
    assert alone.fill([key(9)], maker([key(9)])) == 1
    assert path.stat().st_size == 5 * 8448
    wanted = [*keys, key(9)]
    assert all(torch.equal(alone.read(each), torch.from_numpy(numbers(each))) for each in wanted)


def test_looking_at_rows_is_noted_and_keeps_them(filled, key, spec):
    cache = filled(2)
    backdated(cache, [key(0), key(1)])
    os.utime(cache.directory / spec().name / "lease", (1000, 1000))
    silent = EmbeddingCache(cache.directory, spec(), max_bytes=GB, counts_as_use=False)
    assert silent.missing([key(0), key(1)]) == []
    assert silent.verify() == 2
    silent.close()
    assert groups(cache.directory)[0].used == 1000
    found = EmbeddingCache.open(cache.directory, spec(), max_bytes=GB)
    assert found._group.places[key(0)].used == 1000
    found.missing([key(1)])
    found._group.refresh()
    assert found._group.places[key(0)].used == 1000
    assert found._group.places[key(1)].used > 10**9
    assert groups(cache.directory)[0].used > 10**9


def test_what_is_not_ours_is_neither_counted_nor_removed(filled, spec, tmp_path):
    cache = filled(2)
    held = total_bytes(cache.directory)
    old(cache, 1000)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "group.json").write_text("{}")
    (cache.directory / ("0" * 32)).symlink_to(outside)
    (cache.directory / ("1" * 32)).mkdir()
    (cache.directory / ("1" * 32) / "photograph.png").write_bytes(b"x" * 10_000)
    (cache.directory / "notes.txt").write_bytes(b"x" * 10_000)
    (cache.directory / ("." + "removed-00")).mkdir()
    killed = cache.directory / ".removed-0123abcd"
    killed.mkdir()
    (killed / "rows-01234567-00000.bin").write_bytes(b"x" * 1000)
    assert total_bytes(cache.directory) == held + 1000
    assert [group.path.name for group in groups(cache.directory)] == [spec().name]
    assert len(prune(cache.directory, max_bytes=0, before=None).removed) == 1
    assert total_bytes(cache.directory) == 0
    assert not killed.exists()
    assert sorted(path.name for path in cache.directory.iterdir()) == [
        ".removed-00",
        "0" * 32,
        "1" * 32,
        "lock",
        "notes.txt",
    ]
    assert (outside / "group.json").exists()


def test_pruning_by_size_and_by_age(filled, spec):
    specs = [spec(stage=f"tokens-{block}") for block in range(4)]
    caches = [filled(5, each) for each in specs]
    for number, cache in enumerate(caches):
        os.utime(cache.directory / cache.spec.name / "lease", (1000 * number, 1000 * number))
        if number != 1:
            old(cache, 1000 * number)
    directory = caches[0].directory
    each = total_bytes(directory) // 4
    assert prune(directory, max_bytes=5 * each, before=None).removed == ()
    pruned = prune(directory, max_bytes=2 * each, before=None)
    # the one in use stays, so the next goes
    assert [group.spec.stage for group in pruned.removed] == ["tokens-0", "tokens-2"]
    assert [group.spec.stage for group in pruned.in_use] == ["tokens-1"]
    assert prune(directory, max_bytes=None, before=2500).removed == ()
    caches[1].close()
    os.utime(directory / specs[1].name / "lease", (1000, 1000))
    assert [group.spec.stage for group in prune(directory, max_bytes=None, before=2500).removed] == ["tokens-1"]
    assert present(caches[0], specs) == [False, False, False, True]


def test_a_removed_group_begins_anew(filled, key, maker, spec):
    cache = filled(2)
    cache.close()
    prune(cache.directory, max_bytes=0, before=None)
    with pytest.raises(CacheMiss):
        cache.read(key(0))
    assert cache.fill([key(0)], maker([key(0)])) == 1


def test_groups_of_a_directory_that_is_not_there(tmp_path):
    assert groups(tmp_path / "nowhere") == []
    assert total_bytes(tmp_path / "nowhere") == 0


def test_a_limit_lowered_below_what_is_held_removes_others_and_goes_on(filled, key, maker, spec):
    specs = [spec(stage=f"tokens-{block}") for block in range(2)]
    old(filled(20, specs[0]), 1000)
    first = filled(4, specs[1])
    first.close()
    backdated(first, [key(number) for number in range(4)])
    limited = EmbeddingCache.open(first.directory, specs[1], max_bytes=ROW)
    wanted = [key(9)]
    assert limited.fill(wanted, maker(wanted)) == 1  # in the place of an old row
    assert present(first, specs) == [False, True]
