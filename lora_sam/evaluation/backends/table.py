"""The table of back ends for the terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lora_sam.core.console import text_table
from lora_sam.core.groups import counted_images, independent
from lora_sam.core.wording import plural
from lora_sam.evaluation.backends.names import BACK_ENDS
from lora_sam.evaluation.backends.result import Comparison, Measured
from lora_sam.evaluation.comparison import FEW_IMAGES

if TYPE_CHECKING:
    from rich.table import Table

_HEADINGS = (
    "\nIoU",
    "\nDice",
    "\nF1",
    "bound.\nF1",
    "COCO\nmAP",
    "with\ntorch",
    "encode\nms",
    "decode\nms",
    "first\nms",
    "next\nms",
    "size\nMB",
    "memory\nMB",
)


def render_backends(comparison: Comparison, title: str) -> Table:
    """One row for each back end; fits 100 columns."""
    rows = ((name, *_cells(found)) for name, found in comparison.backends.items())
    return text_table(("", *_HEADINGS), rows, title=f"{title}, split {comparison.split}", padding=0)


def _cells(found: Measured) -> tuple[str, ...]:
    shares = (found.iou, found.dice, found.f1, found.boundary_f1, found.map, found.iou_with_torch)
    times = (found.encoder_ms, found.decoder_ms, found.first_prompt_ms, found.next_prompt_ms)
    return (
        *("-" if value is None else f"{value:.3f}" for value in shares[:-1]),
        "-" if found.iou_with_torch is None else f"{found.iou_with_torch:.4f}",
        *(three_digits(value) for value in times),
        three_digits(found.bytes / 1e6),
        "-" if found.peak_memory_bytes is None else three_digits(found.peak_memory_bytes / 1e6),
    )


def caption(comparison: Comparison) -> list[str]:
    """How the figures came about, in lines of at most 100 characters."""
    content = {"images": comparison.images, "groups": comparison.groups and asdict(comparison.groups)}
    few = "; too few images to trust intervals" if independent(content) < FEW_IMAGES else ""
    counted = f"{counted_images(content)}, {plural(comparison.objects, 'object')}"
    lines = [f"{counted}, the same prompts for all{few}"]
    if comparison.tuned_threshold is not None:
        tuned = comparison.tuned_threshold
        lines.append(
            f"logit threshold {comparison.mask_threshold:g}, best for {comparison.tuned_by} on "
            f"{plural(tuned.images, 'validation image')} (IoU {tuned.iou_at_zero:.3f} -> {tuned.iou:.3f})"
        )
    elif comparison.mask_threshold:
        lines.append(f"logit threshold {comparison.mask_threshold:g}")
    lines += _other_arithmetic(comparison)
    height, width = comparison.image_size
    host = comparison.host
    threads = "" if host.threads is None else f", {plural(host.threads, 'thread')}"
    if host.torch_threads not in (None, host.threads, host.cores):
        threads += f", torch on {host.torch_threads}"
    return [
        *lines,
        f"milliseconds: medians of {plural(comparison.repeats, 'turn')}; "
        f"first and next prompt on {width} x {height} px",
        "memory: peak of a process that loads the back end and segments one image",
        f"{host.cpu}, {plural(host.cores, 'core')}{threads}",
    ]


def _other_arithmetic(comparison: Comparison) -> list[str]:
    """Back ends that were computed otherwise than their names say, as in bf16 on a processor that has none."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, found in comparison.backends.items():
        if found.execution != BACK_ENDS[name].execution:
            names.setdefault((BACK_ENDS[name].execution, found.execution), []).append(name)
    return [
        f"{' and '.join(of)} computed in {done}: not in {asked} on this processor"
        for (asked, done), of in names.items()
    ]


def three_digits(value: float) -> str:
    """At least three significant digits: 0.123, 1.23, 12.3, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
