"""Evaluation with fake predictors whose masks are known, and the report made of it."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.errors import AdapterError, DataError
from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.evaluation.comparison import compare
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.metrics import ImageScores, score_image
from lora_sam.evaluation.result import evaluation_report, verdict
from lora_sam.evaluation.scoring import Case, Evaluation, evaluate
from lora_sam.evaluation.table import markdown_table, render_table


@dataclass(frozen=True)
class Squares:
    """A source of images with two 10x10 squares each; the first 5 columns of image n are n bright."""

    count: int
    classes: Sequence[tuple[str, ...]] = ()

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> Sequence[str]:
        return [f"images/{index}.png" for index in range(self.count)]

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        return [(40, 50)] * self.count

    @property
    def object_counts(self) -> Sequence[int]:
        return [2] * self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.zeros((40, 50, 3), np.uint8)
        image[:, :5] = index
        masks = np.zeros((2, 40, 50), np.bool_)
        masks[0, 5:15, 5:15] = True
        masks[1, 20:30, 20:30] = True
        return Sample(self.ids[index], image, masks, ("7", "8"), self.classes[index] if self.classes else ())


@dataclass(frozen=True)
class Boxes:
    """Predicts the prompted box without its last columns, as many as `short` says for the image."""

    short: dict[int, int]
    seen: list[NDArray[np.float32]] = field(default_factory=list)

    def predict(self, image: NDArray[np.uint8], prompts: Prompts, **_: Any) -> Masks:
        assert prompts.boxes is not None
        self.seen.append(prompts.boxes)
        masks = np.zeros((len(prompts), *image.shape[:2]), np.bool_)
        for mask, (left, top, right, bottom) in zip(masks, prompts.boxes.astype(int), strict=True):
            mask[top:bottom, left : right - self.short.get(int(image[0, 0, 0]), 0)] = True
        return Masks(masks, np.ones(len(prompts), np.float32), np.zeros((len(prompts), 4, 4), np.float32))


def boxes_of(sample: Sample) -> Prompts:
    return Prompts(boxes=np.array([[5, 5, 15, 15], [20, 20, 30, 30]], np.float32))


# base misses 5 of 10 columns everywhere (IoU 0.5); tuned misses none, 2, 4, 6 and so on
TUNED = {0: 2, 1: 6, 2: 0, 3: 4, 4: 3}


@pytest.fixture
def evaluation() -> Evaluation:
    predictors = {"base": Boxes(dict.fromkeys(range(5), 5)), "tuned": Boxes(TUNED)}
    return evaluate(predictors, Squares(5), boxes_of)


@pytest.fixture
def report(evaluation: Evaluation) -> dict[str, Any]:
    return report_of(evaluation)


def report_of(evaluation: Evaluation, prompt: dict[str, Any] | None = None) -> dict[str, Any]:
    return evaluation_report(
        evaluation,
        split="test",
        prompt=prompt or {"kind": "box", "jitter": 0.0},
        seed=3,
        trainable_parameters=294_912,
        total_parameters=94_030_096,
        adapter_bytes=1_187_000,
        seconds=272.4,
        peak_memory_bytes=2_500_000_000,
    )


def two_levels(images: int, base: int, tuned: int) -> dict[str, Any]:
    predictors = {
        "base": Boxes(dict.fromkeys(range(images), base)),
        "tuned": Boxes(dict.fromkeys(range(images), tuned)),
    }
    return report_of(evaluate(predictors, Squares(images), boxes_of))


class TestEvaluate:
    def test_scores_of_known_masks(self, evaluation: Evaluation) -> None:
        assert [image.id for image in evaluation.scores["base"]] == list(Squares(5).ids)
        assert all(image.object_ids == ("7", "8") for image in evaluation.scores["tuned"])
        assert [image.mean_iou for image in evaluation.scores["base"]] == [0.5] * 5
        assert [image.mean_iou for image in evaluation.scores["tuned"]] == [0.8, 0.4, 1.0, 0.6, 0.7]

    def test_every_predictor_gets_the_same_prompts_made_once(self) -> None:
        made: list[str] = []

        def prompts_for(sample: Sample) -> Prompts:
            made.append(sample.id)
            return boxes_of(sample)

        predictors = {name: Boxes({}) for name in ("base", "tuned", "int8")}
        evaluate(predictors, Squares(3), prompts_for)
        assert made == list(Squares(3).ids)
        for one, other, third in zip(*(predictor.seen for predictor in predictors.values()), strict=True):
            assert one is other is third

    def test_progress(self) -> None:
        seen: list[tuple[int, int]] = []
        evaluate({"base": Boxes({})}, Squares(3), boxes_of, on_image=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_empty_source(self) -> None:
        with pytest.raises(DataError, match="there is no image to measure: the split is empty"):
            evaluate({"base": Boxes({})}, Squares(0), boxes_of)

    def test_cases(self, evaluation: Evaluation) -> None:
        cases = evaluation.cases()
        assert cases == {
            "best": Case("images/2.png", 2, 2, 0.5, 1.0),
            "median": Case("images/4.png", 4, 2, 0.5, 0.7),
            "worst": Case("images/1.png", 1, 2, 0.5, 0.4),
        }
        assert cases["worst"].delta == pytest.approx(-0.1)
        assert cases["best"].caption("best") == "best: images/2.png, mean IoU of 2 objects 0.500 -> 1.000"

    def test_cases_of_few_images(self) -> None:
        evaluation = evaluate({"base": Boxes({0: 5}), "tuned": Boxes({})}, Squares(1), boxes_of)
        assert {case.index for case in evaluation.cases().values()} == {0}
        evaluation = evaluate({"base": Boxes({0: 5}), "tuned": Boxes({})}, Squares(2), boxes_of)
        assert {name: case.index for name, case in evaluation.cases().items()} == {"best": 0, "median": 1, "worst": 1}

    def test_equal_rises_are_ordered_by_id(self) -> None:
        score = score_image("b", ["x"], np.ones((1, 4, 4), np.bool_), np.ones((1, 4, 4), np.bool_))
        first = score_image("a", ["x"], np.ones((1, 4, 4), np.bool_), np.ones((1, 4, 4), np.bool_))
        cases = Evaluation({"base": (score, first), "tuned": (score, first)}).cases()
        assert (cases["best"].id, cases["worst"].id) == ("b", "a")


class TestReport:
    def test_content(self, report: dict[str, Any]) -> None:
        assert report["schema_version"] == 1
        assert report["base"]["iou"] == 0.5
        assert report["tuned"]["iou"] == pytest.approx(0.7)
        assert report["delta"]["iou"] == pytest.approx(0.2)
        assert report["tuned"]["f1"] == pytest.approx(2 * 700 / (2 * 700 + 300))
        assert (report["images"], report["objects"], report["seed"], report["split"]) == (5, 10, 3, "test")
        assert report["prompt"] == {"kind": "box", "jitter": 0.0}
        assert report["per_image"][2] == {"id": "images/2.png", "objects": 2, "base_iou": 0.5, "tuned_iou": 1.0}
        for part in ("base", "tuned", "delta"):
            assert {"iou", "dice", "f1", "boundary_f1"} <= set(report[part])

    def test_survives_json(self, report: dict[str, Any]) -> None:
        back = json.loads(json.dumps(report, allow_nan=False))
        assert back == report
        validate_report(back)

    def test_unknown_memory_is_allowed(self, report: dict[str, Any]) -> None:
        validate_report({**report, "peak_memory_bytes": None})
        assert "peak memory unknown" in markdown_table({**report, "peak_memory_bytes": None})

    @pytest.mark.parametrize(
        "path",
        [
            *(["schema_version"], ["split"], ["base"], ["tuned"], ["delta"], ["trainable_parameters"]),
            *(["adapter_bytes"], ["seconds"], ["peak_memory_bytes"], ["images"], ["objects"], ["prompt"], ["seed"]),
            *(["per_image"], ["per_image", 0, "id"], ["per_image", 1, "tuned_iou"]),
            *(["base", "iou"], ["tuned", "f1"], ["delta", "boundary_f1"], ["base", "dice_interval"]),
            *(["base", "iou_median"], ["tuned", "by_size"], ["tuned", "by_size", "small", "iou"]),
        ],
    )
    def test_missing_key_is_named(self, report: dict[str, Any], path: list[str | int]) -> None:
        parent = at(report, path[:-1])
        del parent[path[-1]]
        with pytest.raises(AdapterError, match=r"lacks the key .*Evaluate again\.") as caught:
            validate_report(report)
        assert f"lacks the key {dotted(path)}." in str(caught.value)

    @pytest.mark.parametrize(
        ("path", "value", "allowed"),
        [
            (["base", "iou"], math.nan, "should be a finite number"),
            (["base", "iou"], 1.01, "should be less than or equal to 1"),
            (["base", "iou"], "0.5", "should be a valid number"),
            (["base", "iou"], True, "should be a valid number"),
            (["delta", "dice"], -1.5, "should be greater than or equal to -1"),
            (["tuned", "f1_interval"], [0.1], "Field required"),
            (["tuned", "f1_interval"], "ab", "should be a valid"),
            (["tuned", "f1_interval"], [0.3, 0.2], "low is above high"),
            (["tuned", "by_size"], [], "should be an object"),
            (["base", "by_size", "small", "iou"], None, "there are 10 objects"),
            (["seconds"], math.inf, "should be a finite number"),
            (["seconds"], 10**400, "should be"),
            (["images"], 5.0, "should be a valid integer"),
            (["adapter_bytes"], -1, "should be greater than or equal to 0"),
            (["adapter_bytes"], 10**30, "should be"),
            (["split"], 3, "should be a valid string"),
            (["prompt"], None, "should be"),
            (["per_image"], [], "a list of 5 images is needed"),
            (["per_image", 0], 3, "should be"),
            (["per_image", 0, "id"], 3, "should be a valid string"),
            (["objects"], 11, "per_image has 10"),
        ],
    )
    def test_bad_value_is_named(
        self, report: dict[str, Any], path: list[str | int], value: object, allowed: str
    ) -> None:
        at(report, path[:-1])[path[-1]] = value
        with pytest.raises(AdapterError) as caught:
            validate_report(report)
        message = str(caught.value)
        assert message.startswith(f"evaluation.json: {dotted(path)}")
        assert f": {allowed}" in message
        assert message.endswith(". Evaluate again.")
        assert len(message) < 200
        assert "\n" not in message

    @pytest.mark.parametrize("version", [0, 2, "1", None, True])
    def test_another_schema_version(self, report: dict[str, Any], version: object) -> None:
        with pytest.raises(AdapterError, match=r"has schema_version .*, and this version of lora_sam reads 1\."):
            validate_report({**report, "schema_version": version})

    @pytest.mark.parametrize("data", [None, [], "text", 1])
    def test_not_an_object(self, data: object) -> None:
        with pytest.raises(AdapterError, match=r"evaluation\.json: the whole file is .*, not an object"):
            validate_report(data)

    def test_unknown_keys_are_allowed(self, report: dict[str, Any]) -> None:
        validate_report({**copy.deepcopy(report), "later": 1})


def at(data: Any, path: list[str | int]) -> Any:
    for key in path:
        data = data[key]
    return data


def dotted(path: list[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


class TestTables:
    def test_markdown(self, report: dict[str, Any]) -> None:
        lines = markdown_table(report).splitlines()
        assert lines[0] == (
            "|  | IoU [95 % interval] | IoU median | Dice | F1 (pooled) | Boundary F1 | IoU S | IoU M | IoU L |"
        )
        assert lines[1] == "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
        assert lines[2].startswith("| base | 0.500 [0.500, 0.500] | 0.500 | 0.667 | 0.667 | ")
        assert lines[2].endswith(" | 0.500 | - | - |")
        assert lines[3].startswith("| tuned | 0.700 [0.5")
        low, high = report["delta"]["iou_interval"]
        assert lines[4].startswith(f"| difference | +0.200 [{low:+.3f}, {high:+.3f}] | +0.200 | ")
        assert all(line.count("|") == 10 for line in lines[:5])
        assert lines[6] == (
            "5 images, 10 objects (S 10, M 0, L 0; limits 32² and 96² px); "
            "294,912 trainable parameters (0.31%), adapter 1.19 MB; training 4 min 32 s, peak memory 2.50 GB. "
            "Intervals draw whole images."
        )

    def test_it_is_said_what_intervals_draw(self, report: dict[str, Any]) -> None:
        report["groups"] = {"count": 2, "whole": "volume", "part": "slice"}
        for drawn, said in (
            ("groups", "Intervals draw whole volumes."),
            ("objects", "Intervals draw the objects of the one volume: they say nothing of others."),
        ):
            report["base"]["resampled"] = drawn
            assert markdown_table(report).splitlines()[6].endswith(said)
        del report["base"]["resampled"], report["groups"]  # of an older version
        assert "Intervals draw" not in markdown_table(report)

    def test_small_figures_of_the_caption(self, report: dict[str, Any]) -> None:
        report.update(adapter_bytes=812, peak_memory_bytes=45_600, seconds=3.21)
        caption = markdown_table(report).splitlines()[6]
        assert "adapter 812 bytes; training 3.2 s, peak memory 45.60 kB." in caption

    @pytest.mark.parametrize("width", [80, 120])
    def test_terminal_table_fits(self, report: dict[str, Any], width: int) -> None:
        from rich.console import Console

        for part, figure in (("base", 0.5), ("tuned", 0.7), ("delta", 0.2)):
            for size in ("medium", "large"):
                report[part]["by_size"][size] = {"objects": 3, "iou": figure, "dice": figure}
        report["split"] = "test [red]"  # a name from a file is text, not markup
        console = Console(file=StringIO(), width=width)
        console.print(render_table(report))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(len(line) for line in text.splitlines()) <= width
        for shown in ("split test [red]", "difference", "+0.200", "[0.500, 0.500]", "(pooled)", "294,912 trainable"):
            assert shown in " ".join(text.split()), shown
        assert text.count("+0.200 +0.200 +0.200") == 1  # all three sizes
        assert "…" not in text


CLASSES = [("ring", "disc"), ("disc", "disc"), ("ring", "ring"), ("disc", "ring"), ("disc", "disc")]


class TestClasses:
    @pytest.fixture
    def classified(self) -> dict[str, Any]:
        predictors = {"base": Boxes(dict.fromkeys(range(5), 5)), "tuned": Boxes(TUNED)}
        return report_of(evaluate(predictors, Squares(5, CLASSES), boxes_of))

    def test_figures_are_those_of_torchmetrics(self, classified: dict[str, Any]) -> None:
        import torch
        from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

        found = classified["classes"]
        assert [(one["name"], one["objects"], one["images"]) for one in found["classes"]] == [
            ("disc", 6, 4),
            ("ring", 4, 3),
        ]
        source = Squares(5, CLASSES)
        for name, short in (("base", dict.fromkeys(range(5), 5)), ("tuned", TUNED)):
            overall = BinaryF1Score()
            means: dict[str, list[float]] = {"iou": [], "dice": [], "f1": []}
            for one in found["classes"]:
                union, pooled, ious, dices = BinaryF1Score(), BinaryF1Score(), [], []
                for index in range(5):
                    sample = source[index]
                    rows = [row for row, label in enumerate(sample.classes) if label == one["name"]]
                    if not rows:
                        continue
                    masks = Boxes(short).predict(sample.image, boxes_of(sample)).masks
                    for row in rows:
                        pair = [torch.from_numpy(part[row]).int() for part in (masks, sample.masks)]
                        ious.append(float(BinaryJaccardIndex()(*pair)))
                        dices.append(float(BinaryF1Score()(*pair)))
                        pooled.update(*pair)
                    pair = [torch.from_numpy(part[rows].any(axis=0)).int() for part in (masks, sample.masks)]
                    union.update(*pair)
                    overall.update(*pair)
                expected = {"iou": np.mean(ious), "dice": np.mean(dices), "f1": float(pooled.compute())}
                for figure, value in expected.items():
                    assert one[figure][name] == pytest.approx(value, abs=1e-6), (name, one["name"], figure)
                    means[figure].append(value)
                assert one["pooled_dice"][name] == pytest.approx(float(union.compute()), abs=1e-6)
            for figure, values in means.items():
                assert found[f"mean_{figure}"][name] == pytest.approx(np.mean(values), abs=1e-6)
            assert found["pooled_dice"][name] == pytest.approx(float(overall.compute()), abs=1e-6)

    def test_intervals_are_those_of_the_images_that_have_the_class(self, classified: dict[str, Any]) -> None:
        rings = [index for index, names in enumerate(CLASSES) if "ring" in names]
        scores: dict[str, list[ImageScores]] = {"base": [], "tuned": []}
        for name, short in (("base", dict.fromkeys(range(5), 5)), ("tuned", TUNED)):
            for index in rings:
                sample = Squares(5, CLASSES)[index]
                masks = Boxes(short).predict(sample.image, boxes_of(sample)).masks
                rows = [label == "ring" for label in sample.classes]
                names = [str(row) for row in range(sum(rows))]
                scores[name].append(score_image(sample.id, names, masks[rows], sample.masks[rows]))
        expected = compare(scores["base"], scores["tuned"], 3)
        ring = classified["classes"]["classes"][1]
        for figure in ("iou", "dice", "f1"):
            for name in ("base", "tuned", "delta"):
                assert ring[figure][name] == expected[name][figure]
                assert ring[figure][f"{name}_interval"] == expected[name][f"{figure}_interval"]
            assert ring[figure]["independent"] == len(rings)

    @pytest.mark.parametrize("classes", [(), [("ring", "ring")] * 5])
    def test_without_classes_or_with_one_there_is_no_such_key(self, classes: Any) -> None:
        predictors = {"base": Boxes({}), "tuned": Boxes({})}
        assert "classes" not in report_of(evaluate(predictors, Squares(5, classes), boxes_of))

    def test_no_class_at_all(self, evaluation: Evaluation) -> None:
        assert evaluation.by_class(0) is None

    def test_tables(self, classified: dict[str, Any]) -> None:
        from rich.console import Console

        classified["classes"]["classes"][0]["name"] = "a | name\nof [red] ünd quite some length"
        lines = markdown_table(classified).splitlines()
        assert lines[8] == (
            "| class | objects | IoU | difference [95 % interval] | Dice | F1 (pooled) | Dice (pooled) |"
        )
        assert lines[10].startswith(r"| a \| name of [red] ünd quite some length | 6 | 0.500 -> ")
        assert lines[11].startswith("| ring | 4 | 0.500 -> 0.850 | +0.350 [+0.")
        assert lines[12].startswith("| mean of classes |  | 0.500 -> ")
        assert lines[13].startswith("| all in one count |  |  |  |  |  | 0.")
        assert all(len(re.findall(r"(?<!\\)\|", line)) == 8 for line in lines[8:14])
        assert lines[15] == "Too few images to trust the intervals of all classes: fewer than 10 have the class."
        classified["classes"]["classes"][1]["iou"]["independent"] = 10
        assert markdown_table(classified).splitlines()[15] == (
            r"Too few images to trust the intervals of a \| name of [red] ünd quite some length: fewer than 10 have "
            "the class."
        )
        classified["classes"]["classes"][0]["iou"]["independent"] = 10
        assert len(markdown_table(classified).splitlines()) == 14
        console = Console(file=StringIO(), width=80)
        console.print(render_table(classified))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(len(line) for line in text.splitlines()) <= 80
        for shown in ("classes: base -> tuned", "ring", "0.500", "-> 0.850", "+0.350", "base vs tuned", "[95 %"):
            assert shown in text, shown
        assert "…" not in text

    def test_many_classes_are_not_all_shown(self, classified: dict[str, Any]) -> None:
        one = classified["classes"]["classes"][0]
        classified["classes"]["classes"] = [{**one, "name": f"class {number}"} for number in range(23)]
        validate_report(classified)
        text = markdown_table(classified)
        assert "class 19 |" in text
        assert "class 20 |" not in text
        assert "and 3 more in evaluation.json" in text

    @pytest.mark.parametrize(
        ("path", "value", "allowed"),
        [
            (["classes"], None, "should be"),
            (["classes", "classes"], [], "List should have at least 1 item"),
            (["classes", "classes", 0], 3, "should be"),
            (["classes", "classes", 0, "name"], 3, "should be a valid string"),
            (["classes", "classes", 1, "objects"], -1, "should be greater than or equal to 0"),
            (["classes", "classes", 1, "f1", "tuned"], 1.5, "should be less than or equal to 1"),
            (["classes", "classes", 1, "f1", "delta_interval"], [1, 0], "low is above high"),
            (["classes", "classes", 1, "pooled_dice", "base"], None, "should be a valid number"),
            (["classes", "mean_iou", "base"], "x", "should be a valid number"),
            (["classes", "pooled_dice"], 0.5, "should be an object"),
        ],
    )
    def test_bad_values_are_named(
        self, classified: dict[str, Any], path: list[str | int], value: object, allowed: str
    ) -> None:
        validate_report(classified)
        at(classified, path[:-1])[path[-1]] = value
        with pytest.raises(AdapterError) as caught:
            validate_report(classified)
        assert str(caught.value).startswith(f"evaluation.json: {dotted(path)} is ")
        assert f": {allowed}" in str(caught.value)
        assert str(caught.value).endswith(". Evaluate again.")


class TestFirstPrompts:
    def test_what_rounds_add_is_not_in_the_figures_which_is_said(self, evaluation: Evaluation) -> None:
        report = report_of(evaluation, prompt={"rounds": 8, "mask_prob": 0.5})
        assert report["rounds"] == {"trained": 8, "evaluated": 1}
        note = "Training corrected its prompts in 8 rounds; these figures are those of the first prompt alone."
        text = markdown_table(report)
        assert note in text
        assert "python -m lora_sam.robustness run=latest sections=[clicks]" in text
        with pytest.raises(AdapterError, match=r"rounds\.trained is 'x'"):
            validate_report({**report, "rounds": {"trained": "x", "evaluated": 1}})

    @pytest.mark.parametrize("prompt", [{"jitter": 0.0}, {"rounds": 1}])
    def test_other_prompts(self, evaluation: Evaluation, prompt: dict[str, Any]) -> None:
        report = report_of(evaluation, prompt=prompt)
        assert "rounds" not in report
        assert "rounds" not in markdown_table(report)


class TestVerdict:
    def test_better(self) -> None:
        assert verdict(two_levels(12, 5, 3)) == (
            "Tuned is better than base: IoU per object 0.500 -> 0.700, difference +0.200 "
            "(95 % interval +0.200 to +0.200), on 24 objects in 12 images."
        )

    def test_worse(self) -> None:
        assert verdict(two_levels(12, 3, 5)).startswith("Tuned is worse than base: IoU per object 0.700 -> 0.500, ")

    def test_no_difference(self) -> None:
        assert verdict(two_levels(12, 3, 3)).startswith("No measurable difference between base and tuned: IoU per ")

    def test_nothing_beat_the_base(self, report: dict[str, Any]) -> None:
        report["validation"] = {
            "base": 0.4312,
            "trained": 0.2,
            "kept_step": 0,
            "iou": 0.4312,
            "iou_interval": [0.4, 0.5],
            "per_image": [{"id": "a", "objects": 2, "iou": 0.4312}],
        }
        validate_report(report)
        assert verdict(report) == (
            "Training did not beat the base: validation IoU 0.431 before, 0.200 at best after; the adapter that was "
            "kept is that of step 0 and changes nothing; lower optim.lr to a tenth first."
        )
        report["validation"]["trained"] = 0.43
        assert "; train for longer (trainer.max_epochs), with a higher optim.lr or on more images." in verdict(report)
        report["validation"]["trained"] = 0.4345
        assert verdict(report) == (
            "Training did not beat the base: validation IoU 0.431 before, 0.434 at best after, a rise that can be "
            "chance; the adapter that was kept is that of step 0 and changes nothing; train for longer (trainer."
            "max_epochs), with a higher optim.lr or on more images; trainer.least_rise=0 keeps whatever is above."
        )
        report["validation"]["kept_step"] = 20
        assert "Training did not" not in verdict(report)

    def test_interval_around_zero_is_no_difference(self, report: dict[str, Any]) -> None:
        report["delta"].update(iou=0.02, iou_interval=[-0.001, 0.04])
        assert "No measurable difference" in verdict(report)
        report["delta"].update(iou=0.02, iou_interval=[0.0, 0.04])
        assert "No measurable difference" in verdict(report)

    def test_few_images_are_said_to_be_few(self, report: dict[str, Any]) -> None:
        assert verdict(report).endswith("on 10 objects in 5 images, too few images to trust the interval.")
        assert verdict(two_levels(1, 5, 3)).endswith("on 2 objects in 1 image, too few images to trust the interval.")

    def test_it_is_said_where_the_training_images_alone_chose_the_weights(self, report: dict[str, Any]) -> None:
        before = verdict(report)
        images = [{"id": name, "objects": 2, "iou": 0.5} for name in "ab"]
        chosen = {"base": 0.4, "trained": 0.5, "kept_step": 4, "iou": 0.5, "iou_interval": [0.4, 0.6]}
        report["validation"] = {**chosen, "per_image": images, "trained_on": 2}
        validate_report(report)
        said = "Nothing was held out to choose the weights: the 2 training images chose them too."
        assert verdict(report) == f"{before} {said}"
        report["validation"]["kept_step"] = 0
        assert verdict(report).startswith("Training did not beat the base: ")
        assert verdict(report).endswith(said)
        for trained_on in ({"trained_on": 1}, {}):  # one was held out; a report that is older than the key
            report["validation"] = {**chosen, "per_image": images, **trained_on}
            assert verdict(report) == before

    def test_images_that_chose_the_weights_are_said_to_flatter(self) -> None:
        """With evaluate_split=val what is reported is what was chosen by."""
        report = two_levels(12, 5, 3)
        assert "chose" not in verdict(report)
        said = "12 images; these images chose the weights by validation, so their figures flatter."
        assert verdict({**report, "chosen_on": 12}).endswith(said)
        said = "; 3 of these images chose the weights by validation, so their figures flatter."
        assert verdict({**report, "chosen_on": 3}).endswith(said)
        assert "chose the weights" not in verdict({**report, "chosen_on": 12, "trained_on": 12})
        validate_report({**report, "chosen_on": 12})

    def test_images_that_were_trained_on_are_named_first(self) -> None:
        report = two_levels(12, 5, 3)
        told = verdict({**report, "trained_on": 12})
        assert told.startswith("Tuned is better than base on images it was trained on: IoU per object ")
        assert told.endswith("flatter: they say nothing about new ones.")
        assert verdict({**report, "trained_on": 3}).startswith("Tuned is better than base, 3 of 12 images trained on: ")
        validate_report({**report, "trained_on": 12})
