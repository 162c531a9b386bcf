"""Train on images that select would choose, and on as many at random: the same first image, base, steps and tests."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")
HOW = ("selected", "random")
NANO = ("model=nano", "model.image_size=256")
DECODER = (*NANO, "method=decoder", "data=coco", "data.max_objects_per_image=8")
"""The mask decoder at the defaults, as in `benchmarks/results/few_images.jsonl`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, for each draw and way of choosing, the images and what the training on them reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="the set nuclei")
    for name in ("images", "draws", "steps", "val", "test", "pool"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args(arguments)
    sets = {split: _read(given.data / "annotations" / f"instances_{split}.json") for split in SPLITS}
    pool = _spread(sets["train"]["images"], given.pool)
    features, likenesses = _looked_at([given.data / "images" / "train" / one["file_name"] for one in pool])
    chosen: list[dict[str, Any]] = [
        {"draw": draw, "how": how, "places": places}
        for draw in range(given.draws)
        for how, places in _choices(features, likenesses, given.images, draw).items()
    ]
    fixed = {split: _spread(sets[split]["images"], getattr(given, split)) for split in ("val", "test")}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for number, one in enumerate(chosen):
            images = {"train": [pool[place] for place in one["places"]], **fixed}
            _write(root / f"set_{number:02d}", given.data, sets, images)
            one["images"] = [image["file_name"] for image in images["train"]]
        reports = _trained(root, len(chosen), given.steps)
    print(json.dumps({"runs": [one | report for one, report in zip(chosen, reports, strict=True)]}))
    return 0


def _choices(features: Any, likenesses: Sequence[Any], count: int, draw: int) -> dict[str, list[int]]:
    """Places of a first image at random, and of those that are added to it: by coverage, and at random."""
    from lora_sam.data.reading.duplicates import alike
    from lora_sam.evaluation.choosing import ranked

    order = [int(place) for place in np.random.default_rng(draw).permutation(len(features))]
    first, others = order[0], sorted(order[1:])

    def same(one: int, two: int) -> bool:
        return any(True for _ in alike([likenesses[others[one]]], [likenesses[others[two]]]))

    found = ranked(features[[first]], features[others], None, count - 1, same)
    return {"selected": [first, *(others[place] for place, _ in found)], "random": order[:count]}


def _looked_at(paths: Sequence[Path]) -> tuple[Any, list[Any]]:
    """What select looks at: features of the embeddings of the base, which training the decoder leaves as they are."""
    from benchmarks.settings import settings_for
    from lora_sam.data.reading.duplicates import likeness
    from lora_sam.data.reading.images import read_image
    from lora_sam.evaluation.choosing import described
    from lora_sam.predictors.torch_predictor import TorchPredictor

    base = settings_for(*NANO).model.build()
    predictor = TorchPredictor(base.sam.eval(), base.image_size)
    features, likenesses = [], []
    for path in paths:
        image = read_image(path)
        extent = predictor.frame.extent((image.shape[0], image.shape[1]))
        features.append(described(predictor.embedding(image), extent, predictor.frame.side))
        likenesses.append(likeness(image))
    return np.stack(features), likenesses


def _trained(root: Path, count: int, steps: int) -> list[dict[str, Any]]:
    """What each set reached, trained one after the other in this process."""
    from lora_sam.cli.train import run_train

    words = [
        "-m",
        *DECODER,
        f"data.root={','.join(str(root / f'set_{number:02d}') for number in range(count))}",
        "augmentation=none",
        "tracker=none",
        f"trainer.max_steps={steps}",
        "trainer.max_epochs=null",
        "trainer.validate_every_epochs=4",
        "trainer.validation_objects=8",
        "trainer.early_stopping.patience=null",
        "trainer.least_rise=0",  # so few validation images tell no rise from chance: most would keep the base
        "trainer.class_head=false",
        "trainer.overlays=0",
        f"cache.directory={root / 'cache'}",
        f"hydra.sweep.dir={root / 'swept'}",
    ]
    with (root / "said.txt").open("w") as said, redirect_stdout(said):
        code = run_train("train.py", words)
    if code:
        raise SystemExit(f"a training failed: {(root / 'said.txt').read_text()[-500:]}")
    reports = [_read(root / "swept" / str(number) / "evaluation.json") for number in range(count)]
    return [
        {
            "base_iou": report["base"]["iou"],
            "gain": report["delta"]["iou"],
            "kept_step": report["validation"]["kept_step"],
            "per_image": [[one["objects"], one["tuned_iou"] - one["base_iou"]] for one in report["per_image"]],
        }
        for report in reports
    ]


def _spread(images: Sequence[Any], count: int) -> list[Any]:
    """`count` of them, evenly over the list."""
    places = sorted({round(place) for place in np.linspace(0, len(images) - 1, min(count, len(images)))})
    return [images[place] for place in places]


def _write(root: Path, data: Path, sets: dict[str, Any], images: dict[str, list[Any]]) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, kept in images.items():
        names = {one["id"] for one in kept}
        content = sets[split] | {
            "images": kept,
            "annotations": [one for one in sets[split]["annotations"] if one["image_id"] in names],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
        (root / "images" / split).mkdir(parents=True)
        for one in kept:
            shutil.copy(data / "images" / split / one["file_name"], root / "images" / split)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
