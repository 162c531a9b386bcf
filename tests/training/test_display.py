"""Progress for people: lines where there is no terminal, a bar where there is one, nothing when quiet."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from lora_sam.training.display import Display


def console(*, terminal: bool) -> tuple[Console, StringIO]:
    file = StringIO()
    environment = {"TERM": "xterm", "COLUMNS": "120"}
    return Console(file=file, force_terminal=terminal, width=120, _environ=environment), file


def train(display: Display) -> None:
    with display:
        display.begin(20)
        for step in range(1, 6):
            display.step(step)
            if step % 2 == 0:
                display.values(step, {"loss": 1.23456 / step, "learning_rate": 1e-5})
        display.message("epoch 1: IoU [bold]0.5[/bold] 🙂")


def test_without_a_terminal_there_is_one_line_per_interval() -> None:
    target, file = console(terminal=False)
    train(Display(console=target))
    assert file.getvalue().splitlines() == [
        "step 2/20  loss 0.6173  learning_rate 1e-05",
        "step 4/20  loss 0.3086  learning_rate 1e-05",
        "epoch 1: IoU [bold]0.5[/bold] 🙂",  # names of users' files are no markup
    ]


def test_long_lines_are_not_broken() -> None:
    target, file = console(terminal=False)
    display = Display(console=target)
    display.message("x" * 500 + " y")
    assert file.getvalue() == "x" * 500 + " y\n"


def test_on_a_terminal_there_is_a_bar() -> None:
    target, file = console(terminal=True)
    train(Display(console=target))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "training" in shown
    assert "5/20" in shown
    assert "loss 0.3086  learning_rate 1e-05" in shown
    assert "\nepoch 1: IoU [bold]0.5[/bold] 🙂\n" in shown.replace("\r", "\n")
    assert "step 2/20" not in shown
    assert file.getvalue().endswith("\x1b[2K")  # the bar is wiped off, the lines stay


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_bar_steps_time_loss_and_validation_fit_the_terminal(width: int) -> None:
    file = StringIO()
    target = Console(file=file, force_terminal=True, width=width, _environ={"TERM": "xterm", "COLUMNS": str(width)})
    with Display(100, console=target) as display:
        display.begin(12000)
        display.validated(0.6789)
        values = {"dice": 0.4707, "loss": 0.5771, "cross_entropy": 0.08345, "iou": 0.0229, "gradient_norm": 1.234}
        display.values(101, values)
    colourless = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", colourless).replace("\r", "\n").splitlines()
    shown = [line for line in lines if "loss" in line]
    assert shown
    for line in shown:
        assert len(line) <= width
        assert "training" in line
        assert "━" * 6 in line
        assert re.search(r"\b101/12000 +(--|[0-9]+):", line)
        assert "loss 0.5771  val 0.679" in line
        assert ("gradient_norm 1.234" in line) == (width >= 160)


def test_the_bar_of_a_resumed_run_goes_on_where_it_was() -> None:
    target, file = console(terminal=True)
    with Display(7, console=target) as display:
        display.begin(20)
    assert "7/20" in file.getvalue()


def test_the_bar_ends_when_training_fails() -> None:
    target, file = console(terminal=True)
    with pytest.raises(ZeroDivisionError), Display(console=target):
        _ = 1 / 0
    assert "\x1b[?25h" in file.getvalue()  # the cursor is there again


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_shows_nothing(
    terminal: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    target, file = console(terminal=terminal)
    display = Display(console=target, quiet=True)
    assert display.console.is_terminal == terminal
    train(display)
    assert file.getvalue() == ""
    assert capfd.readouterr() == ("", "")


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    train(Display())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == "step 2/20  loss 0.6173  learning_rate 1e-05"
