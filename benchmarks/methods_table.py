"""The table of all methods on all sets: what each gains, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import markdown
from lora_sam.core.wording import plural

if TYPE_CHECKING:
    from benchmarks.record import Result


def text(result: Result) -> str:
    """How it was measured, and the table, the largest gain first."""
    table: Mapping[str, Any] = result.details["table"]
    sets = list(dict.fromkeys(of_set for row in table.values() for of_set in row["sets"]))
    how = result.settings
    heading = (
        "`method=`",
        *(f"{of_set} [95 %]" for of_set in sets),
        "mean of sets",
        f"after {how['clicks']} clicks",
        "trained",
        "adapter",
        "CPU time",
        "folds",
    )
    rows = [
        (
            name,
            *("–" if of_set not in row["sets"] else _points(row["sets"][of_set]) for of_set in sets),
            f"{100 * row['gain']['mean']:+.1f}",
            f"{100 * row['clicks']['mean']:+.1f}",
            f"{row['trained']:,}",
            f"{row['bytes'] / 1e6:.2f} MB",
            f"{row['cpu_seconds']:.1f} s",
            "yes" if row["folds"] else "no",
        )
        for name, row in sorted(table.items(), key=lambda item: -float(item[1]["gain"]["mean"]))
    ]
    base = ", ".join(f"{of_set} {value:.3f}" for of_set, value in result.details["base"].items())
    told = (
        "Test IoU, tuned − base, in points (0 to 100), with tight boxes; intervals over seeds and images. A set has "
        f"{how['train']} images to train on and {how['test']} to test on, or what there is, with at most "
        f"{plural(how['objects'], 'object')} each; {how['steps']} steps of one image at {how['side']} px; "
        f"{seeds_told(table)}. IoU of the base ({how['base']}): {base}."
    )
    return f"{told}\n\n{markdown(heading, rows, 'l' + 'r' * (len(heading) - 2) + 'l')}"


def seeds_told(table: Mapping[str, Any]) -> str:
    """How many seeds are behind a table of methods, set by set where they differ."""
    counts = {(of_set, one["runs"]) for row in table.values() for of_set, one in row["sets"].items()}
    low, high = min(runs for _, runs in counts), max(runs for _, runs in counts)
    if low == high:
        return plural(low, "seed")
    more = sorted({of_set for of_set, runs in counts if runs == high})
    return f"{plural(low, 'seed')}, up to {high} on {', '.join(more)}"


def _points(gain: Mapping[str, float]) -> str:
    return f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
