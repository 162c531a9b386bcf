"""The table and the page of a sweep: what fits 80 columns, what is drawn, and that nothing is fetched or marked up."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.sweeps.quick_run import evaluation
from lora_sam.report.charts import WIDTH
from lora_sam.report.sweep import sweep_page
from lora_sam.report.sweep_charts import cost_chart, heat_map, ordered, parallel_chart
from lora_sam.report.sweep_table import next_commands, short_names, table
from lora_sam.runs.sweep import Sweep, collect, finish
from lora_sam.runs.sweep_jobs import Job
from tests.runs.sweeps import grid, job

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Sweep, Path]:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "swept"
    rows = [(rank, lr, "decoder") for rank in (2, 16, 4) for lr in (0.001, 0.0003)]
    planned = grid(place, ["method.rank", "optim.lr", "method"], rows)
    values = {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.65}
    for number, value in values.items():
        report = evaluation([value + 0.1, value - 0.1], parameters=1000 * rows[number][0], kept_step=number)
        job(place, number, planned[number], report)
    job(place, 4, planned[4], status="failed", error=f"{EVIL} is wrong")
    found = collect(place, "finished")
    finish(place, found)
    return found, place


def rendered(found: Sweep, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table(found))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_images_that_are_reported_and_chose_are_not_said_to_choose_nothing(sweep: tuple[Sweep, Path]) -> None:
    """With evaluate_split=val the table said that val chooses nothing, below what it had ranked by it."""
    found, place = sweep
    own = replace(found, jobs=tuple(replace(one, split=one.split and "val") for one in found.jobs))
    assert "test IoU chooses nothing" in " ".join(rendered(found, 80)[-3:])
    assert "val IoU is of images that chose, and flatters" in " ".join(rendered(own, 80)[-3:])
    pages = sweep_page(found, place), sweep_page(own, place)
    flatter, last = "so those figures flatter", "is worth is its figure on images that chose nothing"
    assert [(flatter in page, last in page) for page in pages] == [(False, False), (True, True)]


def test_the_table_fits_80_columns_whatever_was_typed(sweep: tuple[Sweep, Path], tmp_path: Path) -> None:
    lines = rendered(sweep[0], 80)
    assert max(len(line) for line in lines) <= 80
    assert lines[1].split() == ["job", "rank", "lr", "val", "IoU", "95", "%", "test", "IoU", "time"]
    assert [line.split()[:4] for line in lines[3:7]] == [
        ["1", "2", "16", "0.001"],
        ["2", "3", "16", "0.0003"],
        ["3", "1", "2", "0.0003"],
        ["4", "0", "2", "0.001"],
    ]
    assert "= base" in lines[6]
    assert "[0.450, 0.550]" not in lines[6]
    assert lines[7].split() == ["4", "4", "0.001", "failed"]
    assert lines[8].split() == ["5", "4", "0.0003", "missing"]
    planned = grid(
        tmp_path / "long", ["a.b.first", "c.second", "d.third", "data.root"], [("x" * 60, 1, 2, "/very/long" * 9)] * 2
    )
    planned[1][1] = "a.b.first=y"
    wide = Sweep(
        state="running",
        command=(),
        overrides=(),
        started=0.0,
        varied=("a.b.first", "c.second", "d.third", "data.root"),
        jobs=collect(tmp_path / "long").jobs,
    )
    assert max(len(line) for line in rendered(wide, 80)) <= 80


def test_sets_that_validated_on_something_else_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "swept"
    planned = grid(place, ["prompt", "optim.lr"], [(kind, lr) for kind in ("box", "point") for lr in (0.1, 0.2)])
    for number, value in enumerate([0.9, 0.8, 0.5, 0.6]):
        report = {**evaluation([value, value]), "split": "val"}
        report["validation"]["asked"] = str(number // 2)
        job(place, number, planned[number], report)
    found = collect(place, "finished")
    lines = rendered(found, 80)
    assert [line.split()[:3] for line in lines[3:7]] == [
        ["A1", "0", "box"],
        ["A2", "1", "box"],
        ["B1", "3", "point"],
        ["B2", "2", "point"],
    ]
    assert "A, B: validated on other images or prompts, so ranked apart" in " ".join(lines)
    assert lines[1].split()[-5:] == ["95", "%", "val", "IoU", "time"]
    assert next_commands(found, place, "python train.py") == [
        "no job is the best of all: they validated on different images or prompts",
        "next:   python -m lora_sam.deploy run=swept/0",
    ]
    page = sweep_page(found, place)
    assert ">No job is the best of all: they validated on different images or prompts<" in page
    assert re.findall(r"At a glance, set (.)", page) == ["A", "B"]
    assert re.findall(r"best of [AB]", page) == ["best of A", "best of B"]
    assert "test IoU" not in page


def test_of_several_seeds_the_mean_is_shown_and_the_best_is_that_of_the_ranking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The luckiest seed is of the worse configuration."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "swept"
    rows = [(rank, lr, seed) for rank in (2, 4) for lr in (0.1, 0.2) for seed in (0, 1)] + [(8, 0.1, 0), (8, 0.1, 1)]
    planned = grid(place, ["method.rank", "optim.lr", "seed"], rows)
    for number, value in enumerate([0.95, 0.15, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1]):
        job(place, number, planned[number], evaluation([value, value]))
    job(place, 8, planned[8], status="failed", error="a bug")
    found = collect(place, "finished")
    assert found.best == 2
    lines = rendered(found, 80)
    assert [line.split()[:4] for line in lines if " 0 of 2 " in line] == [["8", "0.1", "0", "of"]]
    assert "failed/missing" in lines[7]
    page = sweep_page(found, place)
    heat = page[page.index(">rank against lr") :].partition("</svg>")[0]
    assert re.findall(r'class="mark middle"[^>]*>([\d.]+)<', heat) == ["0.650"]
    assert "Best: rank 2, lr 0.2, seed 0." in page
    assert "validation IoU of 2 seeds, mean" in page
    assert "0.7000" not in page.partition("Over seeds")[0]
    assert next_commands(found, place, "python train.py")[0] == (
        "best: method.rank=2, optim.lr=0.2 with 0.6500, mean of 2 seeds; of these job 2 has 0.7000"
    )


@pytest.mark.parametrize("kept", [(0, 0), (0, 9)])
def test_a_base_of_another_model_is_the_best_without_being_that_of_all(
    kept: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "swept"
    planned = grid(place, ["model"], [("vit_b",), ("nano",)])
    for number, value in enumerate([0.9, 0.8]):
        report = evaluation([value, value], kept_step=kept[number])
        report["validation"]["trained_on"] = 2
        job(place, number, planned[number], report)
    found = collect(place, "finished")
    lines = next_commands(found, place, "python train.py")
    said = "no job beat the base" if kept == (0, 0) else "it is its base, which no training of it beat"
    assert lines[0] == f"best: job 0 with 0.9000 (model=vit_b); {said}"
    assert lines[1].startswith("note:   the images that validated trained too")
    page = sweep_page(found, place)
    assert ("No job beat the base" in page) is (kept == (0, 0))
    assert "The images that validated trained too" in page
    assert "Go on with what is missing" not in page  # nothing is


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert short_names(["method.rank", "optim.lr", "seed", "a.x.lr"]) == {
        "method.rank": "rank",
        "optim.lr": "optim.lr",
        "seed": "seed",
        "a.x.lr": "x.lr",
    }
    assert ordered(["16", "2", "1e-4", "abc", "2"]) == ["1e-4", "2", "16", "abc"]


class Checker(HTMLParser):
    """Every address of a page, and whether all elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action")]


def test_the_page_shows_everything_and_asks_for_nothing(sweep: tuple[Sweep, Path]) -> None:
    found, place = sweep
    page = sweep_page(found, place)
    checker = Checker()
    checker.feed(page)
    assert checker.scripts == 1  # that of the template
    assert sorted(checker.addresses) == ["0/report.html", "1/report.html", "2/report.html", "3/report.html", "data:,"]
    assert EVIL not in page
    assert "alert(1)" in page
    assert "Best: method.rank = 16, optim.lr = 0.001" in page
    for title in (
        "Every job",
        "rank against lr",
        "IoU against trained weights",
        "IoU against size",
        "IoU against time",
    ):
        assert f">{title}" in page
    heat = page[page.index(">rank against lr") :].partition("</svg>")[0]
    assert re.findall(r'class="mark middle"[^>]*>([\d.]+)<', heat) == ["0.700"]
    shades = [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', heat)]
    assert (min(shades), max(shades), len(shades)) == (0.12, 0.62, 4)
    parallel = page[page.index(">Every job") :].partition("</svg>")[0]
    assert parallel.count('class="line raw"') == 3
    assert re.findall(r'class="line tuned"><title>job (\d)', parallel) == ["2"]
    rows = re.findall(r'<tr(?: class="best")?><th scope="row">(?:<a href="\d/report.html">)?(\d) ?(◆?)', page)
    # job 1 is the best of its size, job 2 of all; job 0 was the fastest
    assert rows == [("2", "◆"), ("3", ""), ("1", "◆"), ("0", "◆"), ("4", ""), ("5", "")]


def test_next_commands_name_the_sweep(sweep: tuple[Sweep, Path]) -> None:
    found, place = sweep
    assert next_commands(found, place, "lora-sam train") == [
        "best: job 2 with 0.7000 (method.rank=16, optim.lr=0.001)",
        "go on:  lora-sam train sweep=swept",
        "next:   lora-sam deploy run=swept",
    ]


def test_a_sweep_without_a_result_has_a_page(tmp_path: Path) -> None:
    grid(tmp_path / "swept", ["method.rank"], [(1,), (2,)])
    found = collect(tmp_path / "swept", "running")
    page = sweep_page(found, tmp_path / "swept")
    assert "No job is done yet" in page
    assert "<svg" not in page
    assert next_commands(found, tmp_path / "swept", "python train.py")[0].startswith("no job is done; mend what failed")


def job_of(number: int, validation: float, rate: str, rank: str) -> Job:
    overrides = (f"optim.lr={rate}", f"method.rank={rank}")
    return Job(job=number, state="done", overrides=overrides, validation=validation, trained_parameters=372_164)


def test_no_label_is_cut_off_where_jobs_hardly_differ_and_values_are_long() -> None:
    rates = ("0.000316227766016838", "1.2345678901234e-05")
    jobs = [job_of(n, 0.8412 + 1e-6 * n, rates[n % 2], ("4", "128")[n // 2]) for n in range(4)]
    names = {"optim.lr": "lr", "method.rank": "rank"}
    charts = [
        cost_chart(jobs, "trained_parameters", "IoU against weights", "trained weights"),
        parallel_chart(jobs, names),
        heat_map(jobs, ("optim.lr", "method.rank"), names),
        heat_map(jobs, ("method.rank", "optim.lr"), names),
    ]
    labels = set()
    for chart in charts:
        assert chart is not None
        for text in chart.iter("text"):
            x, kind, label = float(text.get("x", "0")), text.get("class", ""), text.text or ""
            width = float(text.get("textLength", 6.8 * len(label)))
            share = 1.0 if "end" in kind else 0.5 if "middle" in kind else 0.0
            assert x - share * width >= 0, label
            assert x + (1 - share) * width <= WIDTH, label
            labels.add(label)
    assert {"0.0003162", "1.235e-05", "400,000"} <= labels
    ticks = sorted(float(one) for one in labels if re.fullmatch(r"0\.8\d+", one))
    assert ticks[0] <= 0.8412 <= ticks[-1]
    assert ticks[-1] - ticks[0] > 0.002
    parallel = charts[1]
    assert parallel is not None
    kinds = ["halo" if "halo" in one.get("class", "") else one.tag for one in parallel]
    assert kinds.count("halo") == 4
    assert kinds[-4:] == ["halo"] * 4  # over the lines, which would strike them through
