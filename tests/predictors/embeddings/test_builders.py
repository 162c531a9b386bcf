"""Who makes which row, whoever is killed, stopped or slow meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lora_sam.predictors.embeddings import signs
from lora_sam.predictors.embeddings.store import EmbeddingCache

GB = 10**9


def test_eight_processes_make_each_row_once(tmp_path, spec, key, same, maker, fork):
    keys = [key(number) for number in range(12)]

    def fill(start: int) -> None:
        mine = keys[start:] + keys[:start]  # each in another order
        cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
        made = cache.fill(mine, maker(mine, tmp_path / "made"), batch=2)
        assert all(same(cache, each) for each in keys)
        (tmp_path / f"count-{start}").write_text(str(made))

    processes = [fork(fill, start) for start in range(8)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert len((tmp_path / "made").read_text().split()) == 12
    assert sum(int(path.read_text()) for path in tmp_path.glob("count-*")) == 12


@pytest.mark.parametrize("moment", ["making", "writing", "renaming"])
def test_a_killed_builder_is_followed_at_once(tmp_path, spec, key, same, maker, fork, monkeypatch, moment):
    keys = [key(number) for number in range(6)]

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def build() -> None:
        make = maker(keys, tmp_path / "made")
        write = Path.write_bytes

        def half(path, data):
            write(path, data[: len(data) // 2])
            die()

        def make_or_die(positions):
            made = make(positions)
            if 3 in positions:
                if moment == "making":
                    die()
                elif moment == "writing":
                    monkeypatch.setattr(Path, "write_bytes", half)
                else:
                    monkeypatch.setattr(os, "replace", die)
            return made

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
    assert all(same(cache, each) for each in keys)
    # the row that was being made, and no other, was made twice
    assert sorted((tmp_path / "made").read_text().split()) == ["0", "1", "2", "3", "3", "4", "5"]
    # and what was left of it has gone with it, the signs of who was killed too
    assert not [path for path in cache.directory.rglob("*") if path.name.endswith("-tmp")]
    assert not list(cache.directory.glob("*/builders/*"))
    assert len(list(cache.directory.glob("*/users/*"))) == 1
    assert list((cache.directory / spec().name / "builders").iterdir()) == []


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


def test_a_child_that_ends_does_not_let_go_of_what_its_parent_holds(filled, spec, fork):
    cache = filled(1)
    users = cache.directory / spec().name / "users"
    (user,) = users.iterdir()

    def end() -> None:
        cache.close()

    process = fork(end)
    process.join(30)
    assert process.exitcode == 0
    assert list(users.iterdir()) == [user]
    cache.close()
    assert list(users.iterdir()) == []


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
    assert (told[0], told[-1]) == ((0, 3), (3, 3))
    assert len((tmp_path / "made").read_text().split()) == 3


def test_a_row_that_somebody_makes_does_not_keep_others_from_making_the_next(tmp_path, spec, key, maker):
    keys = [key(number) for number in range(3)]
    other = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    given: list[int] = []

    def make(positions):
        if not given:
            given.append(-1)
            assert other.fill(keys[1:], maker(keys[1:])) == 2
        given.extend(positions)
        return maker(keys)(positions)

    cache = EmbeddingCache.open(tmp_path, spec(), max_bytes=GB)
    assert cache.fill(keys, make) == 1
    assert given == [-1, 0]


STOPPED = """
import os, signal, sys
from pathlib import Path
from lora_sam.predictors.embeddings.store import EmbeddingCache
from tests.predictors.embeddings.conftest import SPEC, making
def make(todo):
    print("making", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return making([sys.argv[2]])(todo)
with EmbeddingCache.open(Path(sys.argv[1]), SPEC, max_bytes=10**9) as cache:
    print(cache.fill([sys.argv[2]], make))
"""


def test_a_stopped_builder_is_not_waited_for_and_harms_nothing_when_it_goes_on(
    tmp_path, spec, key, same, maker, monkeypatch
):
    assert signs.PATIENCE_SECONDS + 5 * signs.BEAT_SECONDS <= 30
    monkeypatch.setattr(signs, "PATIENCE_SECONDS", 0.3)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, tmp_path / "cache", key(1)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "making\n"
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        cache = EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB)
        keys = [key(1), key(2)]
        made: list[list[int]] = []
        assert cache.fill(keys, lambda positions: made.append(positions) or maker(keys)(positions)) == 2
        assert made == [[1], [0]]  # first what nobody makes
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "1\n"
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert all(same(cache, each) for each in keys)
    assert list((cache.directory / spec().name / "builders").iterdir()) == []


def test_a_builder_of_another_machine_that_is_silent_is_not_waited_for(filled, key, same, maker, monkeypatch):
    monkeypatch.setattr(signs, "PATIENCE_SECONDS", 0.2)
    cache = filled(0)
    builders = cache.directory / cache.spec.name / "builders"
    builders.mkdir()
    (builders / key(0)).write_text("elsewhere/ 1 00\n")
    (builders / key(1)).touch()  # killed before it had written who it is
    keys = [key(0), key(1)]
    assert cache.fill(keys, maker(keys)) == 2
    assert all(same(cache, each) for each in keys)
    assert list(builders.iterdir()) == []


def test_a_slow_builder_is_waited_for(tmp_path, spec, key, maker, monkeypatch):
    monkeypatch.setattr(signs, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(signs, "BEAT_SECONDS", 0.02)
    keys, begun = [key(1)], threading.Event()
    make = maker(keys)

    def slowly(todo):
        begun.set()
        time.sleep(1.5)
        return make(todo)

    def build():
        with EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB) as cache:
            cache.fill(keys, slowly)

    builder = threading.Thread(target=build)
    builder.start()
    begun.wait()
    assert EmbeddingCache.open(tmp_path / "cache", spec(), max_bytes=GB).fill(keys, make) == 0
    builder.join()
