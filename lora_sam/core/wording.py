"""Numbers in words, for tables and sentences."""

from __future__ import annotations

import math
import re

_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


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


def in_short(number: int) -> str:
    """A count with at most three digits: `4.2 M`, `295 k`, `12`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{_short(number / size)} {unit}"
    return str(number)


def in_flops(number: float) -> str:
    """`2.18 TFLOP`, `3.6 GFLOP`."""
    for size, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e6:.3g} MFLOP"


def in_gib(number: float) -> str:
    """Memory: `2.9 GiB`."""
    return f"{_short(number / 2**30)} GiB"


def in_gigabytes(number: float) -> str:
    """Disk: `0.27 GB`."""
    return f"{_short(number / 1e9)} GB"


def about(seconds: float) -> str:
    """An estimated duration, which deserves no more digits: `40 s`, `4 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{_short(seconds / 3600)} h"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def unturned(text: str) -> str:
    """`text` with what would turn the order of what stands around it, and controls, as escapes: `\\u202e`."""
    return _ACTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_one_line(text: str) -> str:
    """`printable` text whose line breaks are escapes too, for files with a name a line."""
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """`text` with what a terminal or a page would act on, or not show, as escapes: `\\x1b`. Line breaks stay."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)
