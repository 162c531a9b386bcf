"""Slices, tiles and images of one patient are drawn together wherever an interval is found, and words say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.groups import Groups, Parts, clusters_of, counted_images, groups_in, independent
from lora_sam.core.structures import Sample
from lora_sam.evaluation.classes import LabelPixels, by_class
from lora_sam.evaluation.comparison import compare, summarize
from lora_sam.evaluation.further import Further
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.metrics import ImageScores, score_image
from lora_sam.evaluation.naming import Naming
from lora_sam.evaluation.over_seeds import clusters_in, gain_of, mean_over_seeds
from lora_sam.evaluation.result import evaluation_report, verdict
from lora_sam.evaluation.robustness.findings import clicking, outlines, paired_iou
from lora_sam.evaluation.robustness.measure import Kept, Measured
from lora_sam.evaluation.scoring import Evaluation
from lora_sam.evaluation.thinness import Thinness
from lora_sam.runs.learning_curve import size_of
from lora_sam.runs.sweep_jobs import Job
from lora_sam.runs.sweep_ranking import _behind

SLICES, VOLUMES = 40, 2
Split = Sequence[Sequence[int]]
APART: Split = [[place] for place in range(SLICES)]
TOGETHER: Split = [list(range(part, SLICES, VOLUMES)) for part in range(VOLUMES)]


def objects(seed: int) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """One object a slice, bool [12, 24] true and predicted; slices of one volume fare alike."""
    generator = np.random.default_rng(seed)
    made = []
    for place in range(SLICES):
        true, predicted = np.zeros((2, 12, 24), np.bool_)
        true[2:10, 2:22] = True
        width = 6 + 4 * seed + 8 * (place % VOLUMES) + int(generator.integers(0, 4))
        predicted[2:10, 2 : min(24, 2 + width)] = True
        made.append((true, predicted))
    return made


BASE, TUNED = objects(0), objects(1)


def group(members: Sequence[int]) -> str | None:
    """The volume of a slice; None of all slices of a volume in one."""
    return f"v{members[0] % VOLUMES}.tif" if len(members) == 1 else None


def images(pairs: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]], split: Split) -> list[ImageScores]:
    found = []
    for members in split:
        true, predicted = (np.stack([pairs[place][which] for place in members]) for which in (0, 1))
        ids = [str(place) for place in members]
        found.append(score_image("+".join(ids), ids, predicted, true, group=group(members)))
    return found


def sample(members: Sequence[int]) -> Sample:
    masks = np.stack([BASE[place][0] for place in members])
    ids = tuple(str(place) for place in members)
    classes = tuple("ab"[place % 3 == 0] for place in members)
    pixels = np.zeros((12, 24, 3), np.uint8)
    return Sample("+".join(ids), pixels, masks, ids, classes, group=group(members))


def scores(split: Split) -> dict[str, list[ImageScores]]:
    return {"base": images(BASE, split), "tuned": images(TUNED, split)}


def report(split: Split) -> dict[str, Any]:
    evaluation = Evaluation({name: tuple(found) for name, found in scores(split).items()}, ((),) * len(split))
    return evaluation_report(
        evaluation,
        split="test",
        prompt={"_target_": "lora_sam.prompts.boxes.BoxPrompts"},
        seed=3,
        trainable_parameters=1,
        total_parameters=2,
        adapter_bytes=3,
        seconds=1.0,
        peak_memory_bytes=None,
        parts=Parts("volume", "slice"),
    )


def _compared(split: Split) -> Any:
    found = compare(*scores(split).values(), 3)
    return [found[name][f"{figure}_interval"] for name in ("base", "tuned", "delta") for figure in ("iou", "f1")]


def _summarized(split: Split) -> Any:
    return summarize(images(TUNED, split), 3)["boundary_f1_interval"]


def _classes(split: Split) -> Any:
    names = tuple(sample(members).classes for members in split)
    pixels = {name: {label: LabelPixels(1, 1, 1) for label in "ab"} for name in ("base", "tuned")}
    found = by_class(scores(split), names, pixels, 3)
    assert found is not None
    return [one.iou.delta_interval for one in found.classes]


def _named(split: Split) -> Any:
    naming = Naming(("a", "b"))
    for members in split:
        likely = np.array([[place % VOLUMES, place % 5 == 0] for place in members], np.float32)
        one = sample(members)
        naming.add(one.classes, likely, one.group)
    found = naming.report(3)
    assert found is not None
    return found["accuracy_interval"]


def _thin(split: Split) -> Any:
    thinness = Thinness()
    for members in split:
        one = sample(members)
        line = np.zeros_like(one.masks)
        line[:, 3, 1:23] = line[:, 8, 1:23] = line[:, 3:9, 22] = True
        one = Sample(one.id, one.image, line, one.object_ids, group=one.group)
        for name, pairs in (("base", BASE), ("tuned", TUNED)):
            thinness.add(name, one, np.stack([pairs[place][1] for place in members]) & line)
    found = thinness.report(3)
    assert found is not None
    return found["cldice"]["delta_interval"]


def _robust(split: Split) -> Any:
    found = scores(split)
    kept = {
        name: Kept(
            hausdorff=[10 - 10 * image.iou for image in of],
            clicked=[np.stack([image.iou, (1 + image.iou) / 2], axis=1) for image in of],
        )
        for name, of in found.items()
    }
    measured = Measured({"own": found}, kept, (), [image.group for image in found["base"]])
    clicks = clicking(measured, 3).levels[0].clicks
    return [paired_iou(found, 3).delta_interval, outlines(measured, 3).base_interval, clicks.tuned_interval]


def _further(split: Split) -> Any:
    further = Further({"base": None, "tuned": None}, 3)  # type: ignore[dict-item]
    for members in split:
        one = sample(members)
        further.add(Sample(one.id, one.image, one.masks, one.object_ids, group=one.group))
        for name, pairs in (("base", BASE), ("tuned", TUNED)):
            iou = images(pairs, [members])[0].iou
            further._iou.setdefault(("point", name), []).append(iou)
            counts = np.array([[np.sum(iou > 0.5), 0, np.sum(iou <= 0.5)]] * 10, np.int64)
            further._counts.setdefault(name, []).append(counts)
            further._found.setdefault(name, []).append(())
    further.kinds = {"point": lambda one: None}  # type: ignore[assignment, return-value, dict-item]
    further.scores = {}
    parts = further.report((), SLICES, 1)
    return [parts["kinds"][0]["compared"]["delta_interval"], parts["automatic"]["ap_50"]["tuned_interval"]]


def _seeds(split: Split) -> Any:
    entries = report(split)["per_image"]
    return mean_over_seeds([clusters_in(entries, gain_of), clusters_in(entries, itemgetter("base_iou"))], 0)[1]


def _curve(split: Split) -> Any:
    return size_of(4, [report(split)] * 2).delta_interval


def _sweep(split: Split) -> Any:
    one, two = (
        {"per_image": [{"id": "x", "objects": e["objects"], "iou": e[key], "group": e.get("group")} for e in entries]}
        for entries in [report(split)["per_image"]]
        for key in ("base_iou", "tuned_iou")
    )
    jobs = [Job(job=number, state="done", overrides=(), validated="same") for number in (0, 1)]
    reports = {number: {"validation": found, "seed": 3} for number, found in enumerate((one, two))}
    return _behind(jobs[0], jobs[1], reports)


@pytest.mark.parametrize(
    "interval",
    [_compared, _summarized, _classes, _named, _thin, _robust, _further, _seeds, _curve, _sweep],
    ids=lambda one: one.__name__.strip("_"),
)
def test_intervals_of_slices_are_those_of_their_volumes(interval: Callable[[Split], Any]) -> None:
    """40 slices of 2 volumes say no more than 2 volumes do."""
    assert np.allclose(interval(APART), interval(TOGETHER), atol=1e-9), "of slices, and of volumes"


def test_slices_that_know_no_volume_are_drawn_one_by_one() -> None:
    alone = [ImageScores(**{**vars(image), "group": None}) for image in images(TUNED, APART)]
    apart, together = (np.ptp(summarize(found, 3)["iou_interval"]) for found in (alone, images(TUNED, APART)))
    assert together > 2 * apart


def test_where_all_is_one_volume_its_objects_are_drawn() -> None:
    one = [ImageScores(**{**vars(image), "group": "v"}) for image in images(TUNED, APART)]
    assert summarize(one, 3)["resampled"] == "objects"
    entries = [{**entry, "group": "v"} for entry in report(APART)["per_image"]]
    assert len(clusters_in(entries, gain_of)) == SLICES


def test_groups_are_counted_in_words() -> None:
    assert clusters_of(["a", None, "a", None, "b"]).tolist() == [0, 1, 0, 2, 3]
    assert groups_in([None, "a"], Parts("volume", "slice")) is None
    assert groups_in(["a", "a", None], None) == Groups(2, "group", "image")
    plain = {"images": 1200, "groups": None}
    assert (counted_images(plain), independent(plain)) == ("1,200 images", 1200)
    slices = {"images": 40, "groups": {"count": 2, "whole": "volume", "part": "slice"}}
    assert (counted_images(slices, "test"), independent(slices)) == ("2 test volumes (40 slices)", 2)


def test_the_report_says_volumes_and_slices() -> None:
    found = report(APART)
    assert found["groups"] == {"count": 2, "whole": "volume", "part": "slice"}
    assert found["per_image"][1]["group"] == "v1.tif"
    assert validate_report(found).groups == Groups(2, "volume", "slice")
    said = verdict(found)
    assert "on 40 objects in 2 volumes (40 slices), too few volumes to trust the interval" in said
    whole = report(TOGETHER)
    assert "groups" not in whole
    assert "group" not in whole["per_image"][0]
    assert "on 40 objects in 2 images, too few images" in verdict(whole)


def test_a_report_from_before_is_read_as_it_was() -> None:
    """Tiles were told by their ids then; nothing is read out of these any more, and nothing is asked for."""
    found = report(APART)
    del found["groups"]
    for number, entry in enumerate(found["per_image"]):
        del entry["group"]
        entry["id"] = f"a.png/{512 * number},0"
    assert validate_report(found).groups is None
    assert "in 40 images" in verdict(found)
    assert len(clusters_in(found["per_image"], gain_of)) == SLICES
