"""Masks without prompts, clicks and other kinds of prompts: figures of predictors whose answers are known."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.errors import AdapterError
from lora_sam.core.predictor import AllMasks, Worth
from lora_sam.core.scores import Scores
from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.evaluation.further import Further, paired_figure
from lora_sam.evaluation.further_rows import ROWS
from lora_sam.evaluation.kinds import kind_lines, where_further
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.lead import lead
from lora_sam.evaluation.result import verdict
from lora_sam.evaluation.table import markdown_table, render_table
from lora_sam.prompts.interface import Kind
from lora_sam.report.further import find_masks

SCORES = Scores(predicted_iou=0.5, stability=0.5, stability_offset=1.0, masks="single")


def sample(number: int) -> Sample:
    """Two squares of 16 x 16 px; a grid of 4 x 4 points has four on each, and eight on the background."""
    masks = np.zeros((2, 64, 64), np.bool_)
    masks[0, 0:32, 0:32] = masks[1, 32:64, 32:64] = True
    return Sample(f"{number}.png", np.full((64, 64, 3), number, np.uint8), masks, ("1", "2"))


@dataclass(frozen=True)
class Known:
    """Answers a point with its object without the last rows, as many as `short`; a point beside all with a false mask.

    It believes as much in its false masks as `belief` says.
    """

    short: int
    belief: float
    scores: Scores = SCORES

    def _answers(self, prompts: Prompts) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        count = len(prompts)
        masks, scores = np.zeros((count, 64, 64), np.bool_), np.full(count, 0.9, np.float32)
        places = prompts.points[:, 0] if prompts.points is not None else prompts.boxes[:, :2] + 1  # type: ignore[index]
        for row, (x, y) in enumerate(places):
            top, left = 32 * (y >= 32), 32 * (x >= 32)
            masks[row, top : top + 32 - self.short, left : left + 32] = True
            if top != left:
                scores[row] = self.belief
        return masks, scores

    def predict(self, image: NDArray[np.uint8], prompts: Prompts, **_: Any) -> Masks:
        masks, scores = self._answers(prompts)
        return Masks(masks, scores, np.zeros((len(prompts), 4, 4), np.float32))

    def predict_all(self, image: NDArray[np.uint8], prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        masks, scores = self._answers(prompts)
        logits = np.where(masks, np.float32(8), np.float32(-8))[:, None]
        return AllMasks(logits, scores[:, None], np.zeros((len(prompts), 1, 4, 4), np.float32))


def measured(**changes: Any) -> Further:
    settings: dict[str, Any] = {
        "predictors": {"base": Known(16, 0.8), "tuned": Known(2, 0.1)},
        "seed": 0,
        "scores": {"base": SCORES, "tuned": SCORES},
        "clicks": True,
        "kinds": {"box": lambda one: Prompts(boxes=one.boxes.copy())},
        "find": partial(find_masks, points_per_side=4),
        "points_per_side": 4,
    }
    further = Further(**{**settings, **changes})
    for number in range(3):
        further.add(sample(number))
    return further


def test_figures_without_prompts() -> None:
    """Base: halves of both objects (IoU 0.5) and two false masks; tuned: 30 of 32 rows of both, and nothing else."""
    found = measured().report(("point", "everything"), 7, 2)["automatic"]
    assert {name: found[name]["base"] for name in ("ap_50", "ap_75", "precision_50", "recall_50")} == {
        "ap_50": 0.5, "ap_75": 0.0, "precision_50": 0.5, "recall_50": 1.0,
    }  # fmt: skip
    assert found["ap_50"]["tuned"] == found["ap_75"]["tuned"] == 1.0
    assert found["ap_50_95"]["base"] == pytest.approx(0.5 / 10)
    assert found["ap_50_95"]["tuned"] == pytest.approx(9 / 10)  # 30 / 32 is not 0.95
    assert found["ap_50"]["delta_interval"] == [0.5, 0.5]
    assert (found["images"], found["of_images"], found["objects"], found["fitted_on"]) == (3, 7, 6, 2)
    assert found["empty"] == {"base": 0, "tuned": 0}
    assert Scores(**found["scores"]["tuned"]) == SCORES


def judged(*trained: Kind) -> dict[str, Any]:
    """A report whose IoU did not change, while twice as much is found without prompts."""
    figures = {"base": {"iou": 0.7}, "tuned": {"iou": 0.7}, "delta": {"iou": 0.0, "iou_interval": [-0.1, 0.1]}}
    return {**figures, "images": 3, "objects": 6, **measured(clicks=False).report(trained, 3, 2)}


def test_a_run_that_was_trained_to_find_objects_is_judged_by_what_it_finds() -> None:
    """The headline said that nothing had changed, beside AP from 0.24 to 0.61."""
    report = judged("point", "everything")
    assert (lead(report).alone, lead(report).base, lead(report).tuned, lead(report).better) == (True, 0.5, 1.0, True)
    assert verdict(report) == (
        "Tuned is better than base without prompts: AP at 0.5 0.500 -> 1.000, difference +0.500 (95 % interval +0.500 "
        "to +0.500), on 6 objects in 3 images, too few images to trust the interval. With prompts on each object: IoU "
        "per object 0.700 -> 0.700, difference +0.000 (95 % interval -0.100 to +0.100)."
    )
    assert not any(line.startswith("With no prompts") for line in kind_lines(report))
    assert "on 6 objects in 3 of 9 images" in verdict({**report, "images": 9})
    many = {**report, "images": 12}
    assert "in 3 of 12 images, too few images to trust the interval" in verdict(many)  # AP is that of three
    many["automatic"]["ap_50"]["independent"] = 10
    assert "too few" not in verdict(many)
    kept = {**report, "validation": {"base": 0.5, "trained": 0.4, "kept_step": 0, "per_image": []}}
    assert verdict(kept).startswith("Training did not beat the base: validation IoU 0.500 before, 0.400 at best")
    assert any(line.startswith("With no prompts: better") for line in kind_lines(kept))


def test_the_page_says_on_how_many_images_it_was_found() -> None:
    """Beside AP of 20 images (evaluate_images) stood the objects of all."""
    from lora_sam.report.header import header
    from lora_sam.report.markup import serialize

    sizes = {"trainable_parameters": 1, "total_parameters": 2, "adapter_bytes": 3, "seconds": 4.0, "split": "test"}
    text = serialize(header({**judged("point", "everything"), "images": 9, "objects": 18, **sizes}))
    assert "<dt>objects in 3 of 9 images, same grid of points for both</dt><dd>6</dd>" in text
    text = serialize(header({**judged("box", "point", "everything"), "images": 9, "objects": 18, **sizes}))
    assert "<dt>objects in 9 images, same prompts for both</dt><dd>18</dd>" in text


@pytest.mark.parametrize("trained", [("point",), ("box", "point", "everything"), ()])
def test_other_runs_are_judged_by_the_iou_of_their_prompts(trained: tuple[Kind, ...]) -> None:
    report = judged(*trained)
    assert not lead(report).alone
    assert verdict(report).startswith("No measurable difference between base and tuned: IoU per object 0.700 -> 0.700")
    assert any(line.startswith("With no prompts: better") for line in kind_lines(report)) == ("everything" in trained)


def test_empty_images_are_counted_and_told() -> None:
    strict = replace(SCORES, predicted_iou=0.95)
    report = measured(scores={"base": SCORES, "tuned": strict}).report((), 3, 2)
    assert report["automatic"]["empty"] == {"base": 0, "tuned": 3}
    assert report["automatic"]["ap_50"]["tuned"] == 0.0
    assert "no mask at all in images: 3 of tuned." in where_further(report)[0]
    assert "flatters" not in where_further(report)[0]
    assert "Images without an object are left out: masks that are found there count" in where_further(report)[0]
    tiles = {**report, "groups": {"count": 1, "whole": "image", "part": "tile"}}
    assert "Tiles without an object are left out: " in where_further(tiles)[0]
    said = "2 validation images, some or all of which are measured here, so AP flatters; no mask"
    assert said in where_further({**report, "chosen_on": 3})[0]


def test_masks_on_ignored_pixels_are_neither_right_nor_wrong() -> None:
    further = measured()
    crowd = np.zeros((64, 64), np.bool_)
    crowd[0:32, 32:64] = True
    for number in range(3, 6):
        further.add(replace(sample(number), ignored=crowd))
    found = further.report((), 6, 2)["automatic"]
    assert found["ap_50"]["base"] == pytest.approx(12 / (12 + 6 + 3))  # the false mask on the crowd does not count
    assert found["precision_50"]["base"] == pytest.approx(12 / 21)


def test_pictures_of_what_is_found_are_chosen_by_their_gain() -> None:
    from lora_sam.report.found import draw_found

    # the base is right on the second image alone: there nothing is gained
    class Patchy(Known):
        def predict_all(self, image: NDArray[np.uint8], prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
            known = Known(short=0 if image[0, 0, 0] == 1 else 20, belief=0.9)
            return known.predict_all(image, prompts, worth=worth)

    source = [sample(number) for number in range(4)]
    further = Further(
        predictors={"base": Patchy(short=0, belief=0), "tuned": Known(short=0, belief=0.1)}, seed=0,
        scores={"base": SCORES, "tuned": SCORES}, find=partial(find_masks, points_per_side=4), points_per_side=4,
    )  # fmt: skip
    assert draw_found(further, source, ()) == ({}, ())
    for place in (0, 1, 3):
        further.add(source[place])
    gains = [tuned - base for base, tuned in further.precision_of_images()]
    assert gains[1] < min(gains[0], gains[2])
    strips, pictures = draw_found(further, source, (0, 1, 3))
    assert strips.keys() == {"best", "median", "worst"}
    assert [(one.title, one.id) for one in pictures] == [
        ("largest gain", "3.png"), ("median gain", "0.png"), ("smallest gain", "1.png")
    ]  # fmt: skip
    assert pictures[0].told == "found 4 → 2, AP at 0.5 0.000 → 1.000"
    assert pictures[2].told == "found 4 → 2, AP at 0.5 0.500 → 1.000"
    assert pictures[0].base != pictures[0].tuned


def test_clicks_and_other_kinds() -> None:
    report = measured().report(("point", "everything"), 3, 2)
    clicks = report["clicks"]
    assert clicks["iou_1"]["base"] == clicks["iou_8"]["base"] == 0.5
    assert clicks["iou_3"]["tuned"] == pytest.approx(30 / 32)
    assert (clicks["noc_90"]["base"], clicks["noc_90"]["tuned"]) == (20.0, 1.0)
    assert clicks["objects"] == 6
    kinds = {kind["name"]: kind for kind in report["kinds"]}
    assert [kind["trained"] for kind in kinds.values()] == [False, False, True]
    assert kinds["box"]["compared"]["delta"] == pytest.approx(30 / 32 - 0.5)
    assert kinds["everything"]["compared"]["delta"] == 0.5


def test_only_what_is_wanted_is_measured() -> None:
    assert measured(scores=None, clicks=False, kinds={}).report((), 3, 2) == {}
    assert set(measured(scores=None, kinds={}).report((), 3, 2)) == {"clicks", "kinds"}


def test_a_verdict_for_what_was_trained_and_a_warning_for_what_was_lost() -> None:
    better = measured().report(("box", "point", "everything"), 3, 2)
    assert kind_lines(better)[-1] == (
        "With no prompts: better, AP at 0.5 0.500 -> 1.000, difference +0.500 (95 % interval +0.500 to +0.500, "
        "too few images to trust it)."
    )
    worse = measured(predictors={"base": Known(2, 0.1), "tuned": Known(16, 0.8)}).report(("everything",), 3, 2)
    boxes, clicks = kind_lines(worse)
    assert boxes.startswith("Warning: with boxes, which were not trained, tuned is worse: IoU 0.938 -> 0.500")
    assert boxes.endswith("prompt=mixed trains boxes beside points, prompt=iterative with corrections.")
    assert clicks.startswith("Warning: with clicks, which were not trained, tuned is worse: IoU after 3 clicks 0.938")
    assert kind_lines({}) == []
    assert all("too few images to trust it" in line for line in kind_lines(worse))
    assert all(said.endswith("Too few images to trust these intervals.") for said in where_further(worse))
    of_all = [worse["automatic"]["ap_50"], worse["clicks"]["iou_1"], *(kind["compared"] for kind in worse["kinds"])]
    assert {figure["independent"] for figure in of_all} == {3}
    for figure in of_all:
        figure["independent"] = 10
    assert not any("too few" in line.lower() for line in (*kind_lines(worse), *where_further(worse)))


def test_the_interval_draws_images() -> None:
    """Of two images one is all right and one all wrong: a draw has none, half, or all of it right."""
    base = np.array([[1.0, 0.0], [0.0, 1.0]])
    tuned = np.array([[1.0, 0.0], [1.0, 0.0]])

    def share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = sums[..., 0] / sums.sum(axis=-1)
        return found

    found = paired_figure(base, tuned, share, 0)
    assert (found.base, found.tuned, found.delta) == (0.5, 1.0, 0.5)
    assert (found.base_interval, found.tuned_interval, found.delta_interval) == ((0.0, 1.0), (1.0, 1.0), (0.0, 1.0))
    one = paired_figure(base[:1], tuned[:1], share, 0)
    assert (one.base, one.delta, one.delta_interval) == (1.0, 0.0, (-1.0, 1.0))


@pytest.fixture
def report(older_report: dict[str, Any]) -> dict[str, Any]:
    return {**older_report, **measured().report(("point", "everything"), 7, 2)}


@pytest.fixture
def older_report() -> dict[str, Any]:
    """What a version without these figures wrote."""
    from lora_sam.evaluation.result import evaluation_report
    from lora_sam.evaluation.scoring import evaluate

    class Source:
        ids, sizes, object_counts = ("0.png", "1.png"), ((64, 64),) * 2, (2, 2)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Sample:
            return sample(index)

    predictors: dict[str, Any] = {"base": Known(16, 0.8), "tuned": Known(2, 0.1)}
    found = evaluate(predictors, Source(), lambda one: Prompts(boxes=one.boxes.copy()))
    return evaluation_report(
        found, split="test", prompt={}, seed=0, trainable_parameters=1, total_parameters=2, adapter_bytes=3,
        seconds=1.0, peak_memory_bytes=None,
    )  # fmt: skip


def test_files_with_and_without_these_figures_are_read(report: dict[str, Any], older_report: dict[str, Any]) -> None:
    assert validate_report(older_report).automatic is None
    read = validate_report(json.loads(json.dumps(report)))
    assert read.automatic.ap_50.delta == 0.5
    assert read.clicks.noc_90.base == 20.0
    assert [kind.name for kind in read.kinds] == ["box", "clicks", "everything"]
    broken = copy.deepcopy(report)
    broken["automatic"]["ap_75"]["tuned"] = 1.5
    with pytest.raises(AdapterError, match=r"automatic\.ap_75\.tuned is 1\.5"):
        validate_report(broken)


def test_tables_show_every_row(report: dict[str, Any], older_report: dict[str, Any]) -> None:
    from rich.console import Console

    file = StringIO()
    Console(width=80, file=file).print(render_table(report))
    text, markdown = file.getvalue(), markdown_table(report)
    for row in ROWS:
        assert row.heading in text
        assert f"| {row.heading} |" in markdown
    assert "| AP@0.5 | 0.500 | 1.000 | +0.500 [+0.500, +0.500] |" in markdown
    assert "3 of 7 images, 4 x 4 points, thresholds of base and of tuned each chosen on the same 2" in markdown
    assert "AP@0.5" not in markdown_table(older_report)


def test_a_page_has_the_section(report: dict[str, Any], older_report: dict[str, Any]) -> None:
    from lora_sam.report.further import further_section
    from lora_sam.report.markup import serialize
    from lora_sam.report.pictures import ReportPicture

    section = further_section(report)
    assert section is not None
    text = serialize(section)
    assert "With no prompts" not in text  # the headline says it
    assert "+0.500" in text
    assert "What both find" not in text
    picture = ReportPicture(
        title="median gain", id="a.png", objects=2, told="found 4 → 2", size=(2, 2), base=b"", tuned=b"", truth=b""
    )
    shown = further_section(report, [picture])
    assert shown is not None
    assert "What both find without a prompt" in serialize(shown)
    assert "a.png" in serialize(shown)
    assert 'id="cut-found-1"' in serialize(shown)
    assert further_section(older_report) is None


def test_a_run_that_finds_nothing_says_what_to_change() -> None:
    least = {"predicted_iou": 0.05, "stability": 0.3}
    automatic = {"images": 4, "empty": {"base": 4, "tuned": 4}, "scores": {"tuned": least}, "points_per_side": 16}
    (line,) = kind_lines({"automatic": automatic})
    assert "found no mask in any of 4 images" in line
    assert "a score of 0.05 and a stability of 0.30" in line
    assert "more than 16 points along a side" in line
    assert kind_lines({"automatic": automatic | {"empty": {"base": 4, "tuned": 3}}}) == []


def test_thin_objects_are_read_back_and_told(older_report: dict[str, Any]) -> None:
    paired = {"base": 0.25, "tuned": 0.5, "delta": 0.25, "base_interval": [0.2, 0.3], "tuned_interval": [0.4, 0.6]}
    paired["delta_interval"] = [0.1, 0.4]
    thin = {"objects": 3, "of_objects": 4, "width": 3.5, "cldice": paired, "boundary_f1": paired}
    report = {**older_report, "thin": thin}
    assert validate_report(json.loads(json.dumps(report))).thin.objects == 3
    assert validate_report(older_report).thin is None
    told = "0.250 -> 0.500 (+0.250 [+0.100, +0.400])"
    assert (
        f"3 of 4 objects are thin (median width 3.5 px): clDice {told}, boundary F1 within a tenth of the width {told}."
    ) in markdown_table(report)
    for key, value, message in (("width", 0.5, "thin.width is 0.5"), ("objects", 0, "thin.objects is 0")):
        with pytest.raises(AdapterError, match=message):
            validate_report({**report, "thin": {**thin, key: value}})
