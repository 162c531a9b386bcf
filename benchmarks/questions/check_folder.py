"""How long does it take to open a large folder of images and labels, and to check all of it?"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.processes import run, run_side, seconds_of
from benchmarks.record import BenchmarkError, Outcome, figure, usable_cores

QUESTION = "Opening and checking a folder of 5,000 images with label images, the whole command"
QUICK = False

IMAGES, SIDE = 5_000, 512
LIMIT = 60.0


def measure(*, rehearse: bool) -> Outcome:
    """Draw the folder, then time `python -m lora_sam.data.check` on all of it, once it is known what it says."""
    images, side = (12, 64) if rehearse else (IMAGES, SIDE)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "set"
        written = run_side("check_folder", [str(root), "--images", str(images), "--side", str(side)], threads=1)
        command = [sys.executable, "-m", "lora_sam.data.check", "data=labels", f"data.root={root}"]
        command += [f"out={Path(temporary) / 'page'}"]
        seconds = seconds_of(command)  # files are in memory, as they were just written
        said = " ".join(run([*command[:-1], f"out={Path(temporary) / 'again'}"]).stdout.split())
    for wanted in (f"{images:,} images", f"{written['objects']:,} objects"):
        if wanted not in said:
            raise BenchmarkError(f"the check does not tell of {wanted}: {said[:300]!r}")
    return Outcome(
        settings={"images": images, "side": side, "objects": written["objects"], "threads": usable_cores()},
        checks={"the check": f"tells of {images:,} images and {written['objects']:,} objects"},
        figures=[figure("seconds", f"{images:,} images opened and checked", seconds, unit="s", limit=LIMIT)],
        details={"bytes_of_an_image": written["bytes"] / images},
    )
