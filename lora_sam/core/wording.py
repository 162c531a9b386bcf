"""Numbers in words, for tables and sentences."""

from __future__ import annotations

import math


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 image`, `1,860 objects`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def in_bytes(count: int) -> str:
    """Decimal units, as adapters are compared in MB: 1,250,000 is 1.25 MB."""
    power = min(3, int(math.log10(max(1, count))) // 3)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.2f} {('kB', 'MB', 'GB')[power - 1]}"


def duration(seconds: float) -> str:
    """Seconds in words: `3.2 s`, `4 min 32 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
