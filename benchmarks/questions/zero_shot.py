"""How well does the small SAM segment what it never saw, before any fine-tuning?"""

from __future__ import annotations

from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.processes import run_side
from benchmarks.record import Figure, Outcome, figure, usable_cores

QUESTION = "IoU of the packaged nano on nuclei and rings, which it never saw: boxes, and one point per object"
QUICK = False

NUCLEI_BOX, NUCLEI_POINT, RINGS_BOX, FILE_MB = 0.70, 0.45, 0.55, 20.0

_FIGURES = (
    ("nuclei_test", "box", "nuclei test, tight boxes", NUCLEI_BOX),
    ("nuclei_test", "point", "nuclei test, one point, single mask", NUCLEI_POINT),
    ("nuclei_test", "multimask", "nuclei test, one point, of three masks the one predicted best", None),
    ("nuclei_test", "oracle", "nuclei test, one point, of three masks the one that is best", None),
    ("rings_test", "box", "rings test, tight boxes", RINGS_BOX),
    ("rings_all", "box", "rings train and test, tight boxes", None),
)


def measure(*, rehearse: bool) -> Outcome:
    """Score the packaged weights."""
    data = data_directory()
    threads = usable_cores()
    arguments = ["--data", str(data), "--threads", str(threads)]
    if rehearse:
        weights, chosen = None, ["--images", "1", "model=tiny_random"]
    else:
        weights, chosen = packaged_nano(), ["model=nano"]
    measured = run_side("zero_shot", [*arguments, *chosen], threads=threads)
    return Outcome(
        settings={"threads": threads, "prompts": "tight boxes; pixel farthest from the edge"},
        checks={
            "measured on": described(measured["sets"]),
            "weights": f"{measured['source']}, SHA-256 {measured['sha256']}",
        },
        figures=figures(measured["sets"], None if weights is None else weights.stat().st_size),
        details=measured,
    )


def described(sets: dict[str, Any]) -> str:
    """`nuclei_test 42 images, 1,860 objects; ...`."""
    return "; ".join(f"{name} {one['images']:,} images, {one['objects']:,} objects" for name, one in sets.items())


def figures(sets: dict[str, Any], file_bytes: int | None) -> list[Figure]:
    """Mean IoU per object with 95 % intervals over images, and the size of the weights where they are a file."""
    found = [
        figure(
            f"{name}_{prompt}",
            f"{what}: IoU",
            sets[name][prompt]["iou"],
            limit=limit,
            relation=">=",
            interval=tuple(sets[name][prompt]["iou_interval"]),
        )
        for name, prompt, what, limit in _FIGURES
    ]
    if file_bytes is not None:
        found.append(figure("file", "file of the packaged weights", file_bytes / 1e6, unit="MB", limit=FILE_MB))
    return found
