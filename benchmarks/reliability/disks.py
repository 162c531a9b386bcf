"""Disks that are full or read-only, two runs in one second, a builder that was stopped: one line, and nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.reliability.forked import REFUSED, Ended, forked, started
from benchmarks.reliability.jobs import TINY, Clock, Tally, step, temporary_names, trainer
from benchmarks.reliability.kills import Operation, operations

MEGABYTE = 2**20
FREE = (0, 16_384, 131_072, MEGABYTE)  # bytes left when a command begins
SIZE = 24 * MEGABYTE
LONGEST_WAIT = 30.0


def measure(root: Path, tries: int, seconds: float, seed: int) -> Tally:
    """Every writing command on disks with little room, and on one that can only be read; then the rest."""
    del seed
    tally = Tally()
    finished = root / "finished"
    made = [forked(trainer(TINY, finished)), forked(step("merge", finished))]
    made.append(forked(step("export", finished, precision="fp32", min_iou=0.0)))
    if any(one.code for one in made):
        tally.wrong("broken", "; ".join(str(one.answer or one.said[-200:]) for one in made if one.code))
        return tally
    clock = Clock(seconds)
    _same_second(root, tally)
    _stopped_builder(root, tally)
    commands = [*operations().values(), _training(), _evaluating()]
    for free in (*FREE, None):  # None: read-only
        for operation in commands:
            if tally.counts.get("commands on a bad disk", 0) >= tries or clock.left <= 0:
                break
            try:
                _on_a_bad_disk(operation, root, finished, free, tally)
            except OSError as error:  # no right to mount
                tally.add(f"not tried: {error.strerror or error}"[:80])
    return tally


@contextmanager
def _disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "reliability", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        raise OSError(done.returncode, "cannot mount a file system in memory")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


def _on_a_bad_disk(operation: Operation, root: Path, finished: Path, free: int | None, tally: Tally) -> None:
    with _disk(root / "disk") as disk:
        place = disk / "run"
        shutil.copytree(finished, place)
        if forked(operation.act(place, 0)).code:
            tally.wrong("broken", operation.name)
            return
        if not operation.lasts:
            shutil.rmtree(place / "made", ignore_errors=True)
        act = operation.act(place, 1)
        if free is None:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            usage = os.statvfs(disk)
            (disk / "filler").write_bytes(bytes(max(0, usage.f_bavail * usage.f_frsize - free)))
        ended = forked(act, temporary=root)
        tally.add("commands on a bad disk")
        what = f"{operation.name}, {'read-only' if free is None else f'{free} bytes free'}"
        if ended.code == REFUSED and str(ended.answer).count("\n") == 0:
            tally.add("refused in one line")
        elif ended.code == 0:
            tally.add("had room enough" if free is not None else "had nothing to write")
        else:
            tally.wrong("crashed", f"{what}: {ended.answer or ended.said.strip().splitlines()[-1:]}")
        problem = operation.check(place)
        if problem:
            tally.wrong("lost", f"{what}: {problem}")
        if left := temporary_names(place):
            tally.wrong("leftovers", f"{what}: {left[:3]}")
        if free is None:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        else:
            (disk / "filler").unlink()
        again = forked(operation.act(place, 2))
        if again.code or operation.check(place):
            tally.wrong("not mended", f"{what}: {again.answer or again.said[-200:]}")


def _training() -> Operation:
    def act(place: Path, number: int) -> Callable[[], None]:
        return trainer([*TINY, "trainer.max_steps=2"], place / f"again_{number}")

    return Operation("training", act, lambda place: None, lasts=True)


def _evaluating() -> Operation:
    def check(place: Path) -> str | None:
        from lora_sam.core.errors import LoraSamError
        from lora_sam.core.run_directory import RunDirectory
        from lora_sam.evaluation.backends.result import read_backends

        try:
            read_backends(RunDirectory(place).backends, "")
        except LoraSamError as error:
            return str(error)
        return None

    def act(place: Path, number: int) -> Callable[[], int]:
        return step("evaluate", place, backends=["fp32"], repeats=1, mask_threshold=float(number))

    return Operation("evaluate", act, check, lasts=True)


def _same_second(root: Path, tally: Tally) -> None:
    """Two command lines at once: each has a directory of its own, or is refused."""
    work = root / "second"
    work.mkdir()

    def command() -> None:
        from lora_sam.cli.train import run_train

        os.chdir(work)
        code = run_train("train.py", [*TINY, "trainer.max_steps=1"])
        if code:
            raise SystemExit(code)

    codes = [ended() for ended in [started(command) for _ in range(3)]]
    runs = [
        path.parent for path in (work / "outputs").rglob("adapter/adapter_config.json") if "latest" not in path.parts
    ]
    tally.add("runs in the same second", len(codes))
    done = sum(code == 0 for code in codes)
    if done != len(runs) or done == 0:
        tally.wrong("same directory", f"{done} ended well, {len(runs)} results, codes {codes}")


def _stopped_builder(root: Path, tally: Tally) -> None:
    """A run is stopped while it fills the cache; another one needs the same rows."""
    cache = [f"cache.directory={root / 'shared'}", "method=decoder", "augmentation=none", "data.train=24"]
    overrides = [*(one for one in TINY if not one.startswith("method.")), *cache]
    alone = forked(trainer([*overrides, f"cache.directory={root / 'own'}"], root / "alone"))
    builder = started(trainer(overrides, root / "builder"))
    deadline = time.monotonic() + 60
    while not (root / "shared").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(builder.pid, signal.SIGSTOP)
    other: Ended = forked(trainer(overrides, root / "other"))
    os.kill(builder.pid, signal.SIGCONT)
    code = builder()
    tally.add("stopped builders")
    waited = max(0.0, other.seconds - alone.seconds)
    tally.add("seconds that a stopped builder delayed another run", round(waited))
    if other.code or code:
        tally.wrong("crashed", f"beside a stopped builder: {other.code}, the builder: {code} {other.said[-200:]}")
