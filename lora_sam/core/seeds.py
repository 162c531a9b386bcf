"""Random generators that depend on names only, so that order, workers and resuming cannot change what is drawn."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of `parts`, e.g. `seed_for(seed, "jitter", epoch, sample.id)`."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_for(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded with `seed_for(*parts)`."""
    return np.random.default_rng(seed_for(*parts))


def drawn_places(count: int, most: int | None, *parts: int | str) -> NDArray[np.int64] | None:
    """At most `most` places of `count`, ascending, drawn by `generator_for(*parts)`; None where all may stay."""
    if most is None or count <= most:
        return None
    return np.sort(generator_for(*parts).choice(count, most, replace=False))
