"""The table of classes: its figures, in the page of a run and in the section about robustness."""

from __future__ import annotations

from typing import Any

import pytest

from lora_sam.report.classes import class_section, class_table
from lora_sam.report.markup import serialize
from lora_sam.report.page import report_html
from tests.report.conftest import report_of

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def classes(measured: Any) -> dict[str, Any]:
    report = report_of(measured(["a", "b", "c"], ("ring", EVIL))[0])
    found = report["classes"]
    assert isinstance(found, dict)
    return found


def test_every_figure_is_there(classes: dict[str, Any]) -> None:
    text = serialize(class_section(classes))
    assert "<h2>By class</h2>" in text
    assert "<script>" not in text
    ring = next(one for one in classes["classes"] if one["name"] == "ring")
    assert "ring<small>3 objects in 3 images</small>" in text
    for figure in ("iou", "dice", "f1"):
        low, high = ring[figure]["delta_interval"]
        before, after = ring[figure]["base"], ring[figure]["tuned"]
        assert f"{before:.3f} → {after:.3f}<small>{after - before:+.3f} [{low:+.3f}, {high:+.3f}]</small>" in text
        mean = classes[f"mean_{figure}"]
        assert f"{mean['base']:.3f} → {mean['tuned']:.3f}<small>{mean['tuned'] - mean['base']:+.3f}</small>" in text
    for pooled in (ring["pooled_dice"], classes["pooled_dice"]):
        rise = pooled["tuned"] - pooled["base"]
        assert f"{pooled['base']:.3f} → {pooled['tuned']:.3f}<small>{rise:+.3f}</small>" in text


def test_many_classes_are_not_all_shown(classes: dict[str, Any]) -> None:
    one = classes["classes"][0]
    many = {**classes, "classes": [{**one, "name": f"class {number}"} for number in range(60)]}
    text = serialize(class_table(many, "robustness.json"))
    assert "class 39<" in text
    assert "class 40<" not in text
    assert "and 20 more<small>in robustness.json</small>" in text


def test_one_class_is_not_summed_up(classes: dict[str, Any]) -> None:
    assert "mean of classes" in serialize(class_table(classes, "robustness.json"))
    text = serialize(class_table({**classes, "classes": classes["classes"][:1]}, "robustness.json"))
    assert "mean of classes" not in text
    assert "all classes" not in text


def test_a_page_has_the_section_where_there_are_classes(contents: dict[str, Any], classes: dict[str, Any]) -> None:
    assert "By class" not in report_html(**contents)
    page = report_html(**{**contents, "report": {**contents["report"], "classes": classes}})
    assert page.count("<h2>By class</h2>") == 1
    assert page.index("All figures on") < page.index("By class") < page.index("What was run")


def test_a_page_says_that_rounds_were_not_evaluated(contents: dict[str, Any]) -> None:
    assert "first prompt alone" not in report_html(**contents)
    report = {**contents["report"], "rounds": {"trained": 8, "evaluated": 1}}
    page = report_html(**{**contents, "report": report})
    assert "Training corrected its prompts in 8 rounds; these figures are those of the first prompt alone." in page
    assert "<code>python -m lora_sam.robustness run=latest sections=[clicks]</code> measures what clicks add." in page
