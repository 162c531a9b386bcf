"""How much faster is training the mask decoder when each image is encoded once?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "Training the mask decoder of ViT-B at 1024 px from cached embeddings, against encoding at every step"
QUICK = True

TOLERANCE = 1e-3  # of losses in fp32
EPOCHS = 20
LAST = 5  # epochs at the end, when every view of every image is there
IMAGES = 5  # of which one each is set aside for validation and test

_CACHED = "ours, cached"
_OURS = "ours, encoding at every step"
_PREDICTOR = "SamPredictor, encoding at every step"


def measure(*, rehearse: bool) -> Outcome:
    """Draw a set, check that all sides compute the same, then let them take turns."""
    from benchmarks.sides.loader import write

    rounds = 1 if rehearse else 2
    side_length = 128 if rehearse else 1024
    threads = min(2, usable_cores())
    overrides = ["model=tiny_random" if rehearse else "model=vit_b", "model.weights=random"]
    with tempfile.TemporaryDirectory() as temporary:
        root, number = Path(temporary), 0
        write(root / "data", IMAGES, 1, (side_length, side_length))

        def side(name: str) -> Callable[[], dict[str, Any]]:
            def run() -> dict[str, Any]:
                nonlocal number
                number += 1  # an empty cache for everyone
                places = ["--data", str(root / "data"), "--cache", str(root / f"cache{number}")]
                options = ["--epochs", str(EPOCHS), "--threads", str(threads)]
                return run_side("cached_epoch", [name, *places, *options, *overrides], threads=threads)

            return run

        compared, reopened = side("compare")(), side("reopen")()
        checks = _check(compared, reopened)
        sides = {_CACHED: side("cached"), _OURS: side("ours"), _PREDICTOR: side("predictor")}
        measured = take_turns(sides, rounds)
    for one in measured[_CACHED]:
        if any(share < 1 for epoch in one["hits"] for share in epoch):
            raise BenchmarkError("the cached side encoded images while it trained: what was timed is not the cache")
    return Outcome(
        settings={
            "overrides": overrides,
            "image": [side_length, side_length],
            "training_images": measured[_CACHED][0]["images"],
            "batch_size": 1,
            "boxes": 1,
            "epochs": EPOCHS,
            "threads": threads,
            "rounds": rounds,
            "seconds_of_an_epoch": "images x the median of its steps; cached: of the last "
            f"{LAST} epochs; encoding at every step: of one epoch",
        },
        checks=checks,
        figures=_figures(measured, reopened),
        details={"compared": compared, "reopened": reopened, "sides": measured},
    )


def _check(compared: dict[str, Any], reopened: dict[str, Any]) -> dict[str, str]:
    if any(share < 1 for share in compared["hits"]):
        raise BenchmarkError("the cached side of the comparison encoded images while it trained")
    pairs = zip(compared["cached"], compared["re_encoding"], strict=True)
    largest = max(abs(one - other) for one, other in pairs)
    first = compared["predictor"][0]
    if largest > TOLERANCE or abs(first - compared["re_encoding"][0]) > TOLERANCE:
        raise BenchmarkError(
            f"the sides do not compute the same: over an epoch losses from the cache differ by {largest:.2e}, the "
            f"first loss is {compared['re_encoding'][0]:.6f}, SamPredictor's {first:.6f}; {TOLERANCE} is allowed"
        )
    if reopened["difference"] > TOLERANCE:
        raise BenchmarkError(
            f"an embedding from the cache differs from a new one by {reopened['difference']:.2e}, {TOLERANCE} is "
            "allowed"
        )
    return {
        "losses in fp32": f"first step: {compared['cached'][0]:.6f} from the cache, {compared['re_encoding'][0]:.6f} "
        f"encoding, {first:.6f} with SamPredictor; over an epoch, cached and not, they differ by {largest:.1e} at most",
        "embedding": f"from the predictor's cache, in fp32, it differs from a new one by {reopened['difference']:.1e}",
    }


def _epoch_seconds(run: dict[str, Any]) -> float:
    """Images times the median of the steps: of the last epochs, or of the only one."""
    steps = run["step_seconds"]
    if not isinstance(steps[0], list):
        return float(len(steps) * statistics.median(steps))
    return float(len(steps[0]) * statistics.median(value for epoch in steps[-LAST:] for value in epoch))


def _steps_seconds(run: dict[str, Any]) -> float:
    return float(sum(sum(epoch) for epoch in run["step_seconds"]))


def _fetch_share(run: dict[str, Any]) -> float:
    step = statistics.median(value for epoch in run["step_seconds"][-LAST:] for value in epoch)
    return float(statistics.median(run["fetch_seconds"]) / step)


def _figures(measured: dict[str, list[dict[str, Any]]], reopened: dict[str, Any]) -> list[Figure]:
    cached, ours, peer = (measured[name] for name in (_CACHED, _OURS, _PREDICTOR))
    precision = ours[0]["precision"]
    build = [sum(run["build_seconds"]) for run in cached]
    with_build = [sum(run["build_seconds"]) + _steps_seconds(run) for run in cached]
    epoch = [_epoch_seconds(run) for run in cached]
    ours_epoch, peer_epoch = ([_epoch_seconds(run) for run in runs] for runs in (ours, peer))
    many = [EPOCHS * value for value in ours_epoch]
    again = float(reopened["remembered"] + reopened["forgotten"])
    return [
        _times("epoch_ours", f"decoder-only epoch, times as fast: encoding at every step (our encoder) / cached, "
               f"both {precision} here (goal 45)", ours_epoch, epoch, 25),
        _times("epoch_predictor", "decoder-only epoch, times as fast: SamPredictor (fp32) at every step / cached "
               f"({precision} here: another precision) (goal 70)", peer_epoch, epoch, 40),
        _times("epochs_with_build", f"decoder-only, {EPOCHS} epochs, times as fast: encoding at every step (our "
               f"encoder) / cached, both {precision} here, building the cache included (goal 12)", many, with_build, 8),
        _times("epochs_without_build", f"decoder-only, {EPOCHS} epochs, times as fast: the same without building the "
               "cache", many, [_steps_seconds(run) for run in cached], None),
        figure("fetch", "reading a row of the cache / a decoder-only step (goal 0.005)",
               [_fetch_share(run) for run in cached], limit=0.02),
        figure("reopened", "runs of the image encoder when an image is opened in the predictor again: once remembered, "
               "once from the cache", again, limit=0.0),
        figure("seconds_cached", f"{_CACHED}: time of an epoch", epoch, unit="s"),
        figure("seconds_ours", f"{_OURS} ({precision} here): time of an epoch", ours_epoch, unit="s"),
        figure("seconds_predictor", f"{_PREDICTOR} (fp32): time of an epoch", peer_epoch, unit="s"),
        figure("seconds_build", "building the cache, all views of the training images, in fp32", build, unit="s"),
        figure("fetch_ms", "reading a row of the cache",
               [1e3 * statistics.median(run["fetch_seconds"]) for run in cached], unit="ms"),
        figure("row_mb", "size of a row of the cache, float16", cached[0]["row_bytes"] / 1e6, unit="MB"),
    ]  # fmt: skip


def _times(name: str, what: str, theirs: list[float], ours: list[float], limit: float | None) -> Figure:
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    value = statistics.median(theirs) / statistics.median(ours)
    return figure(name, what, ratios, value=value, limit=limit, relation=">=")
