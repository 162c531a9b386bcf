"""The picture for the README, and the script that draws it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import AdapterError
from lora_sam.core.run_directory import RunDirectory
from scripts import figure_of_run as figure
from scripts.figure_of_run import FILE_LIMIT, WIDTH, run_figure, write_figure

ROOT = Path(__file__).resolve().parents[2]
Finished = Callable[..., RunDirectory]


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "readme_picture.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_curves_on_the_left_strips_on_the_right(finished: Finished) -> None:
    pixels = np.asarray(run_figure(finished()))
    assert pixels.shape[1] == WIDTH
    left, right = pixels[:, :540], pixels[:, 560:]
    blue = (np.abs(left.astype(int) - (0, 105, 168)).max(axis=2) < 10).sum()
    assert blue > 500
    assert (pixels[:, -10:] == 255).all()
    # the base found half of each object, the tuned model of the best case all of it
    panels = [right[54 : 54 + 192, k * 250 + 16 : k * 250 + 256] for k in range(4)]
    counts = [(np.abs(panel.astype(int) - 200).max(axis=2) > 20).sum() for panel in panels]
    assert counts[0] < counts[1] < counts[2]
    assert counts[2] == counts[3]


def test_rows_are_as_many_as_asked_for(finished: Finished) -> None:
    run = finished()
    one, two, three = (run_figure(run, rows) for rows in (1, 2, 3))
    assert one.height == two.height <= three.height
    assert np.asarray(one).mean() > np.asarray(two).mean() > np.asarray(three).mean()


@pytest.mark.parametrize("log", [[], [{"step": 10, "loss": None}], [{"step": 10, "loss": 1.0, "validation_iou": 0.5}]])
def test_short_logs_are_drawn(finished: Finished, log: list[dict[str, float | None]]) -> None:
    assert run_figure(finished(log=log)).width == WIDTH


def test_files_are_small_whatever_they_show(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished()
    assert write_figure(tmp_path / "small.png", run) < FILE_LIMIT
    with Image.open(tmp_path / "small.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
    full = (tmp_path / "small.png").stat().st_size
    monkeypatch.setattr(figure, "FILE_LIMIT", full)
    assert write_figure(tmp_path / "smaller.png", run) < full
    with Image.open(tmp_path / "smaller.png") as image:
        assert image.mode == "P"
    assert write_figure(tmp_path / "same.png", run) == (tmp_path / "smaller.png").stat().st_size
    assert (tmp_path / "same.png").read_bytes() == (tmp_path / "smaller.png").read_bytes()


def test_what_is_missing_or_damaged_is_named(finished: Finished, tmp_path: Path) -> None:
    run = finished()
    (run.overlays / "median.png").write_bytes(b"no picture")
    with pytest.raises(AdapterError, match=r"median\.png cannot be read .*; train again"):
        run_figure(run)
    with pytest.raises(AdapterError, match=r"evaluation\.json is missing; give the directory of a finished run"):
        run_figure(RunDirectory(tmp_path))


def test_the_script_draws_the_picture(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "images" / "demo.png"
    done = script(str(finished().root), str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: ")
    with Image.open(out) as image:
        assert image.width == WIDTH


def test_the_script_says_what_is_wrong(tmp_path: Path) -> None:
    assert script().returncode == 2
    done = script(str(tmp_path / "nothing"), str(tmp_path / "out.png"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
