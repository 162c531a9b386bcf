"""The terminal table: every figure, within 100 columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from lora_sam.evaluation.backends.names import BACK_ENDS
from lora_sam.evaluation.backends.result import Comparison, Measured
from lora_sam.evaluation.backends.table import caption, render_backends, three_digits
from lora_sam.evaluation.backends.threshold import TunedThreshold


def rendered(comparison: Comparison, width: int) -> list[str]:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_backends(comparison, "back ends of run"))
    return console.export_text().splitlines()


def test_a_row_for_each_with_all_figures(comparison: Callable[..., Comparison]) -> None:
    lines = rendered(comparison(), 100)
    row = next(line for line in lines if line.startswith("int8"))
    assert row.split() == [
        "int8", "0.797", "0.880", "0.900", "0.700", "0.500", "0.9991", "2.50", "20.0", "30.0", "40.0", "31.0", "900",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in BACK_ENDS] == [
        "base", "tuned", "int8",
    ]  # fmt: skip


def test_large_figures_fit_100_columns(
    comparison: Callable[..., Comparison], measured: Callable[..., Measured]
) -> None:
    slow = measured(
        encoder_ms=123_456.7,
        decoder_ms=9_999.9,
        first_prompt_ms=133_456.7,
        next_prompt_ms=9_999.9,
        bytes=2_564_550_879,
        peak_memory_bytes=23_999_000_000,
    )
    table = comparison(backends=dict.fromkeys(BACK_ENDS, slow))
    narrow, wide = rendered(table, 100), rendered(table, 300)
    cells = [line.split() for line in narrow if line.startswith(tuple(BACK_ENDS))]
    assert cells == [line.split() for line in wide if line.startswith(tuple(BACK_ENDS))]
    assert len(cells) == len(BACK_ENDS)
    assert "123,457" in cells[0]
    assert max(map(len, narrow)) <= 100


def test_what_was_not_measured_is_a_dash(
    comparison: Callable[..., Comparison], measured: Callable[..., Measured]
) -> None:
    entry = measured(iou_with_torch=None, peak_memory_bytes=None)
    (row,) = [line for line in rendered(comparison(backends={"int8": entry}), 100) if line.startswith("int8")]
    assert (row.split()[6], row.split()[-1]) == ("-", "-")


def test_the_caption_says_how(comparison: Callable[..., Comparison]) -> None:
    tuned = TunedThreshold(0.7, 0.82, 0.8, 12, 127)
    lines = caption(comparison(tuned_threshold=tuned, tuned_by="tuned", mask_threshold=0.7, images=3))
    text = " ".join(lines)
    assert "logit threshold 0.7, best for tuned on 12 validation images (IoU 0.800 -> 0.820)" in text
    assert "3 images, 230 objects" in text
    assert "too few images to trust intervals" in text
    assert "too few" not in " ".join(caption(comparison()))
    assert max(map(len, lines)) <= 100
    assert max(map(len, caption(comparison()))) <= 100
    assert caption(comparison())[-1] == "a CPU, 2 cores"
    host = replace(comparison().host, torch_threads=1)
    assert caption(comparison(host=host))[-1] == "a CPU, 2 cores, torch on 1"
    host = replace(host, threads=1)
    assert caption(comparison(host=host))[-1] == "a CPU, 2 cores, 1 thread"


def test_arithmetic_that_a_processor_lacks_is_said(
    comparison: Callable[..., Comparison], measured: Callable[..., Measured]
) -> None:
    """The rows of bf16 were those of f32 without a word."""
    names = ("fp16", "bf16", "int8_bf16")
    lines = caption(comparison(backends={name: measured(execution="f32") for name in names}))
    assert lines[1] == "bf16 and int8_bf16 computed in f32: not in bf16 on this processor"
    right = {name: measured(execution="bf16" if name.endswith("bf16") else "f32") for name in names}
    assert "computed in" not in " ".join(caption(comparison(backends=right)))


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")]
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text
