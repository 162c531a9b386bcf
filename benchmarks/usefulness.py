"""What a user of a SAM sees beyond one prompt: corrections, scores, and masks that nobody asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.predictor import Predictor, best_of_three
from lora_sam.core.structures import Prompts, Sample
from lora_sam.evaluation.average_precision import ImageDetections, encode_masks, matches
from lora_sam.evaluation.calibration import reliability_of
from lora_sam.evaluation.clicks import iou_after_clicks
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.prompts import PointPrompt
from lora_sam.prompts.clicks import central_click

CLICKS = 8
NEVER = 2.0
"""An IoU that no mask reaches: every object gets all its clicks."""

POINT = PointPrompt(farthest_share=1.0)


def corrections_of(predictor: Predictor, samples: Iterable[Sample]) -> dict[str, Any]:
    """What corrections do, over all objects.

    Returns:
        `clicks`: mean IoU after 1 to `CLICKS` clicks; `worse`: share of the objects whose IoU is lower after the last
        click than after the first; `box`: mean IoU of tight boxes; `box_corrected`: the same after one click where the
        mask is most wrong, with the mask as prompt; `objects`: their number.
    """
    clicked, boxes, corrected = [], [], []
    for sample in samples:
        clicked.append(iou_after_clicks(predictor, sample, most=CLICKS, until=NEVER))
        before, after = _one_correction(predictor, sample)
        boxes.append(before)
        corrected.append(after)
    iou = np.concatenate(clicked)
    return {
        "objects": len(iou),
        "clicks": iou.mean(axis=0).tolist(),
        "worse": float((iou[:, -1] < iou[:, 0]).mean()),
        "box": float(np.concatenate(boxes).mean()),
        "box_corrected": float(np.concatenate(corrected).mean()),
    }


def _one_correction(predictor: Predictor, sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    boxes = sample.boxes.copy()
    found = predictor.predict(sample.image, Prompts(boxes=boxes))
    clicks = [central_click(mask, true) for mask, true in zip(found.masks, sample.masks, strict=True)]
    again = predictor.predict(
        sample.image,
        Prompts(
            boxes=boxes,
            points=np.array([[(click.x, click.y)] for click in clicks], np.float32),
            labels=np.array([[click.label] for click in clicks], np.int64),
            mask_inputs=found.low_res_logits,
        ),
    )
    return mask_iou(found.masks, sample.masks), mask_iou(again.masks, sample.masks)


def calibration_of(predictor: Predictor, samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """`error` and `bias` of predicted IoU for `box`, `point`, and `best`, of the three masks the one predicted best."""
    pairs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {"box": [], "point": [], "best": []}
    for sample in samples:
        found = predictor.predict(sample.image, Prompts(boxes=sample.boxes.copy()))
        pairs["box"].append((found.scores, mask_iou(found.masks, sample.masks)))
        all_masks = predictor.predict_all(sample.image, POINT.evaluation_prompts(sample, 0))
        rows = np.arange(len(sample.masks))
        for name, choice in (("point", np.zeros_like(rows)), ("best", best_of_three(all_masks.scores))):
            masks = all_masks.logits[rows, choice] > 0
            pairs[name].append((all_masks.scores[rows, choice], mask_iou(masks, sample.masks)))
    found_of = {}
    for name, parts in pairs.items():
        reliability = reliability_of(
            np.concatenate([one for one, _ in parts]), np.concatenate([other for _, other in parts])
        )
        found_of[name] = {"error": reliability.error, "bias": reliability.bias}
    return found_of


def automatic_of(predictor: Predictor, samples: Iterable[Sample], settings: AutomaticMasks) -> dict[str, Any]:
    """Masks without a prompt at IoU 0.5: `ap` (TP / (TP + FP + FN)), `recall`, `precision`, `masks`, `objects`."""
    images = []
    for sample in samples:
        found = settings.generate(predictor, sample.image)
        images.append(ImageDetections(encode_masks(sample.masks), encode_masks(found.masks), found.scores))
    counts = matches(images)
    return {
        "ap": counts.average_precision,
        "recall": counts.recall,
        "precision": counts.precision,
        "masks": counts.right + counts.wrong,
        "objects": counts.right + counts.missed,
    }
