"""What a run was trained for, and what it was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_sam.core.chosen import fields_in
from lora_sam.core.config import Problem, build_from, class_of
from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import read_json
from lora_sam.core.run_directory import RunDirectory
from lora_sam.prompts.interface import Kind, trained_kinds

_NAMES: dict[Kind, str] = {
    "box": "boxes",
    "point": "single points",
    "clicks": "correcting clicks",
    "everything": "masks without prompts",
}


def trained_for(run: RunDirectory) -> tuple[Kind, ...]:
    """The kinds of prompts that a run was trained for; none where that is not known, as for an adapter alone."""
    try:
        return kinds_of(read_json(run.saved_config, "train again"))
    except LoraSamError:
        return ()


def kinds_of(config: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The kinds of prompts that a configuration trains for; none where it does not say."""
    try:
        prompt = dict(config["prompt"])
        problems: list[Problem] = []
        source = build_from(class_of("prompt", prompt["_target_"]), "prompt", fields_in(prompt), problems)
    except (LoraSamError, KeyError, TypeError, ValueError):
        return ()
    return () if problems else trained_kinds(source)


def in_words(kinds: Sequence[Kind]) -> str:
    """`boxes and single points`."""
    return " and ".join(_NAMES[kind] for kind in kinds)


def not_trained_alone(kinds: Sequence[Kind]) -> str | None:
    """What to know before a run that was trained for `kinds` finds objects by itself; None where nothing."""
    if not kinds or "everything" in kinds:
        return None
    return (
        f"This run was trained with {in_words(kinds)}: without prompts it may find anything that looks like an object, "
        "and miss yours. prompt=everything trains masks without prompts."
    )
