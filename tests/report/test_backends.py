"""The section about back ends: every figure in it, once, in a page that stays closed to the outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_sam.report.backends import backends_section, place_of_backends, put_backends
from lora_sam.report.markup import serialize
from lora_sam.report.page import report_html

EVIL = '</section><script>alert("1")</script><!--/back-ends-->'
VERDICTS = ("int8 loses 0.31 points of IoU against fp32 (95 % interval 0.10 to 0.50)",)


def entry(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"runtime": "openvino", "weights": "int8", "execution": "f32"}
    for name, value in {"iou": 0.8125, "dice": 0.88, "f1": 0.9, "boundary_f1": 0.7}.items():
        values |= {name: value, f"{name}_interval": (value - 0.05, value + 0.05)}
    values |= {"map": 0.5, "map_50": 0.9, "map_75": 0.6, "iou_with_torch": 0.9991}
    for number, name in enumerate(("encoder", "decoder", "first_prompt", "next_prompt"), 1):
        values |= {f"{name}_ms": 110.0 * number, f"{name}_ms_range": (99.0 * number, 120.0 * number)}
    return {**values, "bytes": 31_400_000, "peak_memory_bytes": 271_000_000, **changes}


def content(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "split": "test",
        "images": 24,
        "objects": 230,
        "multimask": False,
        "mask_threshold": 0.0,
        "tuned_threshold": None,
        "tuned_by": None,
        "repeats": 5,
        "image_size": [384, 512],
        "host": {
            "cpu": "a CPU",
            "cores": 2,
            "threads": None,
            "torch_threads": 1,
            "versions": {"torch": "2.15", "openvino": None},
        },
        "backends": {"tuned": entry(runtime="torch", weights="fp32"), "int8": entry()},
    }
    return {**values, **changes}


def test_every_figure_is_there() -> None:
    text = serialize(backends_section(content(), VERDICTS))
    for shown in (
        "<li>int8 loses 0.31 points", "24 test images with 230 objects", "0.812<small>[0.762, 0.863]</small>", "0.9991",
        "110<small>[99.0, 120]</small>", "440<small>[396, 480]</small>", "<td>31.4</td>", "<td>271</td>",
        "OpenVINO, int8, runs in f32", "512 x 384 px", "a CPU, 2 cores, torch on 1; torch 2.15.",
    ):  # fmt: skip
        assert shown in text, shown
    assert text.count("<table>") == 2
    assert "logit" not in text


def test_what_was_not_measured_and_a_threshold() -> None:
    tuned = {"threshold": 0.7, "iou": 0.82, "iou_at_zero": 0.8, "images": 12, "objects": 127}
    values = content(
        backends={"int8": entry(iou_with_torch=None, peak_memory_bytes=None)},
        tuned_threshold=tuned, tuned_by="tuned", mask_threshold=0.7, multimask=True,
    )  # fmt: skip
    text = serialize(backends_section(values, ()))
    assert text.count("<td>–</td>") == 2
    assert "above the logit 0.7, the best for tuned on 12 validation images (IoU 0.800 → 0.820)" in text
    assert "Of three masks" in text
    assert "<ul>" not in text


def test_a_page_gets_one_section_however_often(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page = report_html(**contents)
    path.write_text(page, encoding="utf-8")
    assert put_backends(path, content(), VERDICTS)
    first = path.read_text(encoding="utf-8")
    assert first.count("<h2>Back ends</h2>") == 1
    # between the figures of the run and what was run
    order = [first.index(title) for title in ("<h2>All figures", "<h2>Back ends</h2>", "<h2>What was run</h2>")]
    assert order == sorted(order)
    assert put_backends(path, content(images=7), ("int8 gains",))
    second = path.read_text(encoding="utf-8")
    assert second.count("<h2>Back ends</h2>") == 1
    assert "same 7 test images" in second
    assert "24 test images with 230" not in second
    assert "int8 gains" in second
    begin, end = (serialize(comment) for comment in place_of_backends())
    before, _, rest = second.partition(begin)
    assert before + begin + end + rest.partition(end)[2] == page


def test_nothing_in_it_can_act(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    contents["overrides"] = [f"data.root={EVIL}"]
    path.write_text(report_html(**contents), encoding="utf-8")
    host = {**content()["host"], "cpu": EVIL}
    values = content(host=host, split=EVIL, backends={EVIL: entry(execution=EVIL)}, tuned_by=EVIL)
    for _ in range(2):
        assert put_backends(path, values, (EVIL,))
        text = path.read_text(encoding="utf-8")
        assert text.count("<script>") == 1
        assert text.count("<!--/back-ends-->") == 1
        assert text.count("<h2>What was run</h2>") == 1


@pytest.mark.parametrize("broken", ["<!--back-ends-->", "<!--/back-ends-->"])
def test_a_page_without_the_place_gets_the_section_at_its_end(
    broken: str, contents: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_html(**contents).replace(broken, ""), encoding="utf-8")
    for _ in range(2):
        assert put_backends(path, content(), VERDICTS)
        text = path.read_text(encoding="utf-8")
        assert text.count("<h2>Back ends</h2>") == 1
        assert text.index("<h2>What next</h2>") < text.index("<h2>Back ends</h2>") < text.index("</main>")


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(b"notes \xff")
    assert not put_backends(path, content(), VERDICTS)
    assert path.read_bytes() == b"notes \xff"
