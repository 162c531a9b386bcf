"""Quantities of a plan in words."""

from __future__ import annotations


def count(number: int) -> str:
    """`4.2 M`, `295 k`, `12`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{_short(number / size)} {unit}"
    return str(number)


def flops(number: float) -> str:
    """`2.18 TFLOP`, `3.6 GFLOP`."""
    for size, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e6:.3g} MFLOP"


def gib(number: float) -> str:
    """Memory: `2.9 GiB`."""
    return f"{_short(number / 2**30)} GiB"


def gigabytes(number: float) -> str:
    """Disk: `0.27 GB`."""
    return f"{_short(number / 1e9)} GB"


def duration(seconds: float) -> str:
    """`40 s`, `4 min`, `2.5 h`; estimates deserve no more digits."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{_short(seconds / 3600)} h"


def plural(number: int, noun: str) -> str:
    """`1 image`, `1,024 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
