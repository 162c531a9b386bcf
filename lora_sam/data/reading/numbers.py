"""Numbers from JSON, which has ones that no float holds."""

from __future__ import annotations

import math
import operator
import sys
from typing import Any

_NUMBERS = frozenset((int, float))


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number; a Boolean is none."""
    # JSON integers have no limit, so a comparison and not math.isfinite, which overflows on them
    return type(value) in (int, float) and -math.inf < value < math.inf  # type: ignore[operator]


def as_float(number: float) -> float:
    """A number from JSON, or the nearest to it that a float can hold."""
    return float(max(-sys.float_info.max, min(number, sys.float_info.max)))


def are_numbers(values: list[Any]) -> bool:
    """`is_number` of all of them: a data set has millions, and this takes a tenth of the time."""
    if not _NUMBERS.issuperset(map(type, values)) or any(map(operator.ne, values, values)):  # NaN is not itself
        return False
    return not values or (-math.inf < min(values) and max(values) < math.inf)
