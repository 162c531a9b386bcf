"""The exported parts of a run: whether they are there and current."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.files import sha256_of
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.manifest import command, require_step
from lora_sam.runs.merged import require_merged

if TYPE_CHECKING:
    pass


STEP = "export"


def made_from(run: RunDirectory) -> dict[str, str]:
    """SHA-256 of what the exported parts are made from. Raises `AdapterError` as `require_merged` does."""
    return {"merged": sha256_of(require_merged(run))}


def require_exported(run: RunDirectory, precision: str) -> Path:
    """Directory of the run's IR parts with weights stored at `precision`.

    Raises:
        AdapterError: they are missing, stale or changed; names the command that makes them.
    """
    directory = run.openvino(precision)
    require_step(directory, STEP, made_from(run), command(STEP, run.root, precision=precision))
    return directory
