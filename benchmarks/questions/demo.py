"""Does the demo that a newcomer runs show an improvement, in the time and memory that a laptop has?"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from benchmarks.needs import packaged_nano
from benchmarks.processes import run
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure, usable_cores
from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.layout import validate_report
from scripts.figure_of_run import write_figure

QUESTION = "`python train.py`, the demo, with three seeds: IoU before and after, time, memory, and its report"
QUICK = False

SEEDS = (0, 1, 2)
GAIN = 0.10
FIRST_SECONDS = 180.0
PEAK_GIB = 3.0
REPORT_MB = 3.0
PICTURE = ROOT / "docs" / "images" / "demo.png"

_TINY = (
    "model=tiny_random", "data.train=3", "data.val=2", "data.test=2", "data.side=128",
    "trainer.max_steps=2", "trainer.validation_objects=2",
)  # fmt: skip
# attributes whose value a browser follows or loads
_LINKS = {"src", "srcset", "href", "xlink:href", "poster", "data", "action", "formaction", "background"}
_CSS = re.compile(r"""url\(\s*["']?([^"')]*)|@import\s+["']([^"']*)""", re.IGNORECASE)


def measure(*, rehearse: bool) -> Outcome:
    """Run the demo once per seed in one new directory, as a user would; the first run also draws its images."""
    extra = _TINY if rehearse else ()
    seeds = SEEDS[:1] if rehearse else SEEDS
    threads = min(2, usable_cores())
    if not rehearse:
        packaged_nano()
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            sys.stderr.write(f"  python train.py experiment=demo seed={seed}\n")
            runs[str(seed)] = _demo(Path(temporary), ["experiment=demo", f"seed={seed}", *extra], threads)
            if seed == SEEDS[0] and not rehearse:
                write_figure(PICTURE, RunDirectory(Path(temporary) / "outputs" / "latest"))
    return Outcome(
        settings={"seeds": list(seeds), "overrides": list(extra), "threads": threads, "device": "cpu"},
        checks=check_runs(runs),
        figures=figures(runs),
        details={"runs": runs},
    )


def _demo(directory: Path, overrides: list[str], threads: int) -> dict[str, Any]:
    """One run in `directory`, watched from outside, and what it left in `outputs/latest`."""
    watched = [sys.executable, "-m", "benchmarks.sides.watched", "--directory", str(directory)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "LORA_SAM_OFFLINE": "1",
    }
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    done = run([*watched, *command], environment=environment, show_progress=True)
    result = RunDirectory(directory / "outputs" / "latest")
    if not result.report.is_file():
        raise BenchmarkError(f"`python train.py {' '.join(overrides)}` left no {result.report.name}")
    evaluation, facts = (
        json.loads(path.read_text(encoding="utf-8")) for path in (result.evaluation, result.adapter / "lora_sam.json")
    )
    validate_report(evaluation)
    page = result.report.read_text(encoding="utf-8")
    return collect(evaluation, facts, page, json.loads(done.stdout.splitlines()[-1]))


def collect(evaluation: dict[str, Any], facts: dict[str, Any], page: str, watched: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run.

    Args:
        evaluation: Its `evaluation.json`.
        facts: Its `adapter/lora_sam.json`.
        page: Its `report.html`.
        watched: Answer of `benchmarks.sides.watched`: time and memory of the whole process.
    """
    wanted = ("base", "tuned", "delta", "images", "objects", "trainable_parameters", "adapter_bytes", "seconds")
    return {
        **{key: evaluation[key] for key in wanted},
        "wall_seconds": round(watched["seconds"], 1),
        "peak_memory_bytes": watched["peak_bytes"],
        "reported_memory_bytes": evaluation["peak_memory_bytes"],
        "steps": facts["steps"],
        "best_step": facts["best_step"],
        "base_sha256": facts["base"]["sha256"],
        "report_bytes": len(page.encode()),
        "external_references": external_references(page),
    }


def check_runs(runs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """That all seeds began with one base on one test set, and that memory means one thing inside and outside.

    Raises:
        BenchmarkError: the base was measured differently, or a run reports more memory than its process ever held.
    """
    bases = {(round(one["base"]["iou"], 6), one["images"], one["objects"]) for one in runs.values()}
    if len(bases) > 1:
        raise BenchmarkError(f"the base was measured differently (IoU, images, objects): {sorted(bases)}")
    for seed, one in runs.items():
        if one["reported_memory_bytes"] is not None and one["reported_memory_bytes"] > one["peak_memory_bytes"]:
            raise BenchmarkError(
                f"seed {seed} reports a peak of {one['reported_memory_bytes']:,} bytes, its process held "
                f"{one['peak_memory_bytes']:,} at most"
            )
    ((iou, images, objects),) = bases
    first = next(iter(runs.values()))
    reported = first["reported_memory_bytes"]
    return {
        "base": f"test IoU {iou:.4f} on {images} images, {objects} objects with every seed",
        "peak memory": f"{_gib(first['peak_memory_bytes']):.2f} GiB of the process (ru_maxrss)"
        + ("" if reported is None else f", {_gib(reported):.2f} GiB in evaluation.json, which ends with the training"),
    }


def figures(runs: dict[str, dict[str, Any]]) -> list[Figure]:
    """The gain with every seed, the time of the first run, and the largest memory, page and number of references."""
    gains = [
        figure(
            f"gain_{seed}",
            f"demo, seed {seed}: tuned − base test IoU",
            one["delta"]["iou"],
            limit=GAIN,
            relation=">=",
            interval=tuple(one["delta"]["iou_interval"]),
        )
        for seed, one in runs.items()
    ]
    every = list(runs.values())
    memory = [_gib(one["peak_memory_bytes"]) for one in every]
    pages = [one["report_bytes"] / 1e6 for one in every]
    requests = [len(one["external_references"]) for one in every]
    first = every[0]["wall_seconds"]
    return [
        *gains,
        figure("first_seconds", "demo, first run, images drawn as well", first, unit="s", limit=FIRST_SECONDS),
        figure("memory", "demo, peak memory", memory, unit="GiB", value=max(memory), limit=PEAK_GIB),
        figure("report", "demo, report.html", pages, unit="MB", value=max(pages), limit=REPORT_MB),
        figure("references", "demo, references to elsewhere in report.html", requests, value=max(requests), limit=0),
    ]


def external_references(page: str) -> list[str]:
    """What an HTML page refers to outside itself: files, other pages, anything but fragments and `data:`."""
    finder = _References()
    finder.feed(page)
    finder.close()
    return [value for value in finder.found if value and not value.startswith(("#", "data:"))]


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attributes:
            if name in _LINKS:
                self.found.append((value or "").strip())
            elif name == "style":
                self._search(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._search(data)

    def _search(self, css: str) -> None:
        self.found += [(url or imported).strip() for url, imported in _CSS.findall(css)]


def _gib(count: int) -> float:
    return count / 2**30
