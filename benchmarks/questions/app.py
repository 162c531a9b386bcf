"""Does the page answer a click before a person waits, and without asking anyone else?"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.needs import packaged_nano
from benchmarks.processes import run, run_side
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure, usable_cores
from lora_sam.core.run_directory import find_run
from lora_sam.runs.adapter_files import read_facts

QUESTION = "`python app.py` on the demo's run, in a real browser: first paint, clicks, requests, accessibility"
QUICK = False

PAINT_SECONDS = 2.0
CLICK_MS, CLICK_P95_MS = 300.0, 600.0
FIRST_CLICK_SECONDS = 1.5
OUTSIDE_SHARE = 0.2
AXE = ROOT / "tests" / "browser" / "axe" / "axe.min.js"

_TINY = (
    "model=tiny_random", "data.train=3", "data.val=2", "data.test=2", "data.side=128",
    "trainer.max_steps=2", "trainer.validation_objects=2",
)  # fmt: skip


def measure(*, rehearse: bool) -> Outcome:
    """Train the demo, or take the runs in $LORA_SAM_APP_OUTPUTS, then use the page as a person does."""
    if shutil.which("chromium") is None:
        raise BenchmarkError("chromium is not there; `make test-browser` installs it")
    threads = min(2, usable_cores())
    clicks, starts = (4, 1) if rehearse else (40, 3)
    if not rehearse:
        packaged_nano()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        given = os.environ.get("LORA_SAM_APP_OUTPUTS")
        if given is None:
            sys.stderr.write("  python train.py experiment=demo\n")
            command = [sys.executable, str(ROOT / "train.py"), "experiment=demo", *(_TINY if rehearse else ())]
            run(command, directory=work, environment={**os.environ, "LORA_SAM_OFFLINE": "1"}, show_progress=True)
        outputs = work / "outputs" if given is None else Path(given).resolve()
        facts = read_facts(find_run(str(outputs / "latest")).adapter)
        arguments = ["--outputs", str(outputs), "--clicks", str(clicks), "--axe", str(AXE)]
        measured = [run_side("app", arguments, threads=threads) for _ in range(starts)]
    return Outcome(
        settings={"threads": threads, "starts": starts, "clicks": clicks, "run": "given" if given else "demo"},
        checks={
            "model": "{} at {} px, method {}".format(
                facts["architecture"]["variant"], facts["image_size"], facts["method"]["name"]
            ),
            "browser": measured[0]["browser"],
            "first example": "mean IoU of its objects {:.3f} with the base, {:.3f} tuned".format(*measured[0]["iou"]),
        },
        figures=figures(measured),
        details={"starts": measured},
    )


def figures(measured: list[dict[str, Any]]) -> list[Figure]:
    """The figures over all starts of the app; clicks of all of them together."""

    def every(name: str) -> list[float]:
        return [value for one in measured for value in one[name]]

    clicks = sorted(every("click_ms"))
    return [
        figure("paint", "from the end of the imports to the first paint with content",
               [one["paint_seconds"] for one in measured], unit="s", limit=PAINT_SECONDS),
        figure("click", "from a click to both masks on the screen, image already encoded", clicks, unit="ms",
               limit=CLICK_MS),
        figure("click_p95", "the same, 95th percentile", clicks, unit="ms", limit=CLICK_P95_MS,
               value=clicks[min(len(clicks) - 1, int(0.95 * len(clicks)))]),
        figure("first_click", "from choosing another image to the masks of all its prompts, encoding included",
               every("first_seconds"), unit="s", limit=FIRST_CLICK_SECONDS),
        figure("outside", "share of a click outside encoder and decoder, until masks are drawn",
               every("outside_share"),
               limit=OUTSIDE_SHARE),
        figure("foreign", "requests to hosts other than its own", max(one["foreign"] for one in measured), limit=0),
        figure("axe", "serious or critical findings of axe, light and dark together",
               max(one["serious"] for one in measured), limit=0),
        figure("imports", "imports before that", [one["import_seconds"] for one in measured], unit="s"),
        figure("model", "from the first paint to the masks of the first example",
               [one["ready_seconds"] for one in measured], unit="s"),
    ]  # fmt: skip
