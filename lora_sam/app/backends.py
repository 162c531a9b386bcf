"""What can compute a run's tuned masks: torch, and the back ends of the run that are there and current."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.backends.names import BACK_ENDS, TORCH
from lora_sam.runs.backends import RunBackEnds, open_alone

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor

_NAMES = {f"openvino {name}" if found.runtime == "openvino" else name: name for name, found in BACK_ENDS.items()}
"""Names of back ends by what the app calls them."""


def backends_of(run: RunDirectory) -> dict[str, Callable[[], Predictor]]:
    """Ways to make a predictor of the tuned model besides torch with the adapter, in the order of the list.

    What is missing, stale, or was changed by hand is left out, and without the package openvino what needs it.
    """
    origin = RunBackEnds(run)
    current = origin.current
    return {
        key: lambda name=name: open_alone(BACK_ENDS[name], origin.place(name), scores=origin.scores)  # type: ignore[misc]
        for key, name in _NAMES.items()
        if name in current and BACK_ENDS[name].deployed
        if BACK_ENDS[name].runtime == "torch" or find_spec("openvino") is not None
    }


def why_not(run: RunDirectory, key: str) -> None:
    """Raise `AdapterError` for a back end that is there but stale or changed: what is wrong, and the remedy."""
    origin = RunBackEnds(run)
    if (name := _NAMES.get(key)) in origin.offered:
        origin.require([name])


def code_of(run: RunDirectory, key: str) -> tuple[tuple[str, ...], str]:
    """The imports and the expression that make the predictor of a back end in Python."""
    name = _NAMES.get(key, key)
    imports = (
        "from pathlib import Path",
        "from lora_sam.core.run_directory import RunDirectory",
        "from lora_sam.runs.backends import RunBackEnds",
    )
    return imports, f"RunBackEnds(RunDirectory(Path({str(run.root)!r}))).open([{name!r}], threads=None)[{name!r}]"


def bytes_of(run: RunDirectory, key: str) -> int | None:
    """Size of the files of one that `backends_of` offers; None for torch, whose weights are base and adapter."""
    if key == TORCH:
        return None
    return sum(path.stat().st_size for path in RunBackEnds(run).files(_NAMES[key]) if path.is_file())
