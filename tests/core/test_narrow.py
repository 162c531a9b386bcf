"""Tables and progress on narrow terminals: nothing that counts is cut."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from lora_sam.core import console as module
from lora_sam.core.console import print_table, text_table
from lora_sam.core.narrow import fitting

HEADINGS = ("", "IoU [95 % interval]", "Dice", "boundary F1", "COCO mAP", "memory MB")
ROWS = [
    ("base", "0.411 [0.375, 0.448]", "0.577", "0.682", "0.100", "856"),
    ("int8_bf16", "+0.418 [+0.381, +0.456]", "0.584", "0.681", "0.101", "161"),
]


def shown(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    for part in fitting(table, width):
        console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_every_cell_is_whole_at_every_width_and_every_part_names_its_rows(width: int) -> None:
    text = shown(text_table(HEADINGS, ROWS, title="back ends", caption="3 images, the same prompts for all"), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for cell in {cell for row in (HEADINGS, *ROWS) for cell in row if cell}:
        assert cell in text
    parts = sum("──" in line for line in text.splitlines())
    assert parts == text.count("int8_bf16") == text.count("base")
    assert parts == {40: 3, 60: 2, 80: 2, 200: 1}[width]
    assert text.count("back ends") == text.count("3 images") == 1


@pytest.mark.parametrize("padding", [0, 1])
def test_no_width_is_just_too_narrow(padding: int) -> None:
    for width in range(42, 105):
        text = shown(text_table(HEADINGS, ROWS, padding=padding), width)
        assert "…" not in text, width
        assert max(map(cell_len, text.splitlines())) <= width


def test_a_table_that_fits_is_left_as_it_is() -> None:
    table = text_table(HEADINGS, ROWS)
    assert fitting(table, 120) == [table]
    assert len(fitting(table, 60)) > 1


def test_a_column_that_folds_takes_several_lines_before_a_table_is_parted() -> None:
    table = text_table(("job", "remedy"), [("1", "label more images than these few")], folding=(1,))
    assert fitting(table, 30) == [table]
    assert "label more images than" in shown(table, 30)


def test_tables_in_a_grid_are_parted_one_by_one() -> None:
    grid = Table.grid()
    grid.add_row(text_table(HEADINGS, ROWS, caption="first"))
    grid.add_row("")
    grid.add_row(text_table(("", "AP"), [("base", "0.25")], caption="second"))
    text = shown(grid, 50)
    assert "…" not in text
    assert text.index("memory MB") < text.index("first") < text.index("0.25") < text.index("second")


def test_a_file_has_every_column_however_many(capsys: pytest.CaptureFixture[str]) -> None:
    headings = [f"figure {number:02}" for number in range(30)]
    print_table(text_table(headings, [[f"{number:.6f}" for number in range(30)]]))
    out = capsys.readouterr().out
    assert "…" not in out
    assert "figure 29" in out.splitlines()[0]


@pytest.mark.parametrize("what", ["looking at images", "measuring base and tuned on 3 images with 12 kinds of prompts"])
@pytest.mark.parametrize("width", [60, 80])
def test_counts_and_time_of_a_bar_are_whole(what: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Console] = []

    def console(**given: Any) -> Console:
        made.append(
            Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
        )
        return made[-1]

    monkeypatch.setattr("rich.console.Console", console)
    with module.progress(what, "images") as tell:
        tell(1234, 5000)
    drawn = made[0].file.getvalue()  # type: ignore[attr-defined]
    assert "1234/5000 images" in drawn
    assert "--:--" in drawn or "00:00" in drawn
