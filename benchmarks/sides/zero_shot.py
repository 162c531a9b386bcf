"""Score a SAM that was not fine-tuned on labelled images: boxes, points, and the three masks of a point."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.settings import settings_for
from benchmarks.usefulness import automatic_of, calibration_of, corrections_of
from lora_sam.core.structures import Prompts, Sample
from lora_sam.data.splits import Splits
from lora_sam.evaluation.comparison import summarize
from lora_sam.evaluation.metrics import ImageScores, score_image
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.prompts import BoxPrompt, PointPrompt

SEED = 0
CHUNK = 16
BOX = BoxPrompt(jitter="uniform", jitter_pixels=0.0, jitter_fraction=0.0, jitter_evaluation=False)
POINT = PointPrompt(farthest_share=1.0)

Scored = dict[str, list[ImageScores]]
"""Scores of images by what was prompted, and how."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of all sets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="directory with the sets nuclei and rings")
    parser.add_argument("--checkpoint", type=Path, help="weights; those of the package if left out")
    parser.add_argument("--demo", type=Path, required=True, help="directory for the drawn images of the demo")
    parser.add_argument("--images", type=int, help="of every split, only the first so many")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="of the nuclei; val chooses weights")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(given.threads)
    model: Any = settings_for(*given.overrides).model
    if given.checkpoint is not None:
        model = dataclasses.replace(model, checkpoint=str(given.checkpoint))
    base = model.build()
    predictor = TorchPredictor(base.sam, base.image_size, chunk=CHUNK, scores=base.scores)
    nuclei = _splits("coco", given.data / "nuclei")
    rings = _splits("folder", given.data / "rings")
    chosen = getattr(nuclei, given.split)
    rings_test = scores_of(predictor, _samples(given.images, rings.test), points=False)
    rings_rest = scores_of(predictor, _samples(given.images, rings.train, rings.val), points=False)
    scored = {
        f"nuclei_{given.split}": scores_of(predictor, _samples(given.images, chosen), points=True),
        "rings_test": rings_test,
        "rings_all": {"box": rings_test["box"] + rings_rest["box"]},
    }
    sets = {name: figures_of(scores) for name, scores in scored.items()}
    washers = dataclasses.replace(_demo(), root=str(given.demo)).open(SEED)
    useful = {
        "corrections": corrections_of(predictor, _samples(given.images, chosen)),
        "calibration": calibration_of(predictor, _samples(given.images, chosen)),
        "automatic": automatic_of(predictor, _samples(given.images, chosen), AutomaticMasks()),
        "automatic_demo": automatic_of(predictor, _samples(given.images, washers.test), AutomaticMasks()),
    }
    print(json.dumps({"source": base.source, "sha256": base.sha256, "sets": sets, **useful}))
    return 0


def scores_of(predictor: TorchPredictor, samples: Iterable[Sample], *, points: bool) -> Scored:
    """Scores of every sample with tight boxes as `box`, and with `points` also with one point per object.

    Those are `point`, the single mask; `multimask`, of the three masks that with the highest predicted IoU; and
    `oracle`, that with the highest IoU. Every image is encoded once.
    """
    scored: Scored = {name: [] for name in ("box", *(("point", "multimask", "oracle") if points else ()))}
    for sample in samples:
        scored["box"].append(
            _score(sample, predictor.predict(sample.image, BOX.evaluation_prompts(sample, SEED)).masks)
        )
        if points:
            prompts = POINT.evaluation_prompts(sample, SEED)
            scored["point"].append(_score(sample, predictor.predict(sample.image, prompts).masks))
            three, predicted = score_three(predictor, sample, prompts)
            scored["multimask"].append(pick(three, predicted.argmax(axis=1)))
            scored["oracle"].append(pick(three, np.stack([one.iou for one in three], axis=1).argmax(axis=1)))
    return scored


def score_three(
    predictor: TorchPredictor, sample: Sample, prompts: Prompts
) -> tuple[list[ImageScores], NDArray[np.float32]]:
    """Scores of the first, second and third mask for ambiguous prompts, and their predicted IoU [N, 3]."""
    from lora_sam.data.transforms import logits_to_original, points_to_input_frame
    from lora_sam.models.decoding import decode_masks

    assert prompts.points is not None
    assert prompts.labels is not None
    embedding = predictor.embedder.embed(sample.image)
    points = torch.from_numpy(points_to_input_frame(prompts.points, sample.size, predictor.frame))
    labels = torch.from_numpy(prompts.labels)
    masks: list[list[NDArray[np.bool_]]] = [[], [], []]
    predicted = []
    for start in range(0, len(prompts), CHUNK):
        part = slice(start, start + CHUNK)
        with torch.no_grad():
            logits, iou = decode_masks(
                predictor.sam, embedding, boxes=None, points=points[part], labels=labels[part], multimask=True
            )
        predicted.append(iou.numpy())
        for index, kept in enumerate(masks):
            kept.append((logits_to_original(logits[:, index], sample.size, predictor.frame) > 0).numpy())
    return [_score(sample, np.concatenate(kept)) for kept in masks], np.concatenate(predicted)


def pick(scores: Sequence[ImageScores], choice: NDArray[np.intp]) -> ImageScores:
    """Of several scores of the same N objects, those of `scores[choice[n]]` for object n."""
    first = scores[0]
    rows = np.arange(len(first.object_ids))
    whole = ("id", "object_ids", "further", "group")
    names = [field.name for field in dataclasses.fields(first) if field.name not in whole]

    def of(name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.stack([one.column(name) for one in scores])[choice, rows]
        return found

    picked: dict[str, Any] = {name: of(name) for name in names}
    return dataclasses.replace(first, **picked, further={name: of(name) for name in first.further})


def figures_of(scored: Scored) -> dict[str, Any]:
    """`images`, `objects`, and what `lora_sam.evaluation.metrics.summarize` says of each kind of prompt."""
    boxes = scored["box"]
    return {
        "images": len(boxes),
        "objects": sum(len(image.object_ids) for image in boxes),
        **{name: summarize(scores, SEED) for name, scores in scored.items()},
    }


def _score(sample: Sample, masks: NDArray[np.bool_]) -> ImageScores:
    return score_image(sample.id, sample.object_ids, masks, sample.masks)


def _demo() -> Any:
    return settings_for("data=demo").data


def _splits(kind: str, root: Path) -> Splits:
    data: Any = settings_for(f"data={kind}").data
    splits: Splits = dataclasses.replace(data, root=str(root)).open(SEED)
    return splits


def _samples(limit: int | None, *sources: Any) -> Iterable[Sample]:
    for source in sources:
        for index in range(len(source))[:limit]:
            yield source[index]


if __name__ == "__main__":
    sys.exit(main())
