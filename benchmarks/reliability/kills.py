"""kill -9 at every rename, fsync and mkdir, and at random: is a result lost, half there, or litter left for good?"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.forked import Kill, forked
from benchmarks.reliability.jobs import (
    TINY,
    Clock,
    Tally,
    digest_of_state,
    names_in,
    state_of,
    step,
    temporary_names,
    trainer,
)

RANDOM_SHARE = 0.3


@dataclass(frozen=True)
class Operation:
    """Something that writes, again and again, over what it wrote before.

    Attributes:
        name: What it is.
        act: Given a place and a number, what writes; another number writes something else.
        check: Given a place, whether what is there is whole, as a message or None. Nothing there is None, too.
        lasts: Whether something has to be there at all times.
    """

    name: str
    act: Callable[[Path, int], Callable[[], Any]]
    check: Callable[[Path], str | None]
    lasts: bool


def measure(root: Path, tries: int, seconds: float, seed: int) -> Tally:
    """Kill each operation some times, a share of `tries` each, within `seconds`."""
    tally, draws = Tally(), random.Random(seed)
    finished = root / "finished"
    ended = forked(trainer(TINY, finished))
    if ended.code:
        tally.wrong("broken", f"training: {ended.said[-300:]}")
        return tally
    forked(step("merge", finished))
    forked(step("export", finished, precision="fp32", min_iou=0.0))
    shares = {
        "save": 0.16,
        "demo data": 0.12,
        "merge": 0.24,
        "export": 0.1,
        "quantize": 0.06,
        "training": 0.24,
        "cache": 0.08,
    }
    every = operations()
    whole = sum(shares.values())
    for name, share in shares.items():
        clock = Clock(seconds * share / whole)
        count = max(2, round(tries * share / whole))
        if name in every:
            _disturb(every[name], root, finished, count, clock, draws, tally)
        else:
            _disturb_training(root, name == "cache", count, clock, draws, tally)
    return tally


def operations() -> dict[str, Operation]:
    """What writes, by name; training apart."""
    return {one.name: one for one in (_save(), _demo_data(), _merge(), _export(), _quantize())}


def _places(root: Path, number: int) -> Path:
    """A `$TMPDIR`; every other one in memory."""
    base = Path("/dev/shm") if number % 2 and Path("/dev/shm").is_dir() else root
    place = base / f"reliability-{os.getpid()}-tmp"
    place.mkdir(exist_ok=True)
    return place


def _kills(points: int, seconds: float, count: int, draws: random.Random) -> list[Kill]:
    """At points evenly over all of them, before and after in turn; the rest at random times."""
    at_random = round(RANDOM_SHARE * count)
    chosen = [round(1 + place * (points - 1) / max(1, count - at_random - 1)) for place in range(count - at_random)]
    return [Kill(point, after=bool(number % 2)) for number, point in enumerate(chosen)] + [
        Kill(seconds=draws.uniform(0, seconds)) for _ in range(at_random)
    ]


def _disturb(
    operation: Operation, root: Path, finished: Path, count: int, clock: Clock, draws: random.Random, tally: Tally
) -> None:
    place, name = root / operation.name.replace(" ", "_"), operation.name
    shutil.copytree(finished, place)
    first = forked(operation.act(place, 0))
    if first.code or operation.check(place):
        tally.wrong("broken", f"{name}: {operation.check(place)} {first.said[-300:]}")
        return
    if not operation.lasts:  # a data set is made once, at a new place
        shutil.rmtree(place / "made")
    reference = names_in(place)
    for number, kill in enumerate(_kills(first.points, first.seconds, count, draws), 1):
        if clock.left <= 0:
            break
        before = operation.check(place)
        ended = forked(operation.act(place, number), kill, temporary=_places(root, number))
        tally.add("kills" if ended.killed else "ended before")
        tally.add(f"kills: {name}", int(ended.killed))
        problem = operation.check(place)
        if problem and not before:
            tally.wrong("lost", f"{name}, {kill}: {problem}")
        if not operation.lasts and (place / "made").exists():
            shutil.rmtree(place / "made")
    ended = forked(operation.act(place, count + 1))
    if ended.code or operation.check(place):
        tally.wrong("lost", f"{name}, the next one: {operation.check(place)} {ended.said[-300:]}")
    if not operation.lasts:
        shutil.rmtree(place / "made", ignore_errors=True)
    left = sorted(names_in(place) - reference)
    if left:
        tally.wrong("leftovers", f"{name}: {', '.join(left[:5])}")
    tally.add("successes after kills")


def _disturb_training(root: Path, cached: bool, count: int, clock: Clock, draws: random.Random, tally: Tally) -> None:
    """Kill a run, go on from what it saved or anew, and compare with one that was left alone."""
    name = "cache" if cached else "training"
    place = root / f"runs_{name}"
    place.mkdir()

    def overrides(cache: str) -> list[str]:
        more = ["method=decoder", "augmentation=none", f"cache.directory={place / cache}"] if cached else []
        return [*(one for one in TINY if not (cached and one.startswith("method."))), *more]

    whole = forked(trainer(overrides("cache_of_whole"), place / "whole"))
    if whole.code:
        tally.wrong("broken", f"{name}: {whole.said[-300:]}")
        return
    wanted, reference = digest_of_state(place / "whole"), names_in(place / "whole")
    cache_names = len(names_in(place / "cache_of_whole")) if cached else 0
    for number, kill in enumerate(_kills(whole.points, whole.seconds, count, draws)):
        if clock.left <= 0:
            break
        run, on = place / f"killed_{number}", place / f"on_{number}"
        ended = forked(trainer(overrides("cache"), run), kill, temporary=_places(root, number))
        tally.add("kills" if ended.killed else "ended before")
        tally.add(f"kills: {name}", int(ended.killed))
        saved = state_of(run).is_file()
        next_one = forked(trainer(overrides("cache"), on, run if saved else None))
        if next_one.code:
            tally.wrong("lost", f"{name}, {kill}: {next_one.answer or next_one.said[-300:]}")
        elif digest_of_state(on) != wanted:
            tally.wrong("other bits", f"{name}, {kill}: {'resumed' if saved else 'anew'}")
        elif names_in(on) != reference:
            tally.wrong("leftovers", f"{name}: {sorted(names_in(on) ^ reference)[:5]}")
        tally.add("resumed after a kill" if saved else "anew after a kill")
        tally.add("successes after kills")
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(on, ignore_errors=True)
    if cached:
        left = temporary_names(place / "cache")
        if left or len(names_in(place / "cache")) > cache_names + 8:
            tally.wrong("leftovers", f"cache: {(left or sorted(names_in(place / 'cache')))[:5]}")


def _save() -> Operation:
    import torch

    from lora_sam.training.state import Progress, load_state, save_state

    def parameters(value: float) -> dict[str, torch.nn.Parameter]:
        return {name: torch.nn.Parameter(torch.full((64, 64), value)) for name in ("a", "b", "c")}

    def act(place: Path, number: int) -> Callable[[], None]:
        return lambda: save_state(place / "state.safetensors", Progress(step=number), parameters(float(number)))

    def check(place: Path) -> str | None:
        from lora_sam.core.errors import LoraSamError

        found = parameters(-1.0)
        try:
            progress = load_state(place / "state.safetensors", found)
        except LoraSamError as error:
            return str(error)
        same = all(bool((value == progress.step).all()) for value in found.values())
        return None if same else "values of another step"

    return Operation("save", act, check, lasts=True)


def _demo_data() -> Operation:
    def act(place: Path, number: int) -> Callable[[], int]:
        from lora_sam.core.config import from_conf

        data = from_conf("data/demo", root=str(place / "made"), train=2, val=1, test=1, side=128)
        return lambda: len(data.open(0).train)

    def check(place: Path) -> str | None:
        made = place / "made"
        if not made.exists() or not any(made.iterdir()):
            return None
        names = (
            json.loads((made / "generated.json").read_text())["files"] if (made / "generated.json").is_file() else None
        )
        if names is None:
            return "there without its manifest"
        missing = [name for name in names if not (made / name).is_file() or not (made / name).stat().st_size]
        return f"without {missing[0]}" if missing else None

    return Operation("demo data", act, check, lasts=False)


def _checked(place: Callable[[Path], Path], name: str) -> Callable[[Path], str | None]:
    """Whether a step's directory is whole, by its manifest."""
    from lora_sam.core.errors import LoraSamError
    from lora_sam.runs.manifest import read_step, require_step

    def check(root: Path) -> str | None:
        try:
            require_step(place(root), name, read_step(place(root), name, "").made_from, "")
        except LoraSamError as error:
            return str(error)
        return None

    return check


def _merge() -> Operation:
    return Operation(
        "merge",
        lambda place, number: step("merge", place, alpha=0.5 + number / 1000),
        _checked(lambda root: root / "merged", "merge"),
        lasts=True,
    )


def _export() -> Operation:
    return Operation(
        "export",
        # a share that is always reached, so that each time it is another request with another result
        lambda place, number: step("export", place, precision="fp32", min_iou=0.0, multimask=_other(place)),
        _checked(lambda root: root / "openvino" / "fp32", "export"),
        lasts=True,
    )


def _other(place: Path) -> bool:
    manifest = json.loads((place / "openvino" / "fp32" / "manifest.json").read_text())
    return not manifest["settings"]["multimask"]


def _quantize() -> Operation:
    return Operation(
        "quantize",
        lambda place, number: step("quantize", place, mode="int8_weights", max_drop=None, seed=number),
        _checked(lambda root: root / "openvino" / "int8_weights", "quantize"),
        lasts=True,
    )
