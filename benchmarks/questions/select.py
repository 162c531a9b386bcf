"""Are the images that `lora-sam select` chooses worth more than as many at random?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.over_seeds import by_place
from benchmarks.processes import run_side
from benchmarks.record import BenchmarkError, Figure, Outcome, figure
from benchmarks.sides.select import DECODER
from lora_sam.core.files import sha256_of
from lora_sam.evaluation.over_seeds import mean_over_seeds

QUESTION = "lora-sam select against images at random: gain of IoU from 5 labelled images of nuclei, decoder-only"
QUICK = False

MEASURED = {"images": 5, "draws": 10, "steps": 100, "val": 16, "test": 16, "pool": 52}
REHEARSED = {"images": 2, "draws": 2, "steps": 2, "val": 1, "test": 1, "pool": 4}


def measure(*, rehearse: bool) -> Outcome:
    """One image at random for each draw; four more by coverage, and four at random; the same training on both."""
    told = REHEARSED if rehearse else MEASURED
    weights = packaged_nano()
    words = [str(data_directory() / "nuclei"), *(f"--{name}={value}" for name, value in told.items())]
    runs = run_side("select", words, threads=1)["runs"]
    if not rehearse:
        check_trained(runs)
    return Outcome(
        settings={
            **told,
            "overrides": list(DECODER),
            "weights": sha256_of(weights)[:8],
            "intervals": "95 %, over draws and test images: images for all draws together, errors of draws by "
            "Student's t; paired",
        },
        checks={"base": check_base(runs), "first image": "the same for both ways of choosing in every draw"},
        figures=figures(runs),
        details={"runs": runs},
    )


def check_base(runs: Sequence[dict[str, Any]]) -> str:
    """That all measured the same base on the same images. Raises `BenchmarkError` if not."""
    found = {(round(one["base_iou"], 9), len(one["per_image"])) for one in runs}
    firsts = {(one["draw"], one["places"][0]) for one in runs}
    if len(found) > 1 or len(firsts) > len({one["draw"] for one in runs}):
        raise BenchmarkError(f"draws are not comparable: base {sorted(found)}, first images {sorted(firsts)}")
    ((iou, images),) = found
    return f"test IoU {iou:.4f} on {images} images in all trainings"


def check_trained(runs: Sequence[dict[str, Any]]) -> None:
    """That there is something to compare. Raises `BenchmarkError` where most trainings kept the base."""
    kept = sum(one["gain"] == 0 for one in runs)
    if 2 * kept > len(runs):
        raise BenchmarkError(f"{kept} of {len(runs)} trainings kept the base: that is no comparison of images")


def figures(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """The gain of both, and what selecting adds."""
    of = {how: [one["per_image"] for one in runs if one["how"] == how] for how in ("selected", "random")}
    pairs = [
        by_place([(a[0], a[1] - b[1]) for a, b in zip(one, other, strict=True)])
        for one, other in zip(of["selected"], of["random"], strict=True)
    ]
    more, between = mean_over_seeds(pairs, 0)
    found = [
        figure("more", "gain of test IoU from selected images − from images at random (goal +20 % of the gain)",
               100 * more, unit="points", limit=0.0, relation=">=", interval=_points(between))
    ]  # fmt: skip
    for how, shown in (("selected", "5 images, 4 of them selected"), ("random", "5 images at random")):
        mean, interval = mean_over_seeds([by_place([(row[0], row[1]) for row in one]) for one in of[how]], 0)
        found.append(
            figure(how, f"{shown}: gain of test IoU", 100 * mean, unit="points", interval=_points(interval))
        )  # fmt: skip
    better = sum(sum(count * more for count, more in one.values()) > 0 for one in pairs)
    return [*found, figure("draws", f"draws in which the selected gained more, of {len(pairs)}", better)]


def _points(interval: Sequence[float]) -> tuple[float, float]:
    low, high = interval
    return 100 * low, 100 * high
