"""Does `predict` keep up with the parts that it runs?"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.processes import run, run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores
from benchmarks.settings import one_step

QUESTION = "predict on images of 512 px with boxes, INT8 parts: its rate against that of encoder and decoder alone"
QUICK = False

BACKEND = "int8"
QUANTISED = ["subset=4", "max_drop=100"]


@dataclass(frozen=True)
class Scale:
    """How much is predicted.

    Attributes:
        images: Of one call; a call of `warm` images less is what the rate is not made of: starting, loading, ending.
        warm: Images of the shorter call.
        side: Of the images, in pixels.
        boxes: In each image.
        rounds: How often each side is measured.
        model: Which one.
    """

    images: int
    warm: int
    side: int
    boxes: int
    rounds: int
    model: str


FULL = Scale(images=220, warm=20, side=512, boxes=8, rounds=3, model="nano")
SMALL = Scale(images=4, warm=1, side=64, boxes=2, rounds=1, model="tiny_random")


def measure(*, rehearse: bool) -> Outcome:
    """Train one step so that there is a run, make its parts, and let both sides take turns."""
    scale, threads = SMALL if rehearse else FULL, usable_cores()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        _draw(scale, place)
        run(one_step(scale.model, scale.side, place / "run", train=8), directory=place)
        for command, options in (("merge", []), ("export", ["precision=fp32"]), ("quantize", QUANTISED)):
            sys.stderr.write(f"  {command}\n")
            words = [command, f"run={place / 'run'}", *options]
            run([sys.executable, "-m", "lora_sam.cli", *words], directory=place)
        parts = [
            "--parts", str(place / "run" / "openvino" / BACKEND), "--images", str(scale.images - scale.warm),
            "--boxes", str(scale.boxes), "--side", str(scale.side),
        ]  # fmt: skip
        sides = {
            "predict": lambda: _per_image(scale, place, threads),
            "parts": lambda: float(run_side("predict_parts", parts, threads=threads)["seconds"]),
        }
        seconds = take_turns(sides, scale.rounds)
        masks = _masks(place / "out" / "coco.json")
    if masks != scale.images * scale.boxes:
        raise BenchmarkError(f"predict wrote {masks} masks for {scale.images * scale.boxes} boxes")
    return Outcome(
        settings={
            "images": scale.images - scale.warm, "side": scale.side, "boxes in each": scale.boxes, "model": scale.model,
            "backend": BACKEND, "threads": threads, "rounds": scale.rounds,
        },
        checks={"masks": f"{masks:,}, one for each box"},
        figures=figures(seconds["predict"], seconds["parts"]),
        details={"seconds per image": seconds},
    )  # fmt: skip


def figures(predict: Sequence[float], parts: Sequence[float]) -> list[Figure]:
    """The share, of rounds measured one after the other, and both rates."""
    shares = [alone / whole for whole, alone in zip(predict, parts, strict=True)]
    return [
        figure("share", "rate of predict / rate of encoder and decoder alone", median(shares), limit=0.9, relation=">=",
               interval=(min(shares), max(shares))),
        figure("predict", "predict, images per second", 1 / median(predict), unit="1/s"),
        figure("parts", "encoder and decoder alone, images per second", 1 / median(parts), unit="1/s"),
    ]  # fmt: skip


def _draw(scale: Scale, place: Path) -> None:
    """Images of drawn ellipses, as PNG, and a CSV of boxes, of which each is the same in all images."""
    from PIL import Image

    from lora_sam.data.drawn.synthetic import draw_ellipse

    rng = np.random.default_rng(0)
    near = scale.side // 4
    boxes = [(x, y, x + near, y + near) for x, y in rng.integers(0, scale.side - near, (scale.boxes, 2)).tolist()]
    (place / "images").mkdir()
    lines = ["image,x1,y1,x2,y2"]
    for number in range(scale.images):
        pixels = rng.normal(70, 20, (scale.side, scale.side, 3))
        for _ in range(scale.boxes):
            draw_ellipse(rng, pixels)
        name = f"{number:04}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / "images" / name, compress_level=1)
        lines += [",".join([name, *map(str, box)]) for box in boxes]
    (place / "boxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _per_image(scale: Scale, place: Path, threads: int) -> float:
    """Seconds that another image takes the command: what is left of a long call without what a short one takes."""
    short, long = (_call(place, count, threads) for count in (scale.warm, scale.images))
    return (long - short) / (scale.images - scale.warm)


def _call(place: Path, images: int, threads: int) -> float:
    words = [
        f"run={place / 'run'}", f"source={place / 'images'}", f"prompts={place / 'boxes.csv'}", f"backend={BACKEND}",
        f"output={place / 'out'}", "overwrite=true", "formats=[coco]", "tile=off", f"max_images={images}",
    ]  # fmt: skip
    seen = run_side(
        "watched",
        ["--directory", str(place), sys.executable, "-m", "lora_sam.cli", "predict", *words],
        threads=threads,
    )
    return float(seen["seconds"])


def _masks(path: Path) -> int:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return len(content["annotations"])
