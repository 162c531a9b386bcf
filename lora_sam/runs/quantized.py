"""The INT8 parts of a run: whether they are there and current."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.backends.names import Mode
from lora_sam.runs.exported import made_from as made_from_merged
from lora_sam.runs.manifest import command, read_step, require_step

if TYPE_CHECKING:
    pass


STEP = "quantize"


def require_quantized(run: RunDirectory, mode: Mode = "int8") -> Path:
    """Directory of the run's quantised parts. Whether the images are still the same is not looked at.

    Raises:
        AdapterError: they are missing, stale or changed; names the command that makes them.
    """
    directory = run.openvino(mode)
    remedy = command(STEP, run.root, **({} if mode == "int8" else {"mode": mode}))
    found = read_step(directory, STEP, remedy)
    require_step(directory, STEP, {**found.made_from, **made_from_merged(run)}, remedy)
    return directory
