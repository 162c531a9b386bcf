"""How much a cache may hold, what goes first, and what stays."""

from __future__ import annotations

import os
import shutil
import time
from collections import namedtuple

import pytest

from lora_sam.predictors.embeddings import signs, store
from lora_sam.predictors.embeddings.eviction import FREE_BYTES, groups, in_use, prune, total_bytes
from lora_sam.predictors.embeddings.rows import row_path, rows_of
from lora_sam.predictors.embeddings.store import CacheMiss, CacheUnavailable, EmbeddingCache

GB = 10**9
ROW = 8448 + 176  # with its header; before the first row of a group is there, 512 are thought of


def used(cache: EmbeddingCache, seconds: float, step: float = 0) -> None:
    """As if the rows of a cache had been wanted last so long ago, the later by key the later."""
    for number, row in enumerate(sorted(rows_of(cache.directory / cache.spec.name))):
        os.utime(row.path, (seconds + step * number,) * 2)


def wanted_in_order(cache: EmbeddingCache, keys) -> None:
    """As if the rows of these keys had been wanted last in this order, long ago."""
    for number, key in enumerate(keys):
        os.utime(row_path(cache.directory / cache.spec.name, key), (1000.0 + number,) * 2)


def there(cache: EmbeddingCache, spec) -> int:
    return sum(row.key is not None for row in rows_of(cache.directory / spec.name))


def test_the_rows_used_least_recently_go_first_whatever_their_group(filled, spec, key, maker):
    specs = [spec(stage=f"tokens-{block}") for block in range(4)]
    for number, when in ((0, 2000), (1, 1000), (2, 3000)):
        cache = filled(20, specs[number])
        cache.close()
        used(cache, when)
    directory = filled(0, specs[3]).directory
    keys = [key(number) for number in range(10)]
    with EmbeddingCache.open(directory, specs[3], max_bytes=total_bytes(directory) + 2 * ROW) as cache:
        assert cache.fill(keys, maker(keys), batch=4) == 10
    assert [there(cache, each) for each in specs] == [20, 11, 20, 10]
    # and those that follow, where one group is not enough
    keys = [key(number) for number in range(40)]
    with EmbeddingCache.open(directory, specs[3], max_bytes=total_bytes(directory) - ROW) as cache:
        assert cache.fill(keys, maker(keys), batch=40) == 30
    assert [there(cache, each) for each in specs] == [0, 0, 20, 40]
    # nothing is left of groups without rows
    assert [(directory / each.name).is_dir() for each in specs] == [False, False, True, True]


def test_rows_in_use_stay(filled, spec, key, maker, same):
    specs = [spec(stage=f"tokens-{block}") for block in range(3)]
    free = filled(20, specs[1])
    free.close()
    used(free, 2000)
    reader = filled(20, specs[0])
    used(reader, 1000)
    keys = [key(number) for number in range(10)]
    with EmbeddingCache.open(reader.directory, specs[2], max_bytes=total_bytes(reader.directory) + ROW) as cache:
        assert cache.fill(keys, maker(keys)) == 10
    assert [there(cache, each) for each in specs] == [20, 10, 10]
    assert all(same(reader, key(number)) for number in range(20))


def test_nothing_goes_where_that_would_not_be_enough(filled, spec, key):
    specs = [spec(stage=f"tokens-{block}") for block in range(2)]
    filled(5, specs[0]).close()
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
    assert [there(cache, each) for each in specs] == [5, 5]


def test_a_full_disk_is_told_before_anything_is_made(filled, key, monkeypatch):
    cache = filled(1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, FREE_BYTES + 10 * ROW))
    keys = [key(number) for number in range(1, 12)]
    with pytest.raises(CacheUnavailable, match=r"the disk of .* can give 8\.62e-05 GB; free some space"):
        cache.fill(keys, lambda positions: pytest.fail("made although there is no room"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 0))
    with pytest.raises(CacheUnavailable, match="can give 0 GB"):
        cache.fill(keys, lambda positions: pytest.fail("made although there is no room"))


def test_a_limit_that_another_process_reaches_first_stops_in_between(filled, key, maker, spec, monkeypatch):
    monkeypatch.setattr(store, "_RECOUNT_SECONDS", 0)
    monkeypatch.setattr(store, "_RECOUNT_SHARE", 0)
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


def test_the_directory_is_listed_once_for_many_rows(filled, key, maker, monkeypatch):
    cache = filled(20)
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    keys = [key(number) for number in range(40)]
    opened = EmbeddingCache.open(cache.directory, cache.spec, max_bytes=GB)
    assert opened.missing(keys[:20]) == []
    assert opened.fill(keys, maker(keys)) == 20
    places = {path for path in listed if len(os.path.basename(path)) == 2}
    assert places
    assert all(listed.count(path) == 1 for path in places)


def test_rows_that_nobody_wants_make_room_in_their_own_group(filled, key, maker, same, spec):
    keys = [key(number) for number in range(30)]
    first = filled(20)
    first.close()
    wanted_in_order(first, [*keys[10:20], *keys[:10]])
    held = total_bytes(first.directory)
    limited = EmbeddingCache.open(first.directory, spec(), max_bytes=held)
    wanted = [*keys[10:13], *keys[20:25]]
    assert limited.fill(wanted, maker(wanted), batch=2) == 5
    assert total_bytes(first.directory) <= held
    assert all(same(limited, each) for each in wanted)
    limited.close()
    # of those not wanted, the ones used least recently went
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


def test_who_was_killed_or_is_silent_does_not_keep_rows(filled, key, maker, spec, fork, monkeypatch):
    cache = filled(1)
    path = cache.directory / spec().name
    cache.close()

    def use() -> None:
        EmbeddingCache.open(cache.directory, spec(), max_bytes=GB)._user = None  # as if it had not been taken down
        EmbeddingCache.open(cache.directory, spec(), max_bytes=GB).missing([key(0)])
        sign = signs.put_up(path / "users" / "ab")
        assert sign is not None
        os._exit(0)

    process = fork(use)
    process.join(30)
    assert (path / "users" / "ab").exists()
    assert not in_use(path)
    assert not (path / "users" / "ab").exists()
    # of another machine only the time tells
    other = path / "users" / "cd"
    other.write_text("elsewhere/ 1 00\n")
    assert in_use(path)
    assert not in_use(path, except_for="cd")
    os.utime(other, (time.time() - signs.GONE_SECONDS - 1,) * 2)
    assert not in_use(path)


def test_a_damaged_row_is_replaced_while_others_read(filled, key, maker, same, spec):
    keys = [key(number) for number in range(4)]
    reader = filled(3)
    assert reader.missing(keys[:3]) == []
    before = reader.read(key(1))["values"]
    builder = EmbeddingCache.open(reader.directory, spec(), max_bytes=GB)
    path = row_path(reader.directory / spec().name, key(1))
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\0\0\0\0\0\0")
    assert builder.fill(keys, maker(keys)) == 2
    assert before.equal(reader.read(key(1))["values"])
    assert all(same(cache, each) for cache in (reader, builder) for each in keys)


def test_wanting_rows_is_noted_and_keeps_them_while_verifying_does_not(filled, key, spec):
    cache = filled(2)
    wanted_in_order(cache, [key(0), key(1)])
    silent = EmbeddingCache(cache.directory, spec(), max_bytes=GB)
    assert silent.verify() == 2
    silent.close()
    assert groups(cache.directory)[0].used == 1001
    found = EmbeddingCache.open(cache.directory, spec(), max_bytes=GB)
    assert groups(cache.directory)[0].used == 1001
    found.missing([key(1)])
    times = [row_path(cache.directory / spec().name, key(number)).stat().st_mtime for number in range(2)]
    assert times[0] == 1000
    assert times[1] > 10**9
    assert groups(cache.directory)[0].used == pytest.approx(times[1], abs=1e-3)


def test_what_is_not_ours_is_neither_counted_nor_removed(filled, key, spec, tmp_path):
    cache = filled(2)
    held = total_bytes(cache.directory)
    cache.close()
    own = cache.directory / spec().name
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "group.json").write_text("{}")
    (cache.directory / ("0" * 32)).symlink_to(outside)
    (own / "aa").symlink_to(outside)
    (outside / f"{key(0)}.safetensors").write_bytes(b"x" * 1000)
    (cache.directory / ("1" * 32)).mkdir()
    (cache.directory / ("1" * 32) / "photograph.png").write_bytes(b"x" * 10_000)
    (cache.directory / "notes.txt").write_bytes(b"x" * 10_000)
    (own / "photograph.png").write_bytes(b"x" * 10_000)
    (own / key(0)[:2] / "photograph.png").write_bytes(b"x" * 10_000)
    # what a killed builder left
    (own / key(0)[:2] / f".{key(0)}.safetensors.0123abcd.lora_sam-tmp").write_bytes(b"x" * 1000)
    assert total_bytes(cache.directory) == held + 1000
    assert [(group.path.name, group.rows) for group in groups(cache.directory)] == [(spec().name, 2)]
    assert len(prune(cache.directory, max_bytes=0, before=None).removed) == 1
    assert total_bytes(cache.directory) == 0
    assert sorted(path.name for path in cache.directory.iterdir()) == sorted(
        ["0" * 32, "1" * 32, spec().name, "notes.txt"]
    )
    assert sorted(path.name for path in own.rglob("*")) == sorted(
        [key(0)[:2], "aa", "group.json", "photograph.png", "photograph.png"]
    )
    assert len(list(outside.iterdir())) == 2


def test_pruning_by_size_and_by_age(filled, spec):
    specs = [spec(stage=f"tokens-{block}") for block in range(4)]
    caches = [filled(5, each) for each in specs]
    for number, cache in enumerate(caches):
        used(cache, 1000 * number)
        if number != 1:
            cache.close()
    directory = caches[0].directory
    each = total_bytes(directory) // 4
    assert prune(directory, max_bytes=5 * each, before=None).removed == ()
    pruned = prune(directory, max_bytes=2 * each, before=None)
    # the one in use stays, so the next goes
    assert [group.spec.stage for group in pruned.removed] == ["tokens-0", "tokens-2"]
    assert [group.spec.stage for group in pruned.in_use] == ["tokens-1"]
    assert prune(directory, max_bytes=None, before=2500).removed == ()
    caches[1].close()
    assert [group.spec.stage for group in prune(directory, max_bytes=None, before=2500).removed] == ["tokens-1"]
    assert [path.name for path in directory.iterdir()] == [specs[3].name]


def test_a_removed_group_begins_anew(filled, key, maker, same, spec):
    cache = filled(2)
    cache.close()
    prune(cache.directory, max_bytes=0, before=None)
    with pytest.raises(CacheMiss):
        cache.read(key(0))
    assert cache.fill([key(0)], maker([key(0)])) == 1
    # also while it is open
    shutil.rmtree(cache.directory)
    assert cache.missing([key(0)]) == [0]
    assert cache.fill([key(0)], maker([key(0)])) == 1
    assert same(cache, key(0))


def test_groups_of_a_directory_that_is_not_there(tmp_path):
    assert groups(tmp_path / "nowhere") == []
    assert total_bytes(tmp_path / "nowhere") == 0


def test_a_limit_lowered_below_what_is_held_removes_others_and_goes_on(filled, key, maker, same, spec):
    specs = [spec(stage=f"tokens-{block}") for block in range(2)]
    other = filled(20, specs[0])
    other.close()
    used(other, 1000)
    first = filled(4, specs[1])
    first.close()
    wanted_in_order(first, [key(number) for number in range(4)])
    limited = EmbeddingCache.open(first.directory, specs[1], max_bytes=ROW)
    wanted = [key(9)]
    assert limited.fill(wanted, maker(wanted)) == 1
    assert [there(first, each) for each in specs] == [0, 1]
    assert same(limited, key(9))
    # where others hold more than that, a row goes for each that comes
    reader = filled(4, specs[0])
    again = EmbeddingCache.open(first.directory, specs[1], max_bytes=ROW)
    limited.close()
    assert again.fill([key(8)], maker([key(8)])) == 1
    assert [there(first, each) for each in specs] == [4, 1]
    reader.close()


def test_rows_of_an_older_format_are_removed_with_one_note(tmp_path, spec, key):
    old = tmp_path / ("c0e269c7243ba99187e395cd26b07f38")
    old.mkdir()
    for name in ("group.json", "lease", "builder", "index.sqlite", "rows-0123abcd-00000.bin"):
        (old / name).write_bytes(b"x" * 1000)
    other = tmp_path / ("d" * 32)
    shutil.copytree(old, other)
    (other / "photograph.png").touch()
    for name in ("lock", "pixels.sqlite"):
        (tmp_path / name).touch()
    assert groups(tmp_path) == []
    assert total_bytes(tmp_path) == 0
    cache = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    assert cache.notes == [f"1e-05 GB in {tmp_path} were of an older format that is not read, and were removed"]
    assert cache.missing([key(0)]) == [0]
    assert EmbeddingCache.open(tmp_path, spec(), max_bytes=GB).notes == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([spec().name, "d" * 32])
    assert [path.name for path in other.iterdir()] == ["photograph.png"]
