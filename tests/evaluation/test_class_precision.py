"""Average precision of classes: by hand, against COCO's evaluator with categories, and what is said of the base."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.structures import Sample
from lora_sam.evaluation.average_precision import encode_masks
from lora_sam.evaluation.class_precision import ClassPrecision, precision_rows


def block(x: int, y: int, side: int = 10) -> NDArray[np.bool_]:
    mask = np.zeros((48, 64), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def sample(id: str, masks: list[NDArray[np.bool_]], classes: tuple[str, ...], ignored: bool = False) -> Sample:
    names = tuple(map(str, range(len(masks))))
    crowd = block(30, 30, 16) if ignored else None
    return Sample(id, np.zeros((48, 64, 3), np.uint8), np.stack(masks), names, classes, crowd)


def test_right_masks_with_wrong_names_cost_what_they_should() -> None:
    truth = [block(0, 0), block(20, 0), block(40, 0), block(0, 20)]
    found = ClassPrecision()
    one = sample("1", truth, ("a", "a", "b", "b"))
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    found.add("base", one, encode_masks(np.stack(truth)), scores, None)
    found.add("tuned", one, encode_masks(np.stack(truth)), scores, ["a", "b", "b", "b"])
    report = found.report()
    assert report is not None
    assert report["agnostic"]["tuned"]["map"] == report["agnostic"]["base"]["map"] == pytest.approx(1)
    of = {row["name"]: row["map"] for row in report["classes"]}
    # of a half is found, at full precision: 51 of 101 levels of recall
    assert of["a"] == pytest.approx(51 / 101)
    # the wrong one comes first: precision 1/2 and 2/3, and the envelope is 2/3
    assert of["b"] == pytest.approx(2 / 3)
    assert report["map"] == pytest.approx((51 / 101 + 2 / 3) / 2)
    rows = dict(precision_rows(report, 1))
    assert rows["a"][1] == rows["mean (mAP)"][1] == "no classes"
    assert rows["whatever the class"][1] == "1.000"
    assert "and 1 more in evaluation.json" in rows


def test_it_is_cocos_map_of_the_same_categories() -> None:
    from faster_coco_eval import COCO, COCOeval_faster
    from faster_coco_eval.core import mask as coco_mask

    rng, found = np.random.default_rng(0), ClassPrecision()
    names = ("a", "b", "never told")
    images, truths, results = [], [], []
    for number in range(1, 7):
        places = [(x, y) for x in range(0, 50, 14) for y in range(0, 34, 14)]
        masks = [block(x, y, 11) for x, y in places]
        labels = tuple(names[place] for place in rng.integers(0, 3, len(masks)))
        shifted = [block(x + int(dx), y + int(dy), 11) for (x, y), (dx, dy) in
                   zip(places, rng.integers(0, 4, (len(places), 2)), strict=True)]  # fmt: skip
        told = [names[place] for place in rng.integers(0, 2, len(masks))]
        scores = rng.random(len(masks))
        found.add("tuned", sample(str(number), masks, labels), encode_masks(np.stack(shifted)), scores, told)
        images.append({"id": number, "height": 48, "width": 64})
        for kind, all_masks, all_labels, target in (("t", masks, labels, truths), ("p", shifted, told, results)):
            for row, (rle, label) in enumerate(zip(encode_masks(np.stack(all_masks)), all_labels, strict=True)):
                target.append({
                    "id": len(target) + 1, "image_id": number, "category_id": 1 + names.index(label), "iscrowd": 0,
                    "segmentation": rle, "area": float(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist(),
                    "score": float(scores[row]) if kind == "p" else 1.0,
                })  # fmt: skip
    categories = [{"id": place, "name": name} for place, name in enumerate(names, 1)]
    sets = [COCO({"images": images, "annotations": part, "categories": categories}) for part in (truths, results)]
    reference = COCOeval_faster(*sets, iouType="segm", print_function=lambda *_: None)
    reference.evaluate()
    reference.accumulate()
    precision = reference.eval["precision"][:, :, :, 0, -1]
    report = found.report()
    assert report is not None
    assert report["map"] == pytest.approx(precision.mean(), abs=1e-9)
    assert 0.01 < report["map"] < report["agnostic"]["tuned"]["map"] < 0.99
    assert {row["name"]: row["map"] for row in report["classes"]}["never told"] == 0
    assert "base" not in report["agnostic"]


def test_what_is_no_background_and_what_is_empty_counts_for_nothing() -> None:
    masks = [block(0, 0), np.zeros((48, 64), np.bool_), block(32, 32)]
    for ignored, precise in ((True, 1.0), (False, 0.5)):
        found = ClassPrecision()
        one = sample("1", [block(0, 0)], ("a",), ignored)
        found.add("tuned", one, encode_masks(np.stack(masks)), np.array([0.5, 0.9, 0.8]), ["a", "a", "a"])
        report = found.report()
        assert report is not None
        assert report["map"] == pytest.approx(precise)


def test_nothing_found_is_zero_and_no_classes_is_none() -> None:
    found = ClassPrecision()
    found.add("tuned", sample("1", [block(0, 0)], ()), encode_masks(np.zeros((1, 48, 64), np.bool_)), np.ones(1), ["a"])
    assert found.report() is None
    found.add("tuned", sample("2", [block(0, 0)], ("a",)), (), np.zeros(0), [])
    report = found.report()
    assert report is not None
    assert report["map"] == 0
