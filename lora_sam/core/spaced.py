"""A few of many, evenly spaced."""

from __future__ import annotations


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0 to `count` - 1, ascending, the first and the last among them."""
    import numpy as np

    if count == 0:
        return []
    return [int(place) for place in np.unique(np.linspace(0, count - 1, min(most, count)).round())]
