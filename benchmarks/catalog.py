"""Which questions there are: the modules of `benchmarks.questions`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from benchmarks import questions
from benchmarks.record import Outcome


class Question(Protocol):
    """A module of `benchmarks.questions`.

    Attributes:
        QUESTION: What it asks, one line.
        QUICK: Whether it belongs to what runs when no name is given.
    """

    QUESTION: str
    QUICK: bool

    def measure(self, *, rehearse: bool) -> Outcome:
        """Check that what is compared is comparable, then measure.

        With `rehearse`, tiny settings: the same code in seconds, for numbers that mean nothing.

        Raises:
            BenchmarkError: it cannot be run here, or the sides do not compute the same.
        """


def all_questions() -> dict[str, Question]:
    """Every question by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(questions.__path__))
    return {name: cast("Question", importlib.import_module(f"benchmarks.questions.{name}")) for name in names}
