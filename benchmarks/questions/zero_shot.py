"""How well does the small SAM segment what it never saw, before any fine-tuning?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.packaged import packaged_nano
from benchmarks.processes import run_side
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure, usable_cores

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
    """Score the packaged weights, and beside them the interim ones where they are there."""
    data = data_directory()
    threads = usable_cores()
    arguments = ["--data", str(data), "--threads", str(threads)]
    if rehearse:
        measured = {
            "tiny_random": run_side("zero_shot", [*arguments, "--images", "1", "model=tiny_random"], threads=threads)
        }
        weights = None
    else:
        weights = packaged_nano()
        measured = {}
        for name, checkpoint in {"nano": weights, **_interim()}.items():
            sys.stderr.write(f"  {name}\n")
            chosen = ["--checkpoint", str(checkpoint), "model=nano"]
            measured[name] = run_side("zero_shot", [*arguments, *chosen], threads=threads)
    first = next(iter(measured.values()))
    return Outcome(
        settings={"models": list(measured), "threads": threads, "prompts": "tight boxes; pixel farthest from the edge"},
        checks={"measured on": described(first["sets"]), "weights": f"{first['source']}, SHA-256 {first['sha256']}"},
        figures=figures(first["sets"], None if weights is None else weights.stat().st_size),
        details={"models": measured},
    )


def data_directory() -> Path:
    """Directory of the sets, absolute. Raises `BenchmarkError` where one of them is not there."""
    directory = Path(os.environ.get("LORA_SAM_DATA", ROOT.parent / "shared" / "data")).resolve()
    for name in ("nuclei", "rings"):
        if not (directory / name).is_dir():
            raise BenchmarkError(
                f"{directory / name} is not there. This benchmark needs the sets nuclei and rings under "
                "$LORA_SAM_DATA; docs/data.md says what they are and where they come from."
            )
    return directory


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


def _interim() -> dict[str, Path]:
    directory = Path(os.environ.get("LORA_SAM_WEIGHTS", ROOT.parent / "shared" / "weights")).resolve()
    path = directory / "sam_nano_interim.safetensors"
    return {"interim": path} if path.is_file() else {}
