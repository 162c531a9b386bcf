"""Which file of `conf/` a group of keys was chosen by, kept beside its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# beside `_target_` in a group: the file of conf/<group>/ that it was chosen by, as the user typed it
OPTION = "_option_"


def with_options(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the name of the file in `conf/` that each of its groups was chosen by.

    Args:
        config: Plain values, the groups in it as mappings.
        choices: Hydra's `hydra.runtime.choices`.
    """
    named = {group: name for group, name in choices.items() if isinstance(name, str)}
    return {
        key: {**value, OPTION: named[key]} if isinstance(value, dict) and key in named else value
        for key, value in config.items()
    }


def without_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `with_options`: what a configuration sets, and not what it was chosen by."""
    return {
        key: {name: one for name, one in value.items() if name != OPTION} if isinstance(value, dict) else value
        for key, value in config.items()
    }


def fields_in(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a group of keys gives to its class: all but the names of class and file."""
    return {key: value for key, value in group.items() if key not in ("_target_", OPTION)}
