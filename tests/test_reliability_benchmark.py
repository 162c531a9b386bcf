"""The benchmark of reliability: that it kills where it says, and sees what it is there to see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.questions import reliability
from benchmarks.reliability.forked import REFUSED, Kill, forked, started
from benchmarks.reliability.jobs import Clock, Tally, names_in, temporary_names
from benchmarks.reliability.kills import Operation, _disturb, _kills
from benchmarks.sides.reliability import PARTS
from lora_sam.core.errors import DataError
from lora_sam.core.files import atomic_directory, write_text


def write(place: Path, number: int) -> Callable[[], None]:
    def act() -> None:
        with atomic_directory(place / "result") as made:
            for name in ("a", "b"):
                (made / name).write_text(str(number))

    return act


def write_badly(place: Path, number: int) -> Callable[[], None]:
    """In place, a file after the other, which are renamed at once all the same."""

    def act() -> None:
        (place / "result").mkdir(exist_ok=True)
        for name in ("a", "b"):
            (place / "result" / name).write_text(str(number))
            os.replace(place / "result" / name, place / "result" / name)

    return act


def check(place: Path) -> str | None:
    found = {path.read_text() for path in (place / "result").glob("*")}
    return None if len(found) == 1 else f"{len(found)} generations"


def test_a_fork_ends_as_it_should() -> None:
    assert forked(lambda: 42).answer == 42

    def refuse() -> None:
        raise DataError("no")

    refused = forked(refuse)
    assert (refused.code, refused.answer) == (REFUSED, "no")
    broken = forked(lambda: 1 // 0)
    assert broken.code == 1
    assert "ZeroDivisionError" in broken.said
    assert started(lambda: None)() == 0


def test_it_is_killed_at_each_point_and_at_none(tmp_path: Path) -> None:
    def work() -> int:
        write_text(tmp_path / "file", "new")
        return 1

    whole = forked(work)
    assert whole.points >= 3  # the file, its name, the directory
    for point in range(1, whole.points + 1):
        for after in (False, True):
            ended = forked(work, Kill(point, after=after))
            assert ended.killed
            assert ended.answer is None
    assert not forked(work, Kill(whole.points + 1)).killed
    assert forked(lambda: __import__("time").sleep(60), Kill(seconds=0.01)).killed
    assert os.replace.__module__ == "posix"  # only forks are watched


@pytest.mark.parametrize(("act", "sound"), [(write, True), (write_badly, False)])
def test_what_writes_badly_is_found_out(act: Callable[..., Any], sound: bool, tmp_path: Path) -> None:
    import random

    (tmp_path / "finished").mkdir()
    tally = Tally()
    operation = Operation("something", act, check, lasts=True)
    _disturb(operation, tmp_path, tmp_path / "finished", 12, Clock(60), random.Random(0), tally)
    assert tally.counts["kills"] >= 6
    assert ("lost" in tally.counts) != sound
    assert names_in(tmp_path / "something") == {"result", "result/a", "result/b"}
    assert temporary_names(tmp_path / "something") == []


def test_kills_are_spread_over_all_points() -> None:
    import random

    kills = _kills(20, 1.0, 10, random.Random(0))
    points = [kill.point for kill in kills if kill.point is not None]
    assert (points[0], points[-1], len(kills)) == (1, 20, 10)
    assert all(0 <= kill.seconds <= 1 for kill in kills if kill.seconds is not None)


def test_each_part_has_its_figures() -> None:
    assert set(reliability.PARTS) == set(reliability.REHEARSED) == set(reliability.NEVER) == set(PARTS)
    assert {*sum(reliability.BESIDE, ()), *reliability.ALONE} == set(PARTS)
    longest = max(sum(reliability.PARTS[name][1] for name in line) for line in reliability.BESIDE)
    assert longest + sum(reliability.PARTS[name][1] for name in reliability.ALONE) <= 1800
    counts: dict[str, dict[str, int]] = {name: {} for name in PARTS}
    assert all(one.ok for one in reliability.figures(counts) if one.relation == "<=" and one.limit is not None)
    assert "disks_same_directory" not in {one.id for one in reliability.figures(counts)}  # nobody tried
    counts["disks"] = {"runs in the same second": 3, "same directory": 1}
    counts["flips"] = {"flips": 200, "silent": 1}
    counts["peaks"] = {"MiB above the model: 2000 boxes in one image": 2000}
    figures = {one.id: one for one in reliability.figures(counts)}
    assert figures["flips"].ok
    assert not figures["flips_silent"].ok
    assert not figures["disks_same_directory"].ok
    assert not figures["peak_0"].ok
    assert not figures["kills"].ok
