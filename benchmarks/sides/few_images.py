"""Fine-tune on 2 to 10 images with the defaults, and as it was before: `python -m benchmarks.sides.few_images`.

Each cell that is not in `benchmarks/results/few_images.jsonl` is measured and added there, the decisive ones first,
until $BENCHMARK_SECONDS have passed. The seed draws the images and that of the run; the test images never change.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.needs import labelled_sets
from benchmarks.record import RESULTS
from benchmarks.settings import settings_for
from benchmarks.sides.defaults import DRAW, Kept, mean, scores, trained
from benchmarks.sides.defaults import measured as iou_of

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits

FILE = RESULTS / "few_images.jsonl"
TESTED = 16
SHARED = (
    "model=nano", "model.image_size=256", "trainer.validation_objects=8", "trainer.class_head=false", "tracker=none",
    "data.max_objects_per_image=8",
)  # fmt: skip
SETS = {
    "nuclei": ("data=coco", f"data.root={labelled_sets() / 'nuclei'}"),
    "textured": ("data=drawn_textured", "data.train=60", "data.val=1", f"data.test={TESTED}"),
    "photographic": ("data=drawn_photographic", "data.train=60", "data.val=1", f"data.test={TESTED}"),
    "thin": ("data=drawn_thin", "data.train=60", "data.val=1", f"data.test={TESTED}"),
}
# how few images are parted, and whether they are cross-validated
RULES: dict[str, tuple[int, tuple[str, ...]]] = {
    "before": (0, ("trainer.cross_validate=0",)),
    "now": (10, ()),
    "all train, nothing else": (10, ("trainer.cross_validate=0",)),
}
KEYS = ("set", "method", "images", "seed", "rule")


def cells() -> Iterator[dict[str, Any]]:
    """Every cell, the decisive ones first."""
    for images, method in itertools.product((2, 5, 10), ("decoder", "lora")):
        for seed, name, rule in itertools.product((0, 1, 2), ("nuclei", "textured"), RULES):
            yield {"set": name, "method": method, "images": images, "seed": seed, "rule": rule}
    for seed, name, rule in itertools.product((0, 1, 2), ("photographic", "thin"), RULES):
        yield {"set": name, "method": "decoder", "images": 2, "seed": seed, "rule": rule}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; `arguments` name sets, methods or numbers of images to measure only those."""
    import torch

    torch.set_num_threads(1)
    wanted = set(sys.argv[1:] if arguments is None else arguments)
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.is_file() else []
    known = {tuple(row[key] for key in KEYS) for row in map(json.loads, lines)}
    end = time.monotonic() + float(os.environ.get("BENCHMARK_SECONDS", "inf"))
    opened: dict[str, Splits] = {}
    base: dict[Any, Any] = {}
    for cell in cells():
        told = {str(cell["set"]), str(cell["method"]), str(cell["images"]), str(cell["rule"])}
        if tuple(cell[key] for key in KEYS) in known or not wanted <= told:
            continue
        if time.monotonic() > end:
            break
        row = measured(cell, opened, base)
        with FILE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        sys.stderr.write(f"{row}\n")
    return 0


def measured(cell: dict[str, Any], opened: dict[str, Splits], bases: dict[Any, Any]) -> dict[str, Any]:
    """What came of one cell.

    Args:
        cell: See `cells`.
        opened: Sets that are open, by name.
        bases: Base models by their settings, and what they score.
    """
    import torch

    from lora_sam.predictors.torch_predictor import TorchPredictor

    least, words = RULES[cell["rule"]]
    settings = settings_for(*SETS[cell["set"]], *SHARED, f"method={cell['method']}", *words, f"seed={cell['seed']}")
    if cell["set"] not in opened:
        opened[cell["set"]] = settings.data.open(DRAW)
    splits = parted(opened[cell["set"]], cell["images"], cell["seed"], least)
    if settings.model not in bases:
        bases[settings.model] = settings.model.build()
    base = bases[settings.model]
    if cell["set"] not in bases:
        bases[cell["set"]] = scores(TorchPredictor(base.sam, base.image_size), splits.test, settings)
    tested = bases[cell["set"]]
    clock = time.process_time()
    validated = iou_of(TorchPredictor(base.sam, base.image_size), splits.val, settings)
    torch.manual_seed(cell["seed"])
    with tempfile.TemporaryDirectory() as directory:
        found = trained(settings, splits, copy.deepcopy(base), Path(directory), validated)
    return {
        **cell,
        "base_sha256": base.sha256,
        "splits": [len(splits.train), len(splits.val), len(splits.test)],
        "epochs": settings.trainer.max_epochs,
        "base_iou": round(mean(tested), 5),
        "tuned_iou": round(mean(found["tuned"] or tested), 5),
        "kept_step": found["best_step"],
        "steps": found["steps"],
        "validation_iou": [[step, round(value, 5)] for step, value in found["validation_iou"]],
        "cross_validation": found["cross_validation"],
        "cpu_seconds": round(time.process_time() - clock, 1),
    }


def parted(splits: Splits, images: int, seed: int, few_images: int) -> Splits:
    """A few images, parted as a folder without a val split would be; the test images are always the same.

    Args:
        splits: The whole set.
        images: How many labelled images there are.
        seed: Draws them, and parts them as a run with that seed does.
        few_images: `data.few_images`.
    """
    from lora_sam.core.config import from_conf
    from lora_sam.data.reading.skipping import Ledger
    from lora_sam.data.reading.split_reading import read_splits
    from lora_sam.data.shots import few_shot
    from lora_sam.data.splits import Subset

    few = Kept(few_shot(splits, images, seed).train)
    test = Kept(Subset(splits.test, tuple(range(min(TESTED, len(splits.test))))))
    options = from_conf("data/folder", root="none", few_images=few_images)
    return read_splits(
        lambda split, notes: {"train": few, "test": test}.get(split),  # notes are the reader's
        Ledger("raise", 0.0),
        options,
        seed=seed,
        place=lambda split: split,
    )


if __name__ == "__main__":
    sys.exit(main())
