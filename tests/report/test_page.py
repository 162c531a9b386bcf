"""The page: what it says, that it asks nobody for anything, that nothing in it can act."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lora_sam.core.errors import TrainingError
from lora_sam.report.next_steps import NextStep
from lora_sam.report.page import object_ious, report_html, write_report

EVIL = '<script>alert("1")</script>&amp;.png'
VOID = {"br", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Checks that every element is closed in order; keeps elements with their attributes, and the text by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(contents: dict[str, Any]) -> Page:
    return Page(report_html(**contents))


def test_no_reference_leads_out_of_the_file(contents: dict[str, Any]) -> None:
    text = report_html(**contents)
    page = Page(text)
    references = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}
    ]
    assert len(references) == 1 + 4 * 5
    assert all(value is not None and re.match(r"data:(image/(png|jpeg);base64,|,$)", value) for value in references)
    styles = page.text["style"] + "".join(attributes.get("style") or "" for _, attributes in page.elements)
    assert "url(" not in styles
    assert "@import" not in styles
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}


def test_a_policy_forbids_requests_before_anything_else_is_read(page: Page) -> None:
    metas = page.all("meta")
    assert metas[1]["http-equiv"] == "Content-Security-Policy"
    policy = {part.split()[0]: part.split()[1:] for part in (metas[1]["content"] or "").split(";")}
    assert policy["default-src"] == ["'none'"]
    assert policy["img-src"] == ["data:"]
    assert policy["style-src"] == policy["script-src"] == ["'unsafe-inline'"]


def test_names_and_settings_are_text(contents: dict[str, Any]) -> None:
    steps = (NextStep("Try <i>this</i>", "python train.py 'data.root=<u>'"),)
    notes, typed = ["note <script>alert(2)</script>"], ["data.root=</code><script>alert(3)</script>"]
    text = report_html(**{**contents, "next_steps": steps, "notes": notes, "overrides": typed, "usage": "a < b & c"})
    page = Page(text)
    assert "alert" not in page.text["script"]
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert not page.all("i")
    assert all("onerror" not in attributes for _, attributes in page.elements)
    # shown as they are
    assert EVIL in page.text["span"]
    assert any((image["alt"] or "").startswith(EVIL) for image in page.all("img"))
    assert "<b>weights</b>.pth" in page.text["td"]
    assert "a < b & c" in page.text["code"]
    assert "<img src=https://example.org/x onerror=alert(1)></pre>" in page.text["code"]


def test_undecodable_names_do_not_stop_a_run(contents: dict[str, Any], tmp_path: Path) -> None:
    pictures = [replace(contents["pictures"][0], id="caf\udce9.png")]
    write_report(tmp_path / "report.html", report_html(**{**contents, "pictures": pictures}))
    assert "caf?.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_control_has_a_label_and_every_picture_a_text(page: Page) -> None:
    labels = {label["for"] for label in page.all("label")}
    controls = page.all("input")
    assert sorted(control["type"] or "" for control in controls) == ["checkbox"] * 5 + ["range"] * 5
    assert {control["id"] for control in controls} == labels
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("svg")) == 3
    assert "base 0.310" in page.text["text"]
    assert "best 0.620 at step 50" in page.text["text"]


def test_headline_and_table_give_the_figures_of_the_evaluation(contents: dict[str, Any], page: Page) -> None:
    report = contents["report"]
    assert page.text["h1"] == "Tuned is better than base"
    low, high = report["delta"]["iou_interval"]
    assert f"{report['base']['iou']:.3f} → {report['tuned']['iou']:.3f}" in page.text["dd"]
    assert f"95 % interval {low:+.3f} to {high:+.3f}" in page.text["dt"]
    assert "10 objects in 5 images, too few images" in page.text["p"]
    assert "1.19 MB" in page.text["dd"]
    assert "4 min 32 s" in page.text["dd"]
    for metric in ("iou", "dice", "f1", "boundary_f1"):
        assert f"{report['delta'][metric]:+.3f}" in page.text["td"]
        low, high = report["tuned"][f"{metric}_interval"]
        assert f"[{low:.3f}, {high:.3f}]" in page.text["small"]
    assert "–" in page.text["td"]  # there are no large objects
    assert "ab" * 32 in page.text["code"]


def test_settings_tell_what_was_typed_and_how_large_the_data_was(contents: dict[str, Any]) -> None:
    data = {"train": (1234, 5678), "val": (12, None)}
    page = Page(
        report_html(**{**contents, "data": data, "overrides": ["method.rank=8", "seed=3"], "notes": ["a note"]})
    )
    assert "1,234 with 5,678 objects12" in page.text["td"]
    assert "method.rank=8 seed=3" in page.text["code"]
    assert 'rank 8, targets ["q", "v"]' in page.text["td"]
    assert page.text["li"] == "a note"
    box = {
        "_target_": "lora_sam.prompts.boxes.BoxPrompt",
        "jitter": "uniform",
        "jitter_pixels": 0.0,
        "jitter_fraction": 0.0,
    }
    trained = {"config": {**contents["config"], "prompt": {**box, "jitter_evaluation": False}}}
    assert "boxes; " in Page(report_html(**{**contents, **trained})).text["td"]
    assert "boxes; " not in page.text["td"]  # that of the page does not say
    many = Page(report_html(**{**contents, "notes": ["skipped"] * 1000}))
    assert many.text["li"] == "skipped" * 30 + "and 970 more"
    assert json.loads(page.text["code"][page.text["code"].index("{") :]) == contents["config"]


@pytest.mark.parametrize(
    ("delta", "interval", "claim", "tone"),
    [
        (-0.2, [-0.3, -0.1], "Tuned is worse than base", "bad"),
        (0.0, [-0.1, 0.1], "No measurable difference between base and tuned", "even"),
    ],
)
def test_the_headline_does_not_flatter(
    contents: dict[str, Any], delta: float, interval: list[float], claim: str, tone: str
) -> None:
    report = contents["report"]
    report = {**report, "delta": {**report["delta"], "iou": delta, "iou_interval": interval}}
    page = Page(report_html(**{**contents, "report": report}))
    assert page.text["h1"] == claim
    assert page.all("h1")[0]["class"] == tone


def test_objects_are_counted_where_their_scores_are_at_hand(contents: dict[str, Any], measured: Any) -> None:
    scores = object_ious(measured(["a", "b"])[0])
    assert scores == {"base": [0.5] * 4, "tuned": [0.8, 0.8, 0.4, 0.4]}
    page = Page(report_html(**{**contents, "object_iou": scores}))
    assert page.all("svg")[2]["aria-label"] == (
        "IoU of every object. base: median 0.50 of 4 objects; tuned: median 0.60 of 4 objects"
    )
    without = Page(report_html(**contents))
    assert (without.all("svg")[2]["aria-label"] or "").startswith("Mean IoU of every image")


@pytest.mark.parametrize("log", [[], [{"step": 10, "loss": None}], [{"step": 10, "loss": 0.5}]])
def test_runs_with_hardly_a_log_have_a_page(contents: dict[str, Any], log: list[dict[str, Any]]) -> None:
    page = Page(report_html(**{**contents, "log": log, "pictures": ()}))
    assert "nothing was logged" in page.text["text"]
    assert not page.all("figure")


def test_the_same_run_gives_the_same_page(contents: dict[str, Any]) -> None:
    assert report_html(**contents) == report_html(**contents)


def test_writes_whole_files_and_names_a_place_it_cannot_write(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "<p>ä")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "<p>ä"
    with pytest.raises(TrainingError, match=r"report\.html"):
        write_report(tmp_path / "report.html" / "report.html", "")
