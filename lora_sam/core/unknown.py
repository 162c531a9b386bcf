"""What a user may have meant by a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence


def unknown_key(key: str, valid: Iterable[str]) -> str:
    """One line for a key that is not among the `valid` dotted keys: the nearest of them, and its valid neighbours."""
    names = sorted(set(valid))
    parent, _, last = key.rpartition(".")
    neighbours = [name for name in names if name.rpartition(".")[0] == parent]
    same = [name for name in names if name.rpartition(".")[2] == last]
    nearest = nearest_of(key, same, cutoff=0) or nearest_of(key, neighbours) or nearest_of(key, names)
    if nearest is None:
        lasts = {name.rpartition(".")[2]: name for name in names}
        nearest = lasts.get(nearest_of(last, list(lasts)) or "")
    hint = f"; did you mean {nearest}?" if nearest else "."
    # where the group is unknown too, the top is what can be offered
    return f"unknown key {key}{hint} Valid keys: {', '.join(neighbours or [name for name in names if '.' not in name])}"


def unknown_option(text: str, group: str, name: str, options: Iterable[str]) -> str:
    """One line for an option that its group does not have; `text` is what the user wrote."""
    names = sorted(set(options))
    nearest = nearest_of(name, names)
    hint = f"; did you mean {group}={nearest}?" if nearest else "."
    return f"unknown option {text}{hint} Options of {group}: {', '.join(names)}"


def known_name(names: Collection[str]) -> Callable[[str], str]:
    """A check for pydantic that text is one of `names`; raises `ValueError` with all of them and the nearest."""

    def check(name: str) -> str:
        if name not in names:
            near = nearest_of(name, list(names))
            raise ValueError(f"must be one of {', '.join(names)}" + (f"; did you mean {near}?" if near else ""))
        return name

    return check


def nearest_of(name: str, names: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The name that is the most like `name`; None where none is."""
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=cutoff)), None)
