"""How long does the small SAM take to encode an image on a laptop's processor?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.needs import packaged_nano
from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "Time to encode one image with nano at 512 px on the CPU"
QUICK = True

ENCODE_MS = 150.0
TOLERANCE = 1e-3  # of the embedding, relative to its largest value

_SIDES = {
    "fp32": "encode one image, fp32",
    "bf16": "encode one image, bf16 autocast",
    "peer": "encode one image, segment_anything's own encoder, fp32",
}


def measure(*, rehearse: bool) -> Outcome:
    """Check that the encoders compute the same, then let them take turns on all cores."""
    rounds, repeats = (1, 2) if rehearse else (3, 10)
    threads = usable_cores()
    overrides = ["model=tiny_random"] if rehearse else ["model=nano", "model.checkpoint=null"]
    if not rehearse:
        packaged_nano()

    def side(name: str) -> Callable[[], dict[str, Any]]:
        arguments = [name, "--threads", str(threads), "--repeats", str(repeats), *overrides]
        return lambda: run_side("encode", arguments, threads=threads)

    compared = side("compare")()
    checks = check_same(compared)
    measured = take_turns({name: side(name) for name in _SIDES}, rounds)
    return Outcome(
        settings={"overrides": overrides, "threads": threads, "rounds": rounds, "repeats": repeats, "batch_size": 1},
        checks=checks,
        figures=figures(measured),
        details={"compared": compared, "sides": measured},
    )


def check_same(compared: dict[str, Any]) -> dict[str, str]:
    """What was compared, for people. Raises `BenchmarkError` where ours and the peer's embedding differ."""
    allowed = TOLERANCE * compared["largest"]
    if compared["peer"] > allowed:
        raise BenchmarkError(
            f"our encoder and segment_anything's do not compute the same: embeddings differ by {compared['peer']:.2e}, "
            f"{allowed:.2e} is allowed"
        )
    shape = " x ".join(map(str, compared["shape"]))
    return {
        "weights": f"{compared['source']}, {compared['encoder_parameters']:,} parameters in the encoder",
        "embeddings": f"{shape}, values up to {compared['largest']:.2g}; segment_anything's encoder differs by "
        f"{compared['peer']:.1e}, bf16 by {compared['bf16']:.1e}",
    }


def figures(measured: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Medians in milliseconds over the encodings of all rounds, by side."""
    found = [
        figure(name, what, _milliseconds(measured[name], "seconds"), unit="ms", limit=limit)
        for (name, what), limit in zip(_SIDES.items(), (ENCODE_MS, None, None), strict=True)
    ]
    what = "read from memory, resize (640 x 480) and encode, fp32"
    return [*found, figure("embed", what, _milliseconds(measured["fp32"], "embed_seconds"), unit="ms")]


def _milliseconds(runs: list[dict[str, Any]], key: str) -> list[float]:
    return [1e3 * seconds for run in runs for seconds in run[key]]
