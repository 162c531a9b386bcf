"""The section about robustness: every figure in it, charts, once, in a page that stays closed to the outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from lora_sam.report.backends import place_of_backends
from lora_sam.report.markup import serialize
from lora_sam.report.page import report_html
from lora_sam.report.robustness import place_of_robustness, put_robustness, robustness_section

EVIL = '</section><script>alert("1")</script><!--/robustness-->'
SECTIONS = ("jitter", "points", "prompts", "clicks", "calibration", "classes", "outlines", "detection", "forgetting")


def means(base: float, tuned: float) -> dict[str, Any]:
    return {
        "base": base, "tuned": tuned, "delta": tuned - base,
        "base_interval": [base - 0.05, base + 0.05], "tuned_interval": [tuned - 0.05, tuned + 0.05],
        "delta_interval": [tuned - base - 0.01, tuned - base + 0.01],
    }  # fmt: skip


def row(prompt: str, value: float | None, base: float, tuned: float) -> dict[str, Any]:
    return {"prompt": prompt, "value": value, "iou": means(base, tuned)}


def reliability(error: float) -> dict[str, Any]:
    full = {"low": 0.8, "high": 0.9, "objects": 7, "predicted": 0.85, "actual": 0.85 - error}
    empty = {"low": 0.9, "high": 1.0, "objects": 0, "predicted": None, "actual": None}
    return {"error": error, "bias": error, "bins": [full, empty]}


def content(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "split": "test", "images": 24, "objects": 190,
        "jitter": [row("tight box", 0.0, 0.6125, 0.8125), row("box, sides moved by up to 10 %", 0.1, 0.5125, 0.7125)],
        "points": [row("8 points", 8, 0.55, 0.75), row("1 point", 1, 0.35, 0.65)],
        "prompts": [row("own", None, 0.6125, 0.8125), row("tight box", None, 0.6125, 0.8125)],
        "clicks": {
            "most": 20,
            "levels": [{"level": 0.85, "clicks": means(12.25, 4.75), "never": {"base": 0.31, "tuned": 0.04}}],
            "mean_iou": {"base": [0.35, 0.5, 0.6], "tuned": [0.65, 0.8, 0.88]},
        },
        "calibration": {"base": reliability(0.123), "tuned": reliability(0.045)},
        "classes": {
            "classes": [
                {"name": "ring", "images": 20, "objects": 150, "iou": means(0.625, 0.875), "dice": means(0.7, 0.9),
                 "f1": means(0.73, 0.93), "pooled_dice": {"base": 0.71, "tuned": 0.92}},
                {"name": "disc", "images": 4, "objects": 40, "iou": means(0.5, 0.6), "dice": means(0.6, 0.7),
                 "f1": means(0.6, 0.7), "pooled_dice": {"base": 0.6, "tuned": 0.7}},
            ],
            **{f"mean_{figure}": {"base": 0.625, "tuned": 0.875} for figure in ("iou", "dice", "f1")},
            "pooled_dice": {"base": 0.72, "tuned": 0.93},
        },
        "outlines": means(6.5, 2.25),
        "detection": {
            name: {"all": {"precision": value, "recall": value + 0.1}, "large": {"precision": None, "recall": None}}
            for name, value in (("base", 0.41), ("tuned", 0.63))
        },
        "forgetting": {
            "images": 24, "objects": 160, "iou": means(0.8, 0.7), "forgot": True,
            "sentence": "forgot: IoU on generic shapes fell from 0.800 to 0.700 (difference -0.100)",
        },
    }  # fmt: skip
    return {**values, **changes}


def charts(section: Element) -> list[str]:
    return [svg.get("aria-label") or "" for svg in section.iter("svg")]


def test_every_figure_is_there() -> None:
    text = serialize(robustness_section(content()))
    for shown in (
        "24 test images with 190 objects",
        "<strong>Forgot: IoU on generic shapes fell from 0.800 to 0.700 (difference -0.100).</strong>",
        "the run's own prompts", "0.812<small>[0.762, 0.863]</small>", "+0.200<small>[+0.190, +0.210]</small>",
        "NoC@85", "4.75<small>[4.70, 4.80]</small>", "never: 31% (base) and 4% (tuned) of the objects",
        "Hausdorff 95", "2.25<small>[2.20, 2.30]</small>", "<td>0.123</td><td>0.045</td><td>-0.078</td>",
        "COCO mAP, all", "<td>0.410</td><td>0.630</td><td>+0.220</td>",
        "<h3>IoU by prompt</h3>", "<h3>Other figures</h3>", "<h3>By class</h3>",
        "ring<small>150 objects in 20 images</small>",
        "<td>0.625 → 0.875<small>+0.250 [+0.240, +0.260]</small></td>", "<td>0.720 → 0.930<small>+0.210</small></td>",
    ):  # fmt: skip
        assert shown in text, shown
    assert "large" not in text  # no object is
    # a kind of prompt that two sections share is one line, in the order of its axis
    lines = ["the run's own prompts", "tight box", "box, sides moved by up to 10 %", "8 points", "1 point"]
    assert [text.index(f">{line}<") for line in lines] == sorted(text.index(f">{line}<") for line in lines)
    assert text.count(">tight box<") == 1
    assert text.count("<table>") == 3


def test_too_few_images_are_said() -> None:
    told = "So few images make intervals too narrow."
    assert told in serialize(robustness_section(content(images=9)))
    assert told not in serialize(robustness_section(content(images=10)))


def test_charts() -> None:
    found = charts(robustness_section(content()))
    assert found == [
        "IoU against box jitter. From 0.812 at jitter, % of the side 0 to 0.713 at jitter, % of the side 10.",
        "IoU against number of points. From 0.650 at points 1 to 0.750 at points 8.",
        "IoU after simulated clicks. From 0.650 at clicks 1 to 0.880 at clicks 3.",
        "Actual against predicted IoU. From 0.805 at predicted IoU 0.85 to 0.805 at predicted IoU 0.85.",
    ]
    # one point is no curve
    assert len(charts(robustness_section(content(jitter=content()["jitter"][:1])))) == 3


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_alone_and_absent(section: str) -> None:
    absent = dict.fromkeys(SECTIONS)
    whole = serialize(robustness_section(content()))
    alone = serialize(robustness_section(content(**{**absent, section: content()[section]})))
    without = serialize(robustness_section(content(**{section: None})))
    nothing = serialize(robustness_section(content(**absent)))
    assert len(nothing) < len(alone) < len(whole)
    assert len(without) < len(whole)
    assert "<h2>Robustness</h2>" in nothing


def test_a_page_gets_one_section_beside_that_of_back_ends(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page = report_html(**contents)
    path.write_text(page, encoding="utf-8")
    for _ in range(2):
        assert put_robustness(path, content())
        text = path.read_text(encoding="utf-8")
        assert text.count("<h2>Robustness</h2>") == 1
    places = [serialize(comment) for comment in (*place_of_backends(), *place_of_robustness())]
    assert [text.index(place) for place in places] == sorted(text.index(place) for place in places)
    before, _, rest = text.partition(places[2])
    assert before + places[2] + places[3] + rest.partition(places[3])[2] == page


def test_nothing_in_it_can_act(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_html(**contents), encoding="utf-8")
    values = content(split=EVIL, prompts=[row(EVIL, None, 0.5, 0.6)])
    values["classes"]["classes"][0]["name"] = EVIL
    values["forgetting"]["sentence"] = EVIL
    for _ in range(2):
        assert put_robustness(path, values)
        text = path.read_text(encoding="utf-8")
        assert text.count("<script>") == 1
        assert text.count("<!--/robustness-->") == 1


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(b"notes \xff")
    assert not put_robustness(path, content())
    assert path.read_bytes() == b"notes \xff"
