"""The preview: the same overrides as training, and a sheet on which masks and prompts can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sam.cli.preview import preview
from lora_sam.core.painting import PALETTE
from lora_sam.core.structures import Prompts, Sample
from lora_sam.report.contact_sheet import prompted_picture


def arguments(blobs: Path, output: Path, *more: str) -> list[str]:
    return [f"data.root={blobs}", "model=tiny_random", f"preview.output={output}", *more]


def test_training_prompts_epoch_by_epoch(blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "sheet.png"
    given = arguments(blobs, path, "prompt=points", "preview.images=2", "preview.epochs=3", "augmentation=none")
    assert preview(given) == 0
    assert capsys.readouterr().out == f"{path}\n"
    sheet = Image.open(path)
    assert sheet.size == (3 * 512 + 4 * 8, 2 * (384 + 20) + 3 * 8)
    pixels = np.asarray(sheet).astype(int)
    first, second = pixels[8:392, 8:520], pixels[8:392, 528:1040]
    assert 100 < (np.abs(first - second).sum(axis=2) > 60).sum() < 20_000  # the same image, other points
    preview(given)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)


def test_evaluation_prompts(blobs: Path, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert preview(arguments(blobs, path, "prompt=mask", "preview.split=test", "preview.images=9")) == 0
    assert Image.open(path).size == (512 + 16, 3 * (384 + 20) + 4 * 8)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preview.output=sheet.jpg", "must end with .png"),
        ("preview.image=3", "unknown key image; did you mean images?"),
        ("preview.images=0", "images = 0"),
        ("prompt=boxes", "did you mean prompt=box?"),
        ("prompt.positive=0", "prompt.positive = 0"),
        ("data.root=nowhere", "nowhere"),
    ],
)
def test_mistakes_are_one_line(
    override: str, message: str, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"data.root={blobs}", "model=tiny_random", "prompt=points", f"preview.output={tmp_path / 'sheet.png'}"]
    assert preview([*given, override]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert not list(tmp_path.iterdir())


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(["--help"]) == 0
    printed = capsys.readouterr().out
    for line in ("split=train", "images=6", "epochs=3", "output=preview.png", "preview.<name>=..."):
        assert line in printed


def test_prompts_are_drawn_where_they_are() -> None:
    masks = np.zeros((3, 100, 200), np.bool_)
    for row in range(3):
        masks[row, 20:60, 20 + 60 * row : 60 + 60 * row] = True
    sample = Sample("a.png", np.full((100, 200, 3), 120, np.uint8), masks, ("1", "2", "3"))
    nan = np.nan
    rough = np.full((3, 64, 64), -5, np.float32)
    rough[:2, 0, 0] = nan
    rough[2, 6:16, 46:56] = 5
    prompts = Prompts(
        boxes=np.array([[10, 10, 70, 70], [nan] * 4, [nan] * 4], np.float32),
        points=np.array([[[0, 0], [0, 0]], [[100, 40], [100, 90]], [[160, 40], [0, 0]]], np.float32),
        labels=np.array([[-1, -1], [1, 0], [1, -1]]),
        mask_inputs=rough,
    )
    picture = np.asarray(prompted_picture(sample, prompts))
    assert picture.shape == (200, 400, 3)
    assert tuple(picture[20, 80]) == tuple(picture[80, 20]) == PALETTE[0]  # the box
    assert tuple(picture[80, 200]) == PALETTE[1]
    assert tuple(picture[180, 200]) == PALETTE[1]
    assert tuple(picture[80, 320]) == PALETTE[2]
    assert tuple(picture[0, 0]) == (120, 120, 120)  # padding is not drawn
    white = (picture == 255).all(axis=2)
    rows, _ = np.nonzero(white[:110, 280:])
    assert (abs(rows.min() - 37), abs(rows.max() - 99)) < (4, 4)
