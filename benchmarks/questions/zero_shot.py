"""How well does the small SAM segment what it never saw, follow clicks, and know how good its masks are?"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.processes import run_side
from benchmarks.record import Figure, Outcome, figure, usable_cores

QUESTION = "the packaged nano on nuclei and rings, which it never saw: boxes, points, clicks, scores, automatic masks"
QUICK = False

NUCLEI_BOX, NUCLEI_POINT, RINGS_BOX, RINGS_ALL, FILE_MB = 0.71, 0.60, 0.55, 0.50, 20.0
CLICKS = {1: None, 3: 0.65, 5: 0.69, 8: 0.71}
CORRECTION, WORSE = 0.0, 0.15
CALIBRATION = {"box": 0.05, "point": 0.10, "best": None}
AUTOMATIC, DEMO_RECALL, DEMO_PRECISION = 0.25, 0.4, 0.5

_FIGURES = (
    ("nuclei_test", "box", "nuclei test, tight boxes", NUCLEI_BOX),
    ("nuclei_test", "point", "nuclei test, one point, single mask", NUCLEI_POINT),
    ("nuclei_test", "multimask", "nuclei test, one point, of three masks the one predicted best", None),
    ("nuclei_test", "oracle", "nuclei test, one point, of three masks the one that is best", None),
    ("rings_test", "box", "rings test, tight boxes", RINGS_BOX),
    ("rings_all", "box", "rings train and test, tight boxes", RINGS_ALL),
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
    with tempfile.TemporaryDirectory() as demo:
        measured = run_side("zero_shot", [*arguments, "--demo", demo, *chosen], threads=threads)
    return Outcome(
        settings={"threads": threads, "prompts": "tight boxes; pixel farthest from the edge"},
        checks={
            "measured on": described(measured["sets"]),
            "weights": f"{measured['source']}, SHA-256 {measured['sha256']}",
        },
        figures=[
            *figures(measured["sets"], None if weights is None else weights.stat().st_size),
            *useful_figures(measured),
        ],
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


def useful_figures(measured: dict[str, Any]) -> list[Figure]:
    """Corrections, calibration of predicted IoU, and automatic masks with the settings of the weights."""
    corrections, automatic, demo = (measured[name] for name in ("corrections", "automatic", "automatic_demo"))
    after = corrections["clicks"]
    found = [
        figure(
            f"clicks_{count}",
            f"nuclei test, {count} click{'' if count == 1 else 's'}: IoU",
            after[count - 1],
            limit=limit,
            relation=">=",
        )
        for count, limit in CLICKS.items()
    ]
    gain = corrections["box_corrected"] - corrections["box"]
    found += [
        figure("worse", "nuclei test, objects worse after 8 clicks than after 1", corrections["worse"], limit=WORSE),
        figure(
            "correction", "nuclei test, gain of IoU by one click after a box", gain, limit=CORRECTION, relation=">="
        ),
    ]
    found += [
        figure(
            f"calibration_{prompt}",
            f"nuclei test, calibration error of predicted IoU, {what}",
            measured["calibration"][prompt]["error"],
            limit=CALIBRATION[prompt],
        )
        for prompt, what in (("box", "boxes"), ("point", "one point"), ("best", "best of three masks"))
    ]
    found += [
        figure(
            f"bias_{prompt}",
            f"nuclei test, predicted IoU less actual IoU, {what}",
            measured["calibration"][prompt]["bias"],
        )
        for prompt, what in (("box", "boxes"), ("point", "one point"), ("best", "best of three masks"))
    ]
    return [
        *found,
        figure(
            "automatic_ap", "nuclei test, automatic masks: AP at 0.5", automatic["ap"], limit=AUTOMATIC, relation=">="
        ),
        figure("automatic_recall", "nuclei test, automatic masks: recall at 0.5", automatic["recall"]),
        figure("automatic_precision", "nuclei test, automatic masks: precision at 0.5", automatic["precision"]),
        figure(
            "demo_recall", "demo test, automatic masks: recall at 0.5", demo["recall"], limit=DEMO_RECALL, relation=">="
        ),
        figure(
            "demo_precision",
            "demo test, automatic masks: precision at 0.5",
            demo["precision"],
            limit=DEMO_PRECISION,
            relation=">=",
        ),
    ]
